"""The one place where a request's state changes."""

from collections.abc import Callable, Mapping, Sequence

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
_OWN = (Event.SUBMIT, Event.CANCEL, Event.REJECT, Event.REVOKE)
"""What may happen to a linked request by itself; in everything else it follows the first one."""


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
        self._fresh: dict[str, RemovalRequest] = {}  # made in this transaction: nobody else knows of them

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
        request = self._locked(request_id)
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
        self._record(request, event.value, state, new, actor, reason, reason_code, data)
        for follower in followers:
            self.follow(follower, new, actor="system:link")
        if request_id in self._fresh:
            request.state = new
        return request, new

    def _locked(self, request_id: str) -> RemovalRequest:
        """Return the request, locked. Nobody else sees one that this transaction has made.

        Raises:
            RequestNotFound: no such request.
        """
        request = self._fresh.get(request_id) or self._requests.lock(request_id)
        if request is None:
            raise RequestNotFound(f"There is no removal request {request_id}.")
        return request

    def _followers(self, request: RemovalRequest) -> Sequence[RemovalRequest]:
        """Return the requests that follow a locked one.

        A statement of its own: who came while the lock was waited for must be seen.
        """
        if request.linked_to_id is not None or request.id in self._fresh:
            return ()
        return self._requests.followers(request.id)

    def _protect(self, request: RemovalRequest, event: Event, new: State, actor: str) -> None:
        """Make the registry's newest generation say what the request's new state asks for.

        One that follows another is protected with that one.
        """
        if request.linked_to_id is not None:
            return
        if new is State.APPROVED:
            self._generations.protect(
                request.id,
                actor=actor,
                tenant_id=request.tenant_id,
                renew=event is Event.ADD_EVIDENCE,
                fresh=request.id in self._fresh,
            )
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
        self._record(request, FOLLOW, state, new, actor, None, None, None)

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

    def _record(
        self,
        request: RemovalRequest,
        event: str,
        state: State | None,
        new: State,
        actor: str,
        reason: str | None,
        reason_code: str | None,
        data: Mapping[str, JsonValue] | None,
    ) -> None:
        self._events.insert(
            RequestEvent(
                id=new_id("evt"),
                request_id=request.id,
                kind="state",
                event=event,
                from_state=state,
                to_state=new,
                message=reason or "",
                actor=actor,
                data=dict(data or {}),
            )
        )
        payload: dict[str, JsonValue] = {"from": state, "to": new}
        if reason_code:
            payload["reason_code"] = reason_code
        if reason:
            payload["reason_token"] = self._audit.token(request.id, reason)
        if data:
            payload["data_token"] = self._audit.token(request.id, canonical_json(data).decode())
        self._audit.append(
            f"request.{event}",
            actor=actor,
            subject_id=request.id,
            tenant_id=request.tenant_id,
            payload=payload,
        )
        self._webhooks.state_changed(
            request.id,
            request.tenant_id,
            event=event,
            before=state,
            state=new,
            final=new in FINAL,
            waiting=new in WAITING,
            reason_code=reason_code,
        )

    def created(self, request: RemovalRequest, actor: str, data: Mapping[str, JsonValue]) -> None:
        """Record that the request was received, in the transaction that made it."""
        self._fresh[request.id] = request
        self._record(request, "receive", None, State.RECEIVED, actor, None, None, data)


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
