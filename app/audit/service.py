"""Appending to the audit chain, recomputing it, and signing its head."""

import hashlib
import hmac
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from app.audit.repository import AuditRepository
from app.db.models import AuditEvent
from app.db.repository import lock_ledger
from app.kit.canonical import JsonValue, canonical_json, sha256_hex
from app.kit.clock import rfc3339, utcnow
from app.kit.ids import new_id

GENESIS = "0" * 64


@dataclass(frozen=True, slots=True)
class ChainReport:
    """What recomputing the chain found: `intact`, or the first event that does not fit and why."""

    intact: bool
    events: int
    head_seq: int
    head_hash: str
    broken_at: int | None = None
    reason: str | None = None


def event_hash(
    *,
    seq: int,
    id: str,
    tenant_id: str | None,
    kind: str,
    actor: str,
    subject_id: str | None,
    payload: Mapping[str, JsonValue],
    created_at: datetime,
    prev_hash: str,
) -> str:
    """Return the SHA-256 over the RFC 8785 form of an event, its predecessor's hash included."""
    return sha256_hex(
        canonical_json(
            {
                "seq": seq,
                "id": id,
                "tenant_id": tenant_id,
                "kind": kind,
                "actor": actor,
                "subject_id": subject_id,
                "payload": payload,
                "created_at": rfc3339(created_at),
                "prev_hash": prev_hash,
            }
        )
    )


def _hash_of(event: AuditEvent) -> str:
    return event_hash(
        seq=event.seq,
        id=event.id,
        tenant_id=event.tenant_id,
        kind=event.kind,
        actor=event.actor,
        subject_id=event.subject_id,
        payload=event.payload,
        created_at=event.created_at,
        prev_hash=event.prev_hash,
    )


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
    ) -> AuditEvent:
        """Append one event; holds the ledger lock until the caller's transaction ends.

        Args:
            kind: dotted, such as `request.approve`.
            actor: id of a key, or `worker:...`, `policy:...`, `system:...`; never a person's name.
            subject_id: what it is about, usually a request id.
            payload: further facts; pass personal ones through `token` first.
            tenant_id: whose auditors may read it.

        Raises:
            ValueError: the payload has no canonical JSON form.
        """
        lock_ledger(self._session)
        tail = self._events.tail()
        event = AuditEvent(
            seq=tail.seq + 1 if tail else 1,
            id=new_id("aud"),
            tenant_id=tenant_id,
            kind=kind,
            actor=actor,
            subject_id=subject_id,
            payload=dict(payload or {}),
            created_at=utcnow(),
            prev_hash=tail.hash if tail else GENESIS,
        )
        event.hash = _hash_of(event)
        return self._events.add(event)

    def token(self, subject_id: str, value: str) -> str:
        """Return a salted token for something personal about `subject_id`.

        Erasing the subject's salt makes the token meaningless and leaves the chain valid.
        """
        salt = self._events.salt(subject_id, os.urandom(32))
        return hmac.new(salt, value.encode(), hashlib.sha256).hexdigest()

    def head(self) -> tuple[int, str]:
        """Return number and hash of the newest event."""
        tail = self._events.tail()
        return (tail.seq, tail.hash) if tail else (0, GENESIS)

    def verify(self) -> ChainReport:
        """Recompute every hash and every link from the first event on."""
        expected_seq, previous, last = 1, GENESIS, 0
        for event in self._events.walk():
            reason = None
            if event.seq != expected_seq:
                reason = f"event {expected_seq} is missing"
            elif event.prev_hash != previous:
                reason = "its prev_hash is not the hash of the event before it"
            elif event.hash != _hash_of(event):
                reason = "its content does not match its hash"
            if reason is not None:
                return ChainReport(False, expected_seq - 1, last, previous, event.seq, reason)
            expected_seq, previous, last = expected_seq + 1, event.hash, event.seq
        return ChainReport(True, last, last, previous)
