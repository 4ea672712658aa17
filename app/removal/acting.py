"""What people may do with a request, and who: one list for the API and the dashboard."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from sqlalchemy.orm import Session

from app.accounts.principal import Principal
from app.accounts.service import Scope
from app.kit.pictures import Picture
from app.removal.service import RemovalService
from app.removal.states import Event, State, target
from app.settings import Settings

READERS: Final[tuple[Scope, ...]] = ("owner", "operator", "auditor")
OWNERS: Final[tuple[Scope, ...]] = ("owner", "operator")
OPERATORS: Final[tuple[Scope, ...]] = ("operator",)


class Action(StrEnum):
    """A decision about a request, besides sending further pictures."""

    APPROVE = "approve"
    REJECT = "reject"
    RETRY = "retry"
    CANCEL = "cancel"
    REVOKE = "revoke"


MAY: Final[Mapping[Action, tuple[Scope, ...]]] = MappingProxyType(
    {
        Action.APPROVE: OPERATORS,
        Action.REJECT: OPERATORS,
        Action.RETRY: OPERATORS,
        Action.CANCEL: OWNERS,
        Action.REVOKE: OWNERS,
    }
)
"""Who may do what: one of these scopes is needed."""


class ActingService:
    """One transaction's view of what people do with requests they may see. It never commits."""

    def __init__(self, session: Session, settings: Settings) -> None:
        self._removal = RemovalService(session, settings)

    def act(
        self,
        principal: Principal,
        request_id: str,
        action: Action,
        *,
        reason: str | None = None,
        reason_code: str = "other",
    ) -> State:
        """Do it, and return the new state. Whoever calls has checked the scope against `MAY`.

        Raises:
            RequestNotFound: no such request, or another tenant's.
            IllegalTransition, LinkedRequestsStand, EvidenceGone: 409, it is not possible now.
        """
        removal, actor = self._removal, principal.key_id
        removal.get(request_id, principal.sees)
        match action:
            case Action.APPROVE:
                return removal.approve(request_id, actor=actor, reason=reason)
            case Action.REJECT:
                return removal.reject(request_id, actor=actor, reason_code=reason_code, reason=reason)
            case Action.RETRY:
                return removal.retry(request_id, actor=actor, reason=reason)
            case Action.CANCEL:
                return removal.cancel(request_id, actor=actor, reason=reason)
            case Action.REVOKE:
                return removal.transition(request_id, Event.REVOKE, actor=actor, reason=reason)

    def add_pictures(self, principal: Principal, request_id: str, pictures: Sequence[Picture]) -> State:
        """Store further pictures; see `RemovalService.add_evidence` for what can go wrong."""
        self._removal.get(request_id, principal.sees)
        return self._removal.add_evidence(request_id, pictures, actor=principal.key_id)


def possible(principal: Principal, state: State, *, linked: bool) -> tuple[Action, ...]:
    """Return what this key may do with a request in this state; a linked one can only end by itself."""
    return tuple(
        action
        for action, scopes in MAY.items()
        if not principal.scopes.isdisjoint(scopes)
        and target(state, Event(action.value)) is not None
        and not (linked and action in (Action.APPROVE, Action.RETRY))
    )


def takes_pictures(principal: Principal, state: State, *, linked: bool) -> bool:
    """Tell whether this key may send further pictures for a request in this state."""
    waits = target(state, Event.ADD_EVIDENCE) is not None
    return waits and not linked and not principal.scopes.isdisjoint(OWNERS)
