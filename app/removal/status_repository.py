"""SQL of where a request is: one statement, so that asking again and again costs one trip to the database.

What is usual is a statement of its own, asked once for each request that becomes active.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import (
    Connection,
    Interval,
    Row,
    Select,
    String,
    any_,
    bindparam,
    case,
    func,
    literal_column,
    select,
    true,
    type_coerce,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, aggregate_order_by, distinct_on
from sqlalchemy.sql.elements import ColumnElement
from sqlalchemy.sql.selectable import LateralFromClause

from app.db.models import RemovalRequest, RequestEvent, VerificationScore
from app.registry.repository import protection_of
from app.removal.states import WORKING, State

LATELY = 20
"""So many requests that became active last tell what is usual."""
_request = RemovalRequest.__table__.alias("request")
_lead = RemovalRequest.__table__.alias("lead")
_event = RequestEvent.__table__.alias("event")
_score = VerificationScore.__table__.alias("score")
_SCORE = ("metric", "value", "n", "low", "high", "threshold", "passed", "reason", "details")


@dataclass(frozen=True, slots=True)
class Usual:
    """Medians of late: seconds by working state, and the whole time from queue to active."""

    seconds: Mapping[str, float]
    whole: timedelta | None


_NOTHING = Usual({}, None)
_known: tuple[Sequence[str], Usual] = ((), _NOTHING)
"""What was usual when this process asked last, and for which events; their ids are no other database's."""


class StatusRepository:
    """One row with everything that the status of a request tells; columns of tables alone, no objects.

    It needs no session: what a session does for objects costs as much as the statement itself.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def find(self, request_id: str, tenant_id: str | None) -> Row[Any] | None:
        """Return the row of a request that `tenant_id` (None: anybody) may see, as it is in the database now.

        `of`, `to_state`, `event`, `at` and `words` are its state changes, oldest first, and those of the
        request that it follows; `scores` are documents; where there is work to come, `lately` is what `usual`
        goes by.
        """
        if tenant_id is None:
            return self._connection.execute(_OF_ALL, {"id": request_id}).first()
        return self._connection.execute(_OF_TENANT, {"id": request_id, "tenant_id": tenant_id}).first()

    def usual(self, lately: Sequence[str] | None) -> Usual:
        """Return what was usual for the requests that became active by these events, `find`'s `lately`.

        An active request never becomes anything but revoked, so what has been found out of them holds, and is
        not asked again until others become active.
        """
        global _known
        if not lately:
            return _NOTHING
        events, known = _known
        if events != lately:
            row = self._connection.execute(_USUAL, {"lately": lately}).one()
            known = Usual(row.seconds or {}, row.whole)
            _known = (lately, known)
        return known


def _history() -> LateralFromClause:
    """Return the state changes of a request and of the one it follows, as arrays in the order they came."""
    columns = {"of": "request_id", "to_state": "to_state", "event": "event", "at": "created_at"}
    return (
        select(
            *(
                func.array_agg(aggregate_order_by(_event.c[column], _event.c.seq)).label(label)
                for label, column in (columns | {"words": "message"}).items()
            )
        )
        .where(_event.c.request_id.in_([_request.c.id, _lead.c.id]), _event.c.to_state.is_not(None))
        .lateral("history")
    )


def _scores() -> ColumnElement[Any]:
    """Return the newest attempt's scores in the order in which they were measured, as documents."""
    tried = VerificationScore.__table__.alias("tried")
    newest = select(func.max(tried.c.attempt)).where(tried.c.request_id == _lead.c.id).correlate(_lead)
    parts: list[ColumnElement[Any]] = []
    for name in _SCORE:
        parts += [literal_column(f"'{name}'"), _score.c[name]]
    document = func.json_build_object(*parts)
    return (
        select(func.json_agg(aggregate_order_by(document, _score.c.id)))
        .where(_score.c.request_id == _lead.c.id, _score.c.attempt == newest.scalar_subquery())
        .scalar_subquery()
    )


