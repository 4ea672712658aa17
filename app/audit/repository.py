"""SQL of the audit trail."""

from collections.abc import Iterator

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert

from app.db.models import AuditEvent, AuditSalt
from app.db.repository import Page, Repository


class AuditRepository(Repository[AuditEvent]):
    """Events in chain order, and the salts of the personal tokens in them."""

    model = AuditEvent

    def tail(self) -> AuditEvent | None:
        """Return the newest event."""
        return self.first(select(AuditEvent).order_by(AuditEvent.seq.desc()))

    def walk(self) -> Iterator[AuditEvent]:
        """Yield every event from the first on, a thousand at a time."""
        statement = select(AuditEvent).order_by(AuditEvent.seq).execution_options(yield_per=1000)
        yield from self.session.scalars(statement)

    def visible(
        self, tenant_id: str | None, *, after: int | None, limit: int, subject_id: str | None
    ) -> Page[AuditEvent]:
        """Return events of a tenant (None: of all), oldest first."""
        statement = select(AuditEvent)
        if tenant_id is not None:
            statement = statement.where(AuditEvent.tenant_id == tenant_id)
        if subject_id is not None:
            statement = statement.where(AuditEvent.subject_id == subject_id)
        return self.page(statement, AuditEvent.seq, after=after, limit=limit, descending=False)

    def salt(self, subject_id: str, fresh: bytes) -> bytes:
        """Return the subject's salt, stored as `fresh` if there was none."""
        self.session.execute(
            insert(AuditSalt).values(subject_id=subject_id, salt=fresh).on_conflict_do_nothing()
        )
        return self.session.execute(
            select(AuditSalt.salt).where(AuditSalt.subject_id == subject_id)
        ).scalar_one()
