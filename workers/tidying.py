"""Deletes what this machine holds and needs no longer: copies of experts, work on requests that are done."""

from __future__ import annotations

import shutil

from sqlalchemy import exists, func, select

from app.db.models import LeaseRow, RemovalRequest
from app.db.session import SessionFactory
from app.kit.logging import get_logger
from app.registry.service import RegistryService
from app.registry.store import open_store
from app.removal.states import FINAL
from app.settings import Settings

_log = get_logger("tidier")


class Tidier:
    """Follows the registry and the requests' states. Every worker's machine runs one.

    Pictures and names in work are encrypted, but whoever withdraws shall not have to wait for a machine that
    died at the wrong moment: its worker deletes them when it is back.
    """

    def __init__(self, session_factory: SessionFactory, settings: Settings) -> None:
        self._sessions = session_factory
        self._settings = settings
        self._store = open_store(settings)
        self._seen = -1

    def run_once(self) -> int:
        """Delete what is not needed any more, and return how many requests' work was deleted."""
        with self._sessions.begin() as session:
            registry = RegistryService(session, self._settings)
            newest = registry.newest()
            live = [row.path for row in registry.live_experts(newest)] if newest != self._seen else None
        try:
            if live is not None:
                self._store.keep_only(live)
                self._seen = newest
            return self._work()
        except OSError as error:  # a disk that is away must not keep the loop from its other work
            _log.warning("not tidied", directory=str(self._settings.experts_dir), error=str(error))
            return 0

    def _work(self) -> int:
        root = self._settings.experts_dir / ".work"
        names = [path.name for path in root.iterdir()] if root.is_dir() else []
        if not names:
            return 0
        held = exists().where(
            LeaseRow.request_id == RemovalRequest.id, LeaseRow.expires_at > func.clock_timestamp()
        )
        final = [state.value for state in FINAL]
        with self._sessions.begin() as session:
            done = session.scalars(
                select(RemovalRequest.id).where(
                    RemovalRequest.id.in_(names), RemovalRequest.state.in_(final), ~held
                )
            ).all()
        for request_id in done:
            shutil.rmtree(root / request_id, ignore_errors=True)
            _log.info("work deleted", request=request_id)
        return len(done)
