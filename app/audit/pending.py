"""Events that a transaction has appended and not chained yet.

The chain has one writer at a time, from the moment it is read until the commit. So a transaction keeps its
events to itself until it commits, and then writes all of them at once: others wait for that and not for the
work that they tell of. Between reading the chain's end and the commit nothing else is done.
"""

from __future__ import annotations

from sqlalchemy import event, insert, select
from sqlalchemy.orm import ORMExecuteState, Session

from app.audit.chain import GENESIS, content_hash
from app.db.models import AuditEvent
from app.db.repository import lock_ledger, values_of
from app.kit.canonical import JsonValue
from app.kit.clock import rfc3339, utcnow

_PENDING = "lethe.audit.pending"
_EVENTS = AuditEvent.__table__
_END = select(_EVENTS.c.seq, _EVENTS.c.hash).order_by(_EVENTS.c.seq.desc()).limit(1)


def event_content(event: AuditEvent) -> dict[str, JsonValue]:
    """Return the members of an event that its hash covers, as they are hashed and exported."""
    return {
        "seq": event.seq,
        "id": event.id,
        "tenant_id": event.tenant_id,
        "kind": event.kind,
        "actor": event.actor,
        "subject_id": event.subject_id,
        "payload": event.payload,
        "created_at": rfc3339(event.created_at),
        "prev_hash": event.prev_hash,
    }


def add(session: Session, draft: AuditEvent) -> None:
    """Have `draft`, without number, time and hashes, chained when the session's transaction commits."""
    transaction = session.get_transaction() or session.begin()
    owner, drafts = session.info.get(_PENDING, (None, []))
    if owner is not transaction:  # those of a transaction that was rolled back are lost with it
        drafts = []
        session.info[_PENDING] = transaction, drafts
    drafts.append(draft)


@event.listens_for(Session, "before_commit")
def chain(session: Session) -> None:
    """Write what this transaction has appended at the end of the chain, and hold the ledger's lock."""
    owner, drafts = session.info.pop(_PENDING, (None, []))
    if not drafts or owner is not session.get_transaction():
        return
    lock_ledger(session)
    tail = session.execute(_END).first()
    seq, last = (tail[0], tail[1]) if tail is not None else (0, GENESIS)
    rows = []
    for number, draft in enumerate(drafts, start=seq + 1):
        draft.seq, draft.created_at, draft.prev_hash = number, utcnow(), last
        last = draft.hash = content_hash(event_content(draft))
        rows.append(values_of(draft))
    session.execute(insert(_EVENTS), rows)


@event.listens_for(Session, "do_orm_execute")
def show(state: ORMExecuteState) -> None:
    """Chain before a transaction reads events: it sees those that it has appended."""
    if _PENDING in state.session.info and any(m.class_ is AuditEvent for m in state.all_mappers):
        chain(state.session)