def _lately() -> ColumnElement[Any]:
    """Return the ids of the events by which requests became active last."""
    newest = (
        select(_event.c.id, _event.c.seq)
        .where(_event.c.event == literal_column("'activate'"))
        .order_by(_event.c.seq.desc())
        .limit(LATELY)
        .subquery("newest")
    )
    return select(func.array_agg(aggregate_order_by(newest.c.id, newest.c.seq))).scalar_subquery()


def _usual() -> Select[Any]:
    """Return the medians over the requests that became active by the events `lately`.

    They are the seconds in each working state, where one that was entered more than once counts from the last
    time, and the time from queue to active.
    """
    reached = (
        select(_event.c.request_id, (_event.c.created_at - _request.c.queued_at).label("took"))
        .join_from(_event, _request, _request.c.id == _event.c.request_id)
        .where(_event.c.id == any_(bindparam("lately", type_=ARRAY(String))))
        .cte("reached")
    )
    left = func.lead(_event.c.created_at).over(partition_by=_event.c.request_id, order_by=_event.c.seq)
    took = (left - _event.c.created_at).label("took")
    stays = (
        select(_event.c.request_id, _event.c.seq, _event.c.to_state, took)
        .where(_event.c.request_id.in_(select(reached.c.request_id)), _event.c.to_state.is_not(None))
        .subquery("stays")
    )
    newest = (
        select(stays.c.to_state, func.extract("epoch", stays.c.took).label("seconds"))
        .ext(distinct_on(stays.c.request_id, stays.c.to_state))
        .order_by(stays.c.request_id, stays.c.to_state, stays.c.seq.desc())
        .where(stays.c.to_state.in_([literal_column(f"'{state}'") for state in WORKING]))
        .subquery("newest")
    )
    medians = (
        select(newest.c.to_state, func.percentile_cont(0.5).within_group(newest.c.seconds).label("median"))
        .where(newest.c.seconds.is_not(None))
        .group_by(newest.c.to_state)
        .subquery("medians")
    )
    by_state = select(func.json_object_agg(medians.c.to_state, medians.c.median)).scalar_subquery()
    whole = select(func.percentile_cont(0.5).within_group(reached.c.took)).scalar_subquery()
    return select(
        type_coerce(by_state, JSONB).label("seconds"), type_coerce(whole, Interval()).label("whole")
    )


def _statement() -> Select[Any]:
    history = _history()
    since, by_expert, by_rule = protection_of(_lead.c.id)
    queued = _lead.c.state == literal_column(f"'{State.QUEUED}'")
    working = _lead.c.state.in_([literal_column(f"'{state}'") for state in WORKING])
    own = ("id", "state", "linked_to_id", "cancel_requested_at", "reason_code", "reason", "created_at",
           "updated_at", "expected_by")  # fmt: skip
    followed = ("stage", "percent", "message", "attempt", "base_knows_subject", "queued_at")
    both = ("id", "state", "reason_code", "reason", "updated_at")
    return (
        select(
            *(_request.c[name] for name in own),
            *(_lead.c[name] for name in followed),
            *(_lead.c[name].label(f"lead_{name}") for name in both),
            _lead.c.policy["max_attempts"].label("max_attempts"),
            *history.c,
            type_coerce(_scores(), JSONB).label("scores"),
            case((queued | working, _lately())).label("lately"),
            since.label("protected_since"),
            by_expert.label("by_expert"),
            by_rule.label("by_rule"),
        )
        .join_from(_request, _lead, _lead.c.id == func.coalesce(_request.c.linked_to_id, _request.c.id))
        .join(history, true())
        .where(_request.c.id == bindparam("id"))
    )


_OF_ALL = _statement()
_USUAL = _usual()
_OF_TENANT = _OF_ALL.where(_request.c.tenant_id == bindparam("tenant_id"))
