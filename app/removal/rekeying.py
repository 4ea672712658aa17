"""A new evidence key: everything encrypted in the database is encrypted again, a batch at a time.

Files are encrypted under data keys, which are in the database (`app.removal.datakeys`).
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from sqlalchemy.orm import Session

from app.audit.service import AuditService
from app.db.session import SessionFactory
from app.kit.crypto import DecryptionError, EvidenceCipher, decode_key
from app.kit.logging import get_logger
from app.removal.datakeys import DataKeyRepository, data_key_aad
from app.removal.sealed import COLUMNS, SealedColumn, SealedRepository
from app.settings import Settings

BATCH = 50
_log = get_logger("rekeying")


@dataclass(frozen=True)
class Rekeyed:
    """How many were encrypted again, by kind; and the ids of rows that no configured key opens."""

    done: Counter[str] = field(default_factory=Counter)
    unreadable: list[str] = field(default_factory=list)


def rekey(sessions: SessionFactory, settings: Settings, *, actor: str, batch: int = BATCH) -> Rekeyed:
    """Encrypt under the current key what is encrypted under earlier ones; each batch is one transaction.

    Killed at any moment, it goes on where it was when it is called again, for a row says itself which key it
    is under. Any number may run at once, beside the service. Each batch is an event `evidence.rekeyed` in the
    audit trail. A row that cannot be decrypted is left as it is.
    """
    cipher = settings.evidence_cipher()
    found = Rekeyed()
    for column in COLUMNS:
        after: str | None = ""
        while after is not None:
            with sessions.begin() as session:
                after = _batch(session, column, cipher, after, batch, found, actor)
    return found


def _batch(
    session: Session,
    column: SealedColumn,
    cipher: EvidenceCipher,
    after: str,
    limit: int,
    found: Rekeyed,
    actor: str,
) -> str | None:
    """Encrypt the next rows; return the last one's id, None if there are no more."""
    rows = SealedRepository(session).under_other_keys(column, cipher.key_id, after, limit)
    done = 0
    for row in rows:
        aad = column.aad(row)
        try:
            plain = cipher.decrypt(getattr(row, column.column.key), aad)
        except DecryptionError as error:
            _log.warning("left as it is", row=row.id, error=str(error))
            found.unreadable.append(row.id)
            continue
        setattr(row, column.column.key, cipher.encrypt(plain, aad))
        done += 1
    if done:
        found.done[column.name] += done
        AuditService(session).append(
            "evidence.rekeyed",
            actor=actor,
            subject_id=None,
            tenant_id=None,
            payload={"what": column.name, "n": done, "key": cipher.key_id},
        )
    return rows[-1].id if len(rows) == limit else None


def keep_keys_of_files(
    sessions: SessionFactory, settings: Settings, key_ids: Iterable[str], *, actor: str
) -> list[str]:
    """Keep earlier evidence keys that files are under, as data keys; return the ids of those that are new.

    Files of experts from before there were data keys are encrypted under an evidence key itself, and never
    change. From then on such a key is encrypted under the current one, and is no setting any more.

    Args:
        sessions: the database.
        settings: with the keys to keep among `evidence_keys_previous`; others are left out.
        key_ids: hex ids of the keys that files are under; data keys among them are left out.
        actor: who does it, for the audit trail.
    """
    cipher = settings.evidence_cipher()
    earlier = {
        EvidenceCipher(key).key_id: key
        for key in (decode_key(secret.get_secret_value()) for secret in settings.evidence_keys_previous)
    }
    kept = []
    with sessions.begin() as session:
        keys = DataKeyRepository(session)
        for key_id in sorted(set(key_ids) & (earlier.keys() - {cipher.key_id})):
            if keys.offer(key_id, cipher.encrypt(earlier[key_id], data_key_aad(key_id)), None):
                kept.append(key_id)
                AuditService(session).append(
                    "evidence.rekeyed",
                    actor=actor,
                    subject_id=None,
                    tenant_id=None,
                    payload={"what": "kept_key", "n": 1, "key": key_id},
                )
    return kept


def keys_in_use(session: Session) -> dict[str, dict[str, int]]:
    """Return how many rows of each kind in `COLUMNS` are encrypted under which key, by its id."""
    repository = SealedRepository(session)
    by_key: dict[str, dict[str, int]] = {}
    for column in COLUMNS:
        for key_id, n in repository.counted(column).items():
            by_key.setdefault(key_id, {})[column.name] = n
    return by_key
