"""The loop that delivers webhooks, in the worker's main process, beside the one that publishes jobs."""

from __future__ import annotations

import threading
import time

from sqlalchemy.exc import SQLAlchemyError

from app.db.session import SessionFactory
from app.kit.logging import get_logger
from app.settings import Settings
from app.webhooks.delivery import Deliverer

_log = get_logger("webhooks")
_FORGET_SECONDS = 3600.0


class WebhookLoop:
    """Delivers what waits, and now and then deletes what is old, in one thread.

    Args:
        session_factory: where the truth is.
        settings: intervals.
        deliverer: how messages are sent.
    """

    def __init__(
        self, session_factory: SessionFactory, settings: Settings, deliverer: Deliverer | None = None
    ) -> None:
        self._deliverer = deliverer or Deliverer(session_factory, settings)
        self._poll = settings.webhook_poll_seconds
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Run in a background thread until `stop`."""
        self._thread = threading.Thread(target=self.run, name="webhooks", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the loop, after what is being sent now."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=10)

    def run(self) -> None:
        """Run in this thread until `stop` is called from another."""
        forget_at = 0.0
        while not self._stop.is_set():
            try:
                tried = self._deliverer.run_once()
                if time.monotonic() >= forget_at:
                    self._deliverer.forget()
                    forget_at = time.monotonic() + _FORGET_SECONDS
            except SQLAlchemyError as error:
                tried = 0
                _log.warning("database not reachable", error=type(error).__name__)
            if not tried:
                self._stop.wait(self._poll)
