"""Where a request is: what clients that wait for one ask again and again."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import Connection, Row

from app.accounts.principal import Principal
from app.kit.clock import utcnow
from app.kit.ids import is_id
from app.removal.errors import RequestNotFound
from app.removal.schemas import Links, ScoreView, StageView, StatusView, TransitionView
from app.removal.states import ENDED, FINAL, STAGES, WAITING, WORKING, State
from app.removal.status_repository import StatusRepository, Usual
from app.removal.timeline import Stage, remaining_seconds, timeline

_UNPROTECTED = ENDED - {State.FAILED}
_WAITS_FOR = {
    State.IN_REVIEW: "Waiting for an operator: POST /requests/{id}/approve or /reject.",
    State.NEEDS_EVIDENCE: "Waiting for pictures of the subject: POST /requests/{id}/evidence.",
    State.NEEDS_ATTENTION: "Waiting for an operator: look at `reason`, `scores` and "
    "/requests/{id}/failures, then POST /requests/{id}/retry or /reject.",
}
_STAGE_OF = dict(zip(WORKING, STAGES, strict=True))


@dataclass(frozen=True, slots=True)
class _Move:
    """A state change."""

    to_state: str
    event: str | None
    created_at: datetime
    message: str


def read_status(connection: Connection, principal: Principal, request_id: str) -> StatusView:
    """Return where a request is; a linked one shows stage, attempt and scores of the one it follows.

    Raises:
        RequestNotFound: no such request, or another tenant's.
    """
    rows = StatusRepository(connection)
    found = rows.find(request_id, principal.sees) if is_id(request_id, "req") else None
    if found is None:
        raise RequestNotFound("There is no removal request with this id.")
    return _view(found, rows.usual(found.lately))


def _view(row: Row[Any], usual: Usual) -> StatusView:
    state, lead_state = State(row.state), State(row.lead_state)
    moves = _moves(row, row.id)
    stages = timeline(
        moves if row.linked_to_id is None else _moves(row, row.linked_to_id),
        lead_state,
        utcnow(),
        {_STAGE_OF[State(name)]: seconds for name, seconds in usual.seconds.items()},
    )
    protection: Literal["expert", "interim"] | None = None
    if state not in _UNPROTECTED:
        protection = "expert" if row.by_expert else "interim" if row.by_rule else None
    return StatusView(
        id=row.id,
        state=state,
        final=state in FINAL,
        waiting=state in WAITING,
        hint=_WAITS_FOR[state].format(id=row.lead_id) if state in WAITING else None,
        stage=row.stage if state in WORKING else None,
        percent=100 if state is State.ACTIVE else row.percent,
        message=row.message,
        eta=_eta(row, lead_state, stages, usual),
        attempt=row.attempt,
        max_attempts=row.max_attempts if isinstance(row.max_attempts, int) else None,
        cancel_requested=row.cancel_requested_at is not None,
        linked_to=row.linked_to_id,
        protection=protection,
        protected_at=(row.protected_since or _activated(moves)) if protection else None,
        base_knows_subject=row.base_knows_subject,
        reason_code=row.reason_code or row.lead_reason_code,
        reason=row.reason or row.lead_reason,
        created_at=row.created_at,
        updated_at=max(row.updated_at, row.lead_updated_at),
        expected_by=row.expected_by,
        transitions=[
            TransitionView(state=m.to_state, event=m.event or "", at=m.created_at, reason=m.message or None)
            for m in moves
        ],
        stages=[StageView.model_validate(stage) for stage in stages],
        scores=[ScoreView(**score) for score in row.scores] if row.scores else None,
        links=Links.of(row.id, row.linked_to_id),
    )


def _moves(row: Row[Any], request_id: str) -> list[_Move]:
    """Return the state changes of one of the two requests that the row tells of, oldest first."""
    return [
        _Move(*move)
        for of, *move in zip(row.of, row.to_state, row.event, row.at, row.words, strict=True)
        if of == request_id
    ]


def _activated(moves: Sequence[_Move]) -> datetime | None:
    return next((move.created_at for move in moves if move.to_state == State.ACTIVE), None)


def _eta(row: Row[Any], state: State, stages: Sequence[Stage], usual: Usual) -> datetime | None:
    """What the stages that are left usually take; without a history, this request's own speed so far.

    A request that waits for a worker is told by how long others took, their waiting included.
    """
    now = utcnow()
    queued_at: datetime | None = row.queued_at
    if state is State.QUEUED and queued_at is not None:
        return None if usual.whole is None else max(queued_at + usual.whole, now + timedelta(seconds=1))
    if state not in WORKING:
        return None
    left = remaining_seconds(stages)
    if left is not None:
        return now + timedelta(seconds=max(left, 1.0))
    begun = min((stage.started_at for stage in stages if stage.started_at is not None), default=None)
    percent: int = row.percent
    if begun is None or percent < 10:
        return None
    return now + (now - begun) * ((100 - percent) / percent)
