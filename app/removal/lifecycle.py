"""The one place where a request's state changes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import func
from sqlalchemy.orm import Session

from app.audit.service import AuditService
from app.db.models import OutboxMessage, RemovalRequest, RequestEvent
from app.kit.canonical import JsonValue, canonical_json
from app.kit.ids import new_id
from app.kit.tracing import traceparent
from app.registry.generations import GenerationWriter
from app.removal.errors import IllegalTransition, LinkedRequestsStand, RequestNotFound, StaleLease
from app.removal.records import Policy
from app.removal.repository import (
    EventRepository,
    MeasurementRepository,
    OutboxRepository,
    RequestRepository,
    WorkRepository,
)
from app.removal.states import ENDED, FINAL, WAITING, WORKING, Event, State, overall_percent, sources, target
from app.webhooks.outbox import WebhookOutbox

PROCESS_TASK = "lethe.process_request"
FOLLOW = "follow"
RECEIVE = "receive"
_OWN = (Event.SUBMIT, Event.CANCEL, Event.REJECT, Event.REVOKE)
"""What may happen to a linked request by itself; in everything else it follows the first one."""


@dataclass(frozen=True, slots=True)
class _Change:
    """One change of state: what happened, from where to where, who did it, and why."""

    event: str
    before: State | None
    state: State
    actor: str
    reason: str | None = None
    reason_code: str | None = None
    data: Mapping[str, JsonValue] | None = None


class Lifecycle:
    """Guarded transitions: state, history, audit event, job row and messages change together or not at all.

    Args:
        session: the caller's transaction.
        redis_url: where replicas are woken when an expert goes out of service; None leaves it to polling.
    """

    def __init__(self, session: Session, redis_url: str | None = None) -> None:
        self._generations = GenerationWriter(session, redis_url)
        self._requests = RequestRepository(session)
        self._events = EventRepository(session)
        self._outbox = OutboxRepository(session)
        self._work = WorkRepository(session)
        self._measurements = MeasurementRepository(session)
        self._audit = AuditService(session)
        self._webhooks = WebhookOutbox(session)

    def transition(
        self,
        request_id: str,
        event: Event,
        *,
        actor: str,
        token: int | None = None,
        reason: str | None = None,
        reason_code: str | None = None,
        data: Mapping[str, JsonValue] | None = None,
    ) -> State:
        """Apply `event` to the request and return its new state.

        From its approval on the subject is refused; a request that ends loses this, or its live expert, in
        the same transaction. Only one that failed goes on being refused, until it is revoked.

        Args:
            request_id: which request.
            event: what happened.
            actor: id of the key that asked, or `worker:...`, `policy:...`, `system:...`.
            token: fencing token of the worker's lease; None for people and the system.
            reason: for people to read; kept on the request, and under the audit hash only as a salted token.
            reason_code: stable code, such as `insufficient_verification`.
            data: facts about the transition, shown in the request's events.

        Raises:
            RequestNotFound: no such request.
            StaleLease: `token` is not the current one.
            IllegalTransition: the table has no such pair, or the request only follows another.
            LinkedRequestsStand: it cannot end while others follow it.
        """
        self.check_token(request_id, token)
        request, new = self._change(
            request_id, event, actor=actor, reason=reason, reason_code=reason_code, data=data
        )
        self._protect(request, event, new, actor)
        return new

    def approve(
        self, request_id: str, *, actor: str, reason: str | None, snapshot: Callable[[], Policy]
    ) -> State:
        """Approve the request and queue it, under the policy that `snapshot` returns once it is locked.

        That it is refused comes last: until the commit everybody waits who changes the registry, too.

        Raises:
            as `transition`.
        """
        request, approved = self._change(request_id, Event.APPROVE, actor=actor, reason=reason)
        _, queued = self._change(request_id, Event.ENQUEUE, actor=actor, policy=snapshot().as_json())
        self._protect(request, Event.APPROVE, approved, actor)
        return queued

    def _change(
        self,
        request_id: str,
        event: Event,
        *,
        actor: str,
        reason: str | None = None,
        reason_code: str | None = None,
        data: Mapping[str, JsonValue] | None = None,
        **columns: object,
    ) -> tuple[RemovalRequest, State]:
        """Apply `event` to the request and to those that follow it, without the registry.

        `columns` are changed with the state. Returns the request as it was, and its new state.
        """
        request = self._requests.lock(request_id)
        if request is None:
            raise RequestNotFound(f"There is no removal request {request_id}.")
        state = State(request.state)
        new = target(state, event)
        if new is None:
            raise _illegal(request, event)
        if request.linked_to_id is not None and event not in _OWN:
            raise IllegalTransition(
                f"This request follows {request.linked_to_id}, which is for the same subject.",
                f"Ask for it at /requests/{request.linked_to_id}.",
                extra={"linked_to": request.linked_to_id},
            )
        followers = self._followers(request)
        if event in (Event.CANCEL, Event.REVOKE):
            require_unfollowed(followers)
        columns |= _columns(event, new, reason, reason_code)
        if not self._requests.move(request_id, state, new, **columns):
            raise _illegal(request, event)
        if event is Event.ADD_EVIDENCE:
            self._work.forget_checkpoints(request_id)
        if new in ENDED and new is not State.FAILED:
            self._measurements.forget_examples(request_id)
        elif new is State.ACTIVE:
            self._measurements.forget_examples(request_id, "failure")
            self._measurements.forget_examples(request_id, "regression")
        if event is Event.ENQUEUE:
            self.enqueue(request_id)
        self._record(request, _Change(event.value, state, new, actor, reason, reason_code, data))
        for follower in followers:
            self.follow(follower, new, actor="system:link")
        return request, new

    def _followers(self, request: RemovalRequest) -> Sequence[RemovalRequest]:
        """Return the requests that follow a locked one.

        A statement of its own: who came while the lock was waited for must be seen.
        """
        if request.linked_to_id is not None:
            return ()
        return self._requests.followers(request.id)

    def _protect(self, request: RemovalRequest, event: Event, new: State, actor: str) -> None:
        """Make the registry's newest generation say what the request's new state asks for.

        One that follows another is protected with that one.
        """
        if request.linked_to_id is not None:
            return
        if new is State.APPROVED:
            renew = event is Event.ADD_EVIDENCE
            self._generations.protect(request.id, actor=actor, tenant_id=request.tenant_id, renew=renew)
        elif new in ENDED:  # even one that was published, but never became active
            self._generations.take_out(
                request.id, actor=actor, tenant_id=request.tenant_id, by=new, refuse=new is State.FAILED
            )

    def follow(self, request: RemovalRequest, new: State, *, actor: str) -> None:
        """Bring a linked request to the state of the one it follows."""
        state = State(request.state)
        percent = 100 if new is State.ACTIVE else request.percent
        if state is new or not self._requests.move(request.id, state, new, percent=percent):
            return
        self._record(request, _Change(FOLLOW, state, new, actor))

    def enqueue(self, request_id: str) -> str:
        """Write a job row for the request and return its id, which becomes the task id."""
        message = OutboxMessage(
            id=new_id("out"), request_id=request_id, task=PROCESS_TASK, traceparent=traceparent()
        )
        self._outbox.insert(message)
        return message.id

    def check_token(self, request_id: str, token: int | None) -> None:
        """Refuse a fencing token that is not the current one, and keep the lease as it is until the commit.

        Raises:
            StaleLease: another attempt has taken over, or there is no lease.
        """
        if token is not None and self._requests.lease_token(request_id) != token:
            raise StaleLease(f"Token {token} is not the current one for {request_id}.")

    def progress(self, request_id: str, stage: str, percent: float, message: str, token: int) -> None:
        """Note how far a stage has come; see `RemovalService.progress`."""
        self.check_token(request_id, token)
        request = self._requests.get(request_id)
        if request is None:
            raise RequestNotFound(f"There is no removal request {request_id}.")
        overall = overall_percent(stage, percent)
        self._requests.patch(request_id, stage=stage, percent=overall, message=message)
        self.note(request_id, "progress", actor="worker", stage=stage, percent=overall, message=message)

    def note(
        self,
        request_id: str,
        kind: str,
        *,
        actor: str,
        stage: str | None = None,
        percent: int | None = None,
        message: str = "",
        data: Mapping[str, JsonValue] | None = None,
    ) -> None:
        """Add an event that is no transition to the request's history."""
        self._events.insert(
            RequestEvent(
                id=new_id("evt"),
                request_id=request_id,
                kind=kind,
                stage=stage,
                percent=percent,
                message=message,
                actor=actor,
                data=dict(data or {}),
            )
        )

    def create(
        self,
        request: RemovalRequest,
        steps: Sequence[tuple[Event, str]],
        *,
        data: Mapping[str, JsonValue],
        policy: Policy | None = None,
    ) -> State:
        """Write a request that has just come in, with what happens to it at once, and return its state.

        It is written in the state that the steps lead to, since nobody can have seen it in an earlier one;
        its history, the audit trail and webhooks have each of them. The registry is left as it is: see
        `protect`.

        Args:
            request: not written yet, `received`; its maker is the one who filed it.
            steps: what happens, and who does it.
            data: facts about the filing.
            policy: the snapshot, where the steps approve it.

        Raises:
            IllegalTransition: the table has no such step.
        """
        state = State(request.state)
        columns: dict[str, object] = {} if policy is None else {"policy": policy.as_json()}
        made = [_Change(RECEIVE, None, state, request.created_by, data=data)]
        for event, actor in steps:
            new = target(state, event)
            if new is None:
                raise _illegal(request, event)
            columns |= _columns(event, new, None, None)
            made.append(_Change(event.value, state, new, actor))
            state = new
        self._requests.create(request, state=state, **columns)
        self._record(request, *made)
        if any(event is Event.ENQUEUE for event, _ in steps):
            self.enqueue(request.id)
        return state

    def protect(self, request: RemovalRequest, *, actor: str) -> None:
        """Have the subject of a request that this transaction has created and approved be refused.

        Do it last: until the commit everybody waits who changes the registry, too.
        """
        self._generations.protect(request.id, actor=actor, tenant_id=request.tenant_id, fresh=True)

    def _record(self, request: RemovalRequest, *changes: _Change) -> None:
        """Write changes of a request into its history, the audit trail and what webhooks are told."""
        self._events.insert_all([_event_of(request, change) for change in changes])
        for change in changes:
            self._audit.append(
                f"request.{change.event}",
                actor=change.actor,
                subject_id=request.id,
                tenant_id=request.tenant_id,
                payload=self._payload(request, change),
            )
            self._webhooks.state_changed(
                request.id,
                request.tenant_id,
                event=change.event,
                before=change.before,
                state=change.state,
                final=change.state in FINAL,
                waiting=change.state in WAITING,
                reason_code=change.reason_code,
            )

    def _payload(self, request: RemovalRequest, change: _Change) -> dict[str, JsonValue]:
        payload: dict[str, JsonValue] = {"from": change.before, "to": change.state}
        if change.reason_code:
            payload["reason_code"] = change.reason_code
        if change.reason:
            payload["reason_token"] = self._audit.token(request.id, change.reason)
        if change.data:
            payload["data_token"] = self._audit.token(request.id, canonical_json(change.data).decode())
        return payload


