"""From SQL to the broker: a dispatcher that publishes job rows, and a sweeper that finds what was lost."""

import shutil
import threading
import time
from collections.abc import Callable

from celery import Celery
from kombu.exceptions import OperationalError
from sqlalchemy import ColumnElement, Interval, exists, func, select, type_coerce
from sqlalchemy.exc import SQLAlchemyError

from app.db.models import LeaseRow, OutboxMessage, RemovalRequest
from app.db.session import SessionFactory
from app.kit.errors import Problem
from app.kit.logging import get_logger
from app.removal.lifecycle import Lifecycle
from app.removal.retention import RetentionService
from app.removal.states import FINAL, WAITING, Event, State
from app.settings import Settings
from workers.lease import attempts_allowed, give_up
from workers.tidying import Tidier

_log = get_logger("outbox")
_BATCH = 50

Publish = Callable[[OutboxMessage], None]
"""Hands one job to the broker; returns only when the broker has it, raises otherwise."""


def celery_publisher(app: Celery) -> Publish:
    """Return a publisher that sends the row's task with the row's id as the task id."""

    def publish(message: OutboxMessage) -> None:
        app.send_task(
            message.task,
            args=[message.request_id],
            task_id=message.id,
            retry=False,
            headers={"traceparent": message.traceparent} if message.traceparent else None,
        )

    return publish


class Dispatcher:
    """Publishes unpublished rows in the order in which they were written.

    Any number may run: rows are taken with `FOR UPDATE SKIP LOCKED`. A row is marked only after the broker
    has accepted it, so a crash in between publishes it twice, which the lease makes harmless.
    """

    def __init__(self, session_factory: SessionFactory, publish: Publish) -> None:
        self._sessions = session_factory
        self._publish = publish

    def run_once(self) -> int:
        """Publish what there is and return how many rows were published."""
        published = 0
        with self._sessions.begin() as session:
            rows = session.scalars(
                select(OutboxMessage)
                .where(OutboxMessage.published_at.is_(None))
                .order_by(OutboxMessage.created_at, OutboxMessage.id)
                .limit(_BATCH)
                .with_for_update(skip_locked=True)
            ).all()
            for row in rows:
                row.tries += 1
                try:
                    self._publish(row)
                except (OperationalError, OSError) as error:
                    row.last_error = type(error).__name__
                    _log.warning("broker did not accept", outbox=row.id, error=type(error).__name__)
                    break
                row.published_at = func.clock_timestamp()  # which the sweeper compares it with
                row.last_error = None
                published += 1
        return published


