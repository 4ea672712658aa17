"""Chains to tamper with."""

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from app.audit.chain import GENESIS, content_hash
from app.audit.service import AuditService, event_content
from app.db.models import AuditEvent
from app.db.session import SessionFactory


def append(sessions: SessionFactory, n: int) -> None:
    """Append `n` events."""
    with sessions.begin() as session:
        for i in range(n):
            AuditService(session).append(
                "test.event", actor="system:test", payload={"i": i, "share": 0.1 * i}
            )


def rehash(session: Session) -> None:
    """Make the chain fit itself again, as somebody would who may write to the database."""
    session.flush()
    session.expire_all()
    before = GENESIS
    for event in session.scalars(select(AuditEvent).order_by(AuditEvent.seq)).all():
        digest = content_hash({**event_content(event), "prev_hash": before})
        session.execute(
            update(AuditEvent).where(AuditEvent.seq == event.seq).values(prev_hash=before, hash=digest)
        )
        before = digest
    session.expire_all()