def _event_of(request: RemovalRequest, change: _Change) -> RequestEvent:
    return RequestEvent(
        id=new_id("evt"),
        request_id=request.id,
        kind="state",
        event=change.event,
        from_state=change.before,
        to_state=change.state,
        message=change.reason or "",
        actor=change.actor,
        data=dict(change.data or {}),
    )


def require_unfollowed(followers: Sequence[RemovalRequest]) -> None:
    """Refuse to end a request that others follow.

    Raises:
        LinkedRequestsStand: there are some.
    """
    if followers:
        raise LinkedRequestsStand(
            f"{len(followers)} other request(s) for the same subject follow this one.",
            "Cancel or revoke those under `linked` first.",
            extra={"linked": [follower.id for follower in followers]},
        )


def _columns(event: Event, new: State, reason: str | None, reason_code: str | None) -> dict[str, object]:
    columns: dict[str, object] = {}
    if new in FINAL or new in (State.NEEDS_ATTENTION, State.NEEDS_EVIDENCE):
        columns.update(reason=reason, reason_code=reason_code)
    if new is State.ACTIVE:
        columns.update(percent=100, message="")
    if event is Event.ENQUEUE:
        columns.update(
            queued_at=func.clock_timestamp(), percent=0, stage=None, message="", reason=None, reason_code=None
        )
    if event in (Event.RETRY, Event.ADD_EVIDENCE):
        columns.update(attempt=0, cancel_requested_at=None)
    if new in WORKING:
        columns.update(stage=event.value.removeprefix("start_"))
    return columns


def _illegal(request: RemovalRequest, event: Event) -> IllegalTransition:
    allowed = [state.value for state in sources(event)]
    return IllegalTransition(
        f"`{event.value}` is not possible while the request is `{request.state}`.",
        f"It is possible in: {', '.join(allowed)}.",
        extra={"state": request.state, "possible_in": allowed},
    )