class Sweeper:
    """Finds requests that nobody works on although somebody should, and has them published again.

    Such a request is neither final nor waiting for a person, has no unpublished job row and no live lease,
    and its last publish is older than `redelivery_seconds`. With its attempts used up it fails instead.
    """

    def __init__(self, session_factory: SessionFactory, settings: Settings) -> None:
        self._sessions = session_factory
        self._settings = settings

    def run_once(self) -> int:
        """Rescue what is stuck and return how many requests were republished or failed."""
        with self._sessions.begin() as session:
            ids = session.scalars(
                select(RemovalRequest.id).where(*self._stuck()).order_by(RemovalRequest.id).limit(_BATCH)
            ).all()
        return sum(self._rescued(request_id) for request_id in ids)

    def _rescued(self, request_id: str) -> bool:
        """Rescue one; what cannot be must not keep the others from it."""
        try:
            return self._rescue(request_id)
        except Problem as error:
            _log.error("request cannot be rescued", request=request_id, error=error.detail)
            return False

    def _stuck(self) -> tuple[ColumnElement[bool], ...]:
        now = func.clock_timestamp()
        patience = func.make_interval(0, 0, 0, 0, 0, 0, self._settings.redelivery_seconds)
        recently = now - type_coerce(patience, Interval())
        settled = [state.value for state in (*FINAL, *WAITING)]
        waiting_row = exists().where(
            OutboxMessage.request_id == RemovalRequest.id,
            (OutboxMessage.published_at.is_(None)) | (OutboxMessage.published_at > recently),
        )
        live_lease = exists().where(LeaseRow.request_id == RemovalRequest.id, LeaseRow.expires_at > now)
        return (
            RemovalRequest.state.not_in(settled),
            RemovalRequest.linked_to_id.is_(None),
            RemovalRequest.updated_at <= recently,
            ~waiting_row,
            ~live_lease,
        )

    def _rescue(self, request_id: str) -> bool:
        with self._sessions.begin() as session:
            # Locked first and looked at afterwards: one statement that does both sees the job rows as they
            # were before it got the lock, and misses the row that another sweeper has just written.
            request = session.scalars(
                select(RemovalRequest)
                .where(RemovalRequest.id == request_id)
                .with_for_update(skip_locked=True)
            ).one_or_none()
            still = select(RemovalRequest.id).where(RemovalRequest.id == request_id, *self._stuck())
            if request is None or session.scalars(still).one_or_none() is None:
                return False
            lifecycle = Lifecycle(session)
            # Not taken up is no failure, however often it was published: workers may be busy for long.
            if request.attempt >= attempts_allowed(request):
                ended = give_up(session, request, actor="system:sweeper")
                _log.error("attempts used up", request=request_id, attempts=request.attempt, state=ended)
                return True
            if State(request.state) is State.APPROVED:
                lifecycle.transition(request_id, Event.ENQUEUE, actor="system:sweeper")
            else:
                lifecycle.enqueue(request_id)
            _log.warning("request published again", request=request_id, state=request.state)
        return True


class Purger:
    """Deletes pictures that have been kept long enough; see `RetentionService`. Any number may run."""

    def __init__(self, session_factory: SessionFactory, settings: Settings) -> None:
        self._sessions = session_factory
        self._settings = settings

    def run_once(self) -> int:
        """Purge what is due, a transaction for each request, and return how many pictures were deleted."""
        with self._sessions.begin() as session:
            ids = RetentionService(session, self._settings).due(_BATCH)
        purged = 0
        for request_id in ids:
            with self._sessions.begin() as session:
                n = RetentionService(session, self._settings).purge(request_id, actor="system:retention")
                if n:  # what a worker that was killed at the very end has left behind, pictures among it
                    shutil.rmtree(self._settings.experts_dir / ".work" / request_id, ignore_errors=True)
            if n:
                _log.info("pictures purged", request=request_id, n=n)
            purged += n
        return purged


class OutboxLoop:
    """Runs the dispatcher at every poll interval, sweeper, purger and tidier now and then, in one thread.

    Args:
        session_factory: where the truth is.
        settings: intervals.
        publish: how a job gets to the broker; see `celery_publisher`.
    """

    def __init__(self, session_factory: SessionFactory, settings: Settings, publish: Publish) -> None:
        self._dispatcher = Dispatcher(session_factory, publish)
        self._sweeper = Sweeper(session_factory, settings)
        self._purger = Purger(session_factory, settings)
        self._tidier = Tidier(session_factory, settings)
        self._settings = settings
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Run in a background thread until `stop`."""
        self._thread = threading.Thread(target=self.run, name="outbox", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the loop and wait for it."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=10)

    def run(self) -> None:
        """Run in this thread until `stop` is called from another."""
        sweep_at = 0.0
        while not self._stop.is_set():
            try:
                published = self._dispatcher.run_once()
                if time.monotonic() >= sweep_at:
                    self._sweeper.run_once()
                    self._purger.run_once()
                    self._tidier.run_once()
                    sweep_at = time.monotonic() + self._settings.sweep_seconds
            except SQLAlchemyError as error:
                published = 0
                _log.warning("database not reachable", error=type(error).__name__)
            except Exception as error:  # whatever a driver throws: without this thread nothing is published
                published = 0
                _log.exception("outbox round failed", error=type(error).__name__)
            if published < _BATCH:
                self._stop.wait(self._settings.outbox_poll_seconds)
