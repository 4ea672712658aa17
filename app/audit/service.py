"""Appending to the audit chain, and recomputing it."""

import hashlib
import hmac
import os
from collections.abc import Callable, Iterable, Mapping

from sqlalchemy.orm import Session

from app.audit import pending
from app.audit.chain import GENESIS, Breach, ChainReport, ChainWalk, Link, SignedHead
from app.audit.pending import event_content
from app.audit.repository import AuditRepository
from app.db.models import AuditEvent
from app.kit.canonical import JsonValue, canonical_json
from app.kit.ids import new_id

__all__ = ["GENESIS", "AuditService", "Breach", "ChainReport", "event_content", "link_of"]


def link_of(event: AuditEvent) -> Link:
    """Return an event as a link of the chain."""
    return Link(event.seq, event.prev_hash, event.hash, event_content(event))


class AuditService:
    """The chain within the caller's transaction: an event is there exactly if the change it tells of is."""

    def __init__(self, session: Session) -> None:
        self._events = AuditRepository(session)
        self._session = session

    def append(
        self,
        kind: str,
        *,
        actor: str,
        subject_id: str | None = None,
        payload: Mapping[str, JsonValue] | None = None,
        tenant_id: str | None = None,
    ) -> None:
        """Append one event; it takes its place in the chain when the caller's transaction commits.

        Then, or when this transaction reads the chain, the ledger is locked until the transaction ends.

        Args:
            kind: dotted, such as `request.approve`.
            actor: id of a key, or `worker:...`, `policy:...`, `system:...`; never a person's name.
            subject_id: what it is about, usually a request id.
            payload: further facts; pass personal ones through `token` first.
            tenant_id: whose auditors may read it.

        Raises:
            ValueError: the payload has no canonical JSON form.
        """
        facts = dict(payload or {})
        canonical_json(facts)
        draft = AuditEvent(
            id=new_id("aud"),
            tenant_id=tenant_id,
            kind=kind,
            actor=actor,
            subject_id=subject_id,
            payload=facts,
        )
        pending.add(self._session, draft)

    def token(self, subject_id: str, value: str) -> str:
        """Return a salted token for something personal about `subject_id`.

        Erasing the subject's salt makes the token meaningless and leaves the chain valid.
        """
        salt = self._events.salt(subject_id, os.urandom(32))
        return hmac.new(salt, value.encode(), hashlib.sha256).hexdigest()

    def forget(self, subject_id: str) -> bool:
        """Make every token about `subject_id` meaningless for good; False if there was no salt."""
        return self._events.forget_salt(subject_id)

    def head(self) -> tuple[int, str]:
        """Return number and hash of the newest event."""
        tail = self._events.tail()
        return (tail.seq, tail.hash) if tail else (0, GENESIS)

    def verify(
        self,
        checkpoints: Iterable[SignedHead] = (),
        look: Callable[[AuditEvent], None] | None = None,
    ) -> ChainReport:
        """Recompute every hash and every link from the first event on.

        Args:
            checkpoints: signed ones that the chain must agree with, their signatures checked.
            look: called with every event on the way.
        """
        walk = ChainWalk(checkpoints)
        for event in self._events.walk():
            fits = walk.add(link_of(event))
            if look is not None:
                look(event)
            self._session.expunge(event)
            if not fits:
                break
        return walk.report()
