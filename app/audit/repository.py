"""SQL of the audit trail."""

from collections.abc import Iterator, Sequence

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert

from app.db.models import AuditCheckpoint, AuditEvent, AuditSalt
from app.db.repository import Page, Repository

_SALTS = AuditSalt.__table__
_KEPT_SALT = (
    insert(_SALTS)
    .on_conflict_do_update(index_elements=["subject_id"], set_={"salt": _SALTS.c.salt})
    .returning(_SALTS.c.salt)
)


class AuditRepository(Repository[AuditEvent]):
    """Events in chain order, with what the transaction has appended, and the salts of the tokens in them."""

    model = AuditEvent

    def tail(self) -> AuditEvent | None:
        """Return the newest event."""
        return self.first(select(AuditEvent).order_by(AuditEvent.seq.desc()))

    def at(self, seq: int) -> AuditEvent | None:
        """Return the event with this number."""
        return self.first(select(AuditEvent).where(AuditEvent.seq == seq))

    def walk(self, after: int = 0) -> Iterator[AuditEvent]:
        """Yield every event after number `after`, a thousand at a time."""
        statement = (
            select(AuditEvent)
            .where(AuditEvent.seq > after)
            .order_by(AuditEvent.seq)
            .execution_options(yield_per=1000, populate_existing=True)
        )
        yield from self.session.scalars(statement)

    def batch(self, after: int, up_to: int, limit: int) -> Sequence[AuditEvent]:
        """Return the next events after number `after`, none beyond `up_to`."""
        return self.all(
            select(AuditEvent)
            .where(AuditEvent.seq > after, AuditEvent.seq <= up_to)
            .order_by(AuditEvent.seq)
            .limit(limit)
        )

    def hashes(self, up_to: int) -> Sequence[str]:
        """Return the hashes of the first `up_to` events."""
        return self.session.scalars(
            select(AuditEvent.hash).where(AuditEvent.seq <= up_to).order_by(AuditEvent.seq)
        ).all()

    def visible(
        self,
        tenant_id: str | None,
        *,
        after: int | None,
        limit: int,
        subject_id: str | None,
        kind: str | None = None,
        newest_first: bool = False,
    ) -> Page[AuditEvent]:
        """Return events of a tenant (None: of all), oldest first; `kind` may be the beginning of one."""
        statement = select(AuditEvent)
        if tenant_id is not None:
            statement = statement.where(AuditEvent.tenant_id == tenant_id)
        if subject_id is not None:
            statement = statement.where(AuditEvent.subject_id == subject_id)
        if kind is not None:
            statement = statement.where(AuditEvent.kind.startswith(kind, autoescape=True))
        return self.page(statement, AuditEvent.seq, after=after, limit=limit, descending=newest_first)

    def last_of(self, subject_id: str, kind: str) -> AuditEvent | None:
        """Return the newest event of this kind about this object."""
        return self.first(
            select(AuditEvent)
            .where(AuditEvent.subject_id == subject_id, AuditEvent.kind == kind)
            .order_by(AuditEvent.seq.desc())
        )

    def salt(self, subject_id: str, fresh: bytes) -> bytes:
        """Return the subject's salt, stored as `fresh` if there was none."""
        kept: bytes = self.session.execute(_KEPT_SALT, {"subject_id": subject_id, "salt": fresh}).scalar_one()
        return kept

    def forget_salt(self, subject_id: str) -> bool:
        """Delete the subject's salt, and tell whether there was one."""
        gone = self.session.execute(
            delete(AuditSalt).where(AuditSalt.subject_id == subject_id).returning(AuditSalt.subject_id)
        )
        return gone.first() is not None


class CheckpointRepository(Repository[AuditCheckpoint]):
    """Signed checkpoints."""

    model = AuditCheckpoint

    def newest(self) -> AuditCheckpoint | None:
        """Return the one over the most events."""
        return self.first(select(AuditCheckpoint).order_by(AuditCheckpoint.seq.desc()))

    def get(self, seq: int) -> AuditCheckpoint | None:
        """Return the one over the first `seq` events."""
        return self.first(select(AuditCheckpoint).where(AuditCheckpoint.seq == seq))

    def covering(self, seq: int) -> AuditCheckpoint | None:
        """Return the first one that covers event `seq`."""
        return self.first(
            select(AuditCheckpoint).where(AuditCheckpoint.seq >= seq).order_by(AuditCheckpoint.seq)
        )

    def tokens(self, up_to: int | None = None) -> Sequence[str]:
        """Return all of them as JWS, those over the fewest events first."""
        statement = select(AuditCheckpoint.jws).order_by(AuditCheckpoint.seq)
        if up_to is not None:
            statement = statement.where(AuditCheckpoint.seq <= up_to)
        return self.session.scalars(statement).all()

    def listed(self, *, after: int | None, limit: int) -> Page[AuditCheckpoint]:
        """Return them, the newest first."""
        return self.page(select(AuditCheckpoint), AuditCheckpoint.seq, after=after, limit=limit)

    def seconds_since(self) -> float | None:
        """Return how long ago, by the database's clock, the newest one was issued."""
        age = self.session.execute(
            select(func.extract("epoch", func.clock_timestamp() - func.max(AuditCheckpoint.issued_at)))
        ).scalar_one()
        return None if age is None else float(age)
