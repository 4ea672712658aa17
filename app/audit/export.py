"""Writing the audit log out as JSON lines (see `app.audit.logfile` for their form)."""

from collections.abc import Iterator

from app.audit.checkpoints import CheckpointService
from app.audit.logfile import VERSION, line
from app.audit.repository import AuditRepository, CheckpointRepository
from app.audit.service import AuditService, event_content
from app.db.models import AuditEvent
from app.db.session import SessionFactory
from app.kit.canonical import JsonValue
from app.kit.clock import rfc3339, utcnow
from app.settings import Settings

_BATCH = 500


class AuditExport:
    """One export: what it covers is fixed, and in the trail itself, before the first line is written.

    The lines are read in short transactions: a slow reader holds no connection, and since the chain only
    grows, what is read later is no different.

    Args:
        session_factory: where the chain is.
        settings: for the signature.
        actor: who exports.
        home_tenant: the actor's own tenant, whose trail says so.
        tenant_id: whose events are written in full; None for everybody's.

    Raises:
        ChainBroken: 409, there is no checkpoint to end it with.
    """

    def __init__(
        self,
        session_factory: SessionFactory,
        settings: Settings,
        *,
        actor: str,
        home_tenant: str | None,
        tenant_id: str | None,
    ) -> None:
        self._sessions = session_factory
        self._tenant = tenant_id
        with session_factory.begin() as session:
            AuditService(session).append("audit.exported", actor=actor, tenant_id=home_tenant)
            self.size = CheckpointService(session, settings).issue().seq

    def lines(self) -> Iterator[str]:
        """Yield the lines of the log, each with its end."""
        scope = "all" if self._tenant is None else self._tenant
        head: dict[str, JsonValue] = {
            "version": VERSION,
            "tenant": scope,
            "events": self.size,
            "exported_at": rfc3339(utcnow()),
        }
        yield line("log", head)
        last = 0
        while last < self.size:
            with self._sessions.begin() as session:
                events = AuditRepository(session).batch(last, self.size, _BATCH)
            if not events:  # somebody deletes under our hands: what is missing will show
                break
            for event in events:
                yield self._line(event)
            last = events[-1].seq
        with self._sessions.begin() as session:
            tokens = CheckpointRepository(session).tokens(self.size)
        for token in tokens:
            yield line("checkpoint", {"jws": token})

    def _line(self, event: AuditEvent) -> str:
        if self._tenant is not None and event.tenant_id != self._tenant:
            hashes: dict[str, JsonValue] = {
                "seq": event.seq,
                "prev_hash": event.prev_hash,
                "hash": event.hash,
            }
            return line("withheld", hashes)
        return line("event", {**event_content(event), "hash": event.hash})
