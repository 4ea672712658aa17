"""Leases: one worker at a time on a request, with a fencing token and a heartbeat."""

import threading
from datetime import datetime
from types import TracebackType
from typing import Self

from sqlalchemy import Interval, func, select, type_coerce, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session
from sqlalchemy.sql.elements import ColumnElement

from app.db.models import LeaseRow, RemovalRequest
from app.db.session import SessionFactory
from app.kit.logging import get_logger
from app.removal.lifecycle import Lifecycle
from app.removal.states import FINAL, WAITING, Event, State, target

_log = get_logger("lease")


class LeaseLost(Exception):  # noqa: N818  says what happened
    """Another attempt has taken over, or the lease could not be renewed in time. Stop working."""


class Lease:
    """A held lease. As a context manager it renews itself in the background and is released at the end.

    `lost` is set as soon as the lease is known to be gone; `check()` raises then. Correctness does not rest
    on either: every write carries `token`, and the database refuses an old one.
    """

    def __init__(
        self, session_factory: SessionFactory, request_id: str, holder: str, token: int, seconds: float
    ) -> None:
        self.request_id = request_id
        self.holder = holder
        self.token = token
        self.seconds = seconds
        self.lost = threading.Event()
        self._sessions = session_factory
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._beat, name=f"lease-{self.request_id}", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=10)
        try:
            self.release()
        except SQLAlchemyError as problem:
            _log.warning("lease not released, it will run out", error=type(problem).__name__)

    def check(self) -> None:
        """Raise if the lease is known to be gone.

        Raises:
            LeaseLost: it is.
        """
        if self.lost.is_set():
            raise LeaseLost(f"the lease on {self.request_id} (token {self.token}) was lost")

    def renew(self) -> bool:
        """Extend the lease by its length from now; False if another attempt has taken over."""
        with self._sessions.begin() as session:
            renewed = session.execute(
                update(LeaseRow)
                .where(LeaseRow.request_id == self.request_id, LeaseRow.token == self.token)
                .values(heartbeat_at=func.clock_timestamp(), expires_at=_in(self.seconds))
                .returning(LeaseRow.token)
                .execution_options(synchronize_session=False)
            ).first()
        return renewed is not None

    def release(self) -> None:
        """Let the next worker have it at once."""
        with self._sessions.begin() as session:
            session.execute(
                update(LeaseRow)
                .where(LeaseRow.request_id == self.request_id, LeaseRow.token == self.token)
                .values(expires_at=func.clock_timestamp())
                .execution_options(synchronize_session=False)
            )

    def _beat(self) -> None:
        failures = 0.0
        interval = self.seconds / 3
        while not self._stop.wait(interval):
            try:
                if not self.renew():
                    self.lost.set()
                    return
                failures = 0.0
            except Exception as error:  # whatever a driver throws: not renewed is not renewed
                failures += interval
                _log.warning("lease not renewed", request=self.request_id, error=type(error).__name__)
                if failures >= self.seconds:
                    self.lost.set()
                    return


def acquire(session_factory: SessionFactory, request_id: str, holder: str, seconds: float) -> Lease | None:
    """Take the lease on a request and count the attempt.

    Args:
        session_factory: where the truth is.
        request_id: which request.
        holder: for people, such as host and process id.
        seconds: how long the lease lasts without a heartbeat.

    Returns:
        The lease; or None when there is nothing to do: somebody else holds it, the request is final, waits
        for a person or follows another one, or its attempts are used up (see `give_up`).
    """
    with session_factory.begin() as session:
        token = _take(session, request_id, holder, seconds)
        if token is None:
            return None
        request = session.scalars(
            select(RemovalRequest)
            .where(RemovalRequest.id == request_id)
            .with_for_update()
            .execution_options(populate_existing=True)  # whoever held the lease may have changed it
        ).one()
        state = State(request.state)
        if state in FINAL or state in WAITING or request.linked_to_id is not None:
            _drop(session, request_id, token)
            return None
        if request.attempt >= attempts_allowed(request):
            give_up(session, request, actor="system:lease", token=token)
            _drop(session, request_id, token)
            return None
        session.execute(
            update(RemovalRequest)
            .where(RemovalRequest.id == request_id)
            .values(attempt=RemovalRequest.attempt + 1, updated_at=func.clock_timestamp())
            .execution_options(synchronize_session=False)
        )
    return Lease(session_factory, request_id, holder, token, seconds)


def attempts_allowed(request: RemovalRequest) -> int:
    """Return the cap from the policy snapshot (1 for a request without one)."""
    cap = (request.policy or {}).get("max_attempts", 1)
    return cap if isinstance(cap, int) else 1


def give_up(session: Session, request: RemovalRequest, *, actor: str, token: int | None = None) -> State:
    """End a request whose attempts are used up, and return its state.

    It has failed; unless its owner has asked for it to be cancelled, and no attempt lived long enough to see.

    Args:
        session: a transaction that holds the request's lock.
        request: as it is in the database now.
        actor: who gives it up.
        token: fencing token of whoever holds the lease.
    """
    lifecycle = Lifecycle(session)
    if request.cancel_requested_at is not None and target(State(request.state), Event.CANCEL) is not None:
        return lifecycle.transition(
            request.id, Event.CANCEL, actor=actor, token=token, reason="cancelled on request"
        )
    return lifecycle.transition(
        request.id,
        Event.FAIL,
        actor=actor,
        token=token,
        reason=f"{request.attempt} attempts ended without a result",
        reason_code="attempts_exhausted",
    )


def _take(session: Session, request_id: str, holder: str, seconds: float) -> int | None:
    if session.get(RemovalRequest, request_id) is None:
        return None
    now = func.clock_timestamp()
    return session.execute(
        insert(LeaseRow)
        .values(
            request_id=request_id,
            token=1,
            holder=holder,
            acquired_at=now,
            heartbeat_at=now,
            expires_at=_in(seconds),
        )
        .on_conflict_do_update(
            index_elements=["request_id"],
            set_={
                "token": LeaseRow.token + 1,
                "holder": holder,
                "acquired_at": now,
                "heartbeat_at": now,
                "expires_at": _in(seconds),
            },
            where=LeaseRow.expires_at <= now,
        )
        .returning(LeaseRow.token)
    ).scalar_one_or_none()


def _drop(session: Session, request_id: str, token: int) -> None:
    session.execute(
        update(LeaseRow)
        .where(LeaseRow.request_id == request_id, LeaseRow.token == token)
        .values(expires_at=func.clock_timestamp())
        .execution_options(synchronize_session=False)
    )


def _in(seconds: float) -> ColumnElement[datetime]:
    return func.clock_timestamp() + type_coerce(func.make_interval(0, 0, 0, 0, 0, 0, seconds), Interval())
