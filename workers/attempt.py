"""One attempt's dealings with SQL: sessions, transitions, checkpoints, progress, and whether to go on."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

from sqlalchemy.orm import Session

from app.removal.records import Checkpoint
from app.removal.service import RemovalService
from app.removal.states import WORKING, Event, State, start_event, target
from workers.forgetset.answering import CancelledError
from workers.lease import Lease
from workers.runtime import Runtime

_CANCEL_SECONDS = 0.25
_PROGRESS_SECONDS = 0.4


class Attempt:
    """One worker's attempt at one request; every write carries the lease's fencing token."""

    def __init__(self, runtime: Runtime, lease: Lease) -> None:
        self.runtime = runtime
        self.lease = lease
        self.request_id = lease.request_id
        self.actor = f"worker:{runtime.holder}"
        self._asked_at = 0.0
        self._told_at = 0.0
        self._cancelled = False

    def cancelled(self) -> bool:
        """Whether somebody asked to stop; SQL is read at most every quarter of a second.

        Raises:
            LeaseLost: another attempt has taken over.
        """
        self.lease.check()
        now = time.monotonic()
        if not self._cancelled and now - self._asked_at >= _CANCEL_SECONDS:
            self._asked_at = now
            with self.session() as session:
                service = RemovalService(session, self.runtime.settings)
                self._cancelled = (
                    service.cancel_requested(self.request_id)
                    and service.state(self.request_id) is not State.PUBLISHING
                )
        return self._cancelled

    def session(self) -> AbstractContextManager[Session]:
        """Open a transaction: committed at the end, rolled back on an error."""
        return self.runtime.sessions.begin()

    def checkpoint(self, stage: str) -> Checkpoint | None:
        """Return what a finished stage left behind, or None."""
        with self.session() as session:
            return RemovalService(session, self.runtime.settings).checkpoint(self.request_id, stage)

    def artifact(self, stage: str) -> dict[str, Any]:
        """Return a finished stage's artifact; RuntimeError if the stage has not finished."""
        done = self.checkpoint(stage)
        if done is None:
            raise RuntimeError(f"the {stage} stage has left no checkpoint")
        return dict(done.artifact)

    def save(self, stage: str, artifact: dict[str, Any]) -> None:
        """Leave a stage's checkpoint; those of later stages are dropped."""
        with self.session() as session:
            RemovalService(session, self.runtime.settings).save_checkpoint(
                self.request_id, stage, artifact, token=self.lease.token
            )

    def enter(self, stage: str, **data: int) -> None:
        """Move to the stage's state. A stage that must be repeated from further on is repeated there."""
        self.lease.check()
        with self.session() as session:
            service = RemovalService(session, self.runtime.settings)
            state = service.state(self.request_id)
            events: Sequence[Event] = [start_event(stage)]
            if target(state, events[0]) is None and state in WORKING:
                through = target(state, Event.START_TRAIN) is not None
                events = [Event.START_TRAIN, events[0]] if stage == "calibrate" and through else []
            for event in events:
                service.transition(
                    self.request_id, event, actor=self.actor, token=self.lease.token, data=dict(data)
                )
            # Read once more under the row's lock: a cancellation cannot slip in before publishing.
            if state is not State.PUBLISHING and service.cancel_requested(self.request_id):
                raise CancelledError

    def transition(self, event: Event, **details: Any) -> None:
        """Apply an event; see ``RemovalService.transition`` for the details and errors."""
        with self.session() as session:
            RemovalService(session, self.runtime.settings).transition(
                self.request_id, event, actor=self.actor, token=self.lease.token, **details
            )

    def need_attention(self, code: str, reason: str, **data: int) -> None:
        """Hand the request to a person, with a stable code and a sentence that names nobody."""
        self.transition(Event.NEED_ATTENTION, reason=reason, reason_code=code, data=data)

    def progress(self, stage: str, percent: float, message: str, *, throttle: bool = False) -> None:
        """Tell the owner how much of a stage is done, 0..100; throttled reports may be left out."""
        now = time.monotonic()
        if throttle and now - self._told_at < _PROGRESS_SECONDS:
            return
        self._told_at = now
        with self.session() as session:
            RemovalService(session, self.runtime.settings).progress(
                self.request_id, stage=stage, percent=percent, message=message, token=self.lease.token
            )
