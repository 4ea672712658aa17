"""Making, checking and revoking API keys.

Tenants: every key belongs to one. `owner`, `operator`, `auditor` and `chat` keys see their own tenant's
objects alone; another tenant's are answered as if they did not exist. The exception is the tenant named
`root`, whose keys see all tenants' objects: that is how whoever runs the service reviews and audits.
`metrics` keys, of any tenant, read counts over all tenants and nothing else.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, get_args

from sqlalchemy.orm import Session

from app.accounts.principal import Principal
from app.accounts.repository import KeyRepository
from app.audit.service import AuditService
from app.db.models import ApiKey
from app.db.session import SessionFactory
from app.kit.canonical import sha256_hex
from app.kit.clock import utcnow
from app.kit.errors import Conflict, InvalidInput, NotFound, Unauthenticated
from app.kit.ids import new_id

Scope = Literal["owner", "operator", "auditor", "chat", "metrics"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
ROOT_TENANT = "root"
_PREFIX = "lethe_"
_USED_GRAIN = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that was just made. `secret` is shown this once and stored nowhere."""

    id: str
    tenant_id: str
    secret: str
    scopes: tuple[str, ...]


def create_key(
    session: Session,
    *,
    tenant: str,
    scopes: Sequence[str],
    name: str = "",
    expires_in: timedelta | None = None,
    actor: str = "system:cli",
) -> NewKey:
    """Make an API key, and its tenant if there is none with this name. The caller commits.

    Args:
        session: the caller's transaction.
        tenant: name of the tenant; `root` sees all tenants.
        scopes: at least one of `owner`, `operator`, `auditor`, `chat`, `metrics`.
        name: what the key is for.
        expires_in: how long it is valid; None for no end.
        actor: who made it.

    Raises:
        InvalidInput: unknown or no scopes, or a tenant or key name that is empty or too long.
    """
    unknown = sorted(set(scopes) - set(SCOPES))
    if unknown or not scopes:
        raise InvalidInput(
            f"Unknown scopes: {', '.join(unknown)}." if unknown else "A key needs at least one scope.",
            f"Choose from: {', '.join(SCOPES)}.",
        )
    if not tenant.strip() or len(tenant) > 100 or len(name) > 100:
        raise InvalidInput("A tenant's name has 1 to 100 characters, a key's at most 100.", "Shorten it.")
    keys = KeyRepository(session)
    secret = _PREFIX + secrets.token_urlsafe(32)
    row = ApiKey(
        id=new_id("key"),
        tenant_id=keys.tenant(tenant.strip()),
        name=name or "key",
        prefix=secret[: len(_PREFIX) + 6],
        key_hash=key_hash(secret),
        scopes=sorted(set(scopes)),
        expires_at=utcnow() + expires_in if expires_in is not None else None,
    )
    keys.add(row)
    AuditService(session).append(
        "key.created",
        actor=actor,
        subject_id=row.id,
        tenant_id=row.tenant_id,
        payload={"scopes": row.scopes},
    )
    return NewKey(row.id, row.tenant_id, secret, tuple(row.scopes))


def revoke_key(session: Session, key_id: str, *, actor: str = "system:cli") -> None:
    """Make a key invalid from the commit on.

    Raises:
        NotFound: there is no such key.
    """
    keys = KeyRepository(session)
    row = keys.by_id(key_id)
    if row is None:
        raise NotFound(f"There is no key {key_id[:80]!r}.", "Use the id that `lethe keys create` printed.")
    keys.revoke(key_id, utcnow())
    AuditService(session).append("key.revoked", actor=actor, subject_id=key_id, tenant_id=row.tenant_id)


def rotate_key(
    session: Session, key_id: str, *, overlap: timedelta = timedelta(0), actor: str = "system:cli"
) -> NewKey:
    """Make a key like this one, which is valid for `overlap` more, or no longer. The caller commits.

    The new one has the tenant, scopes and name of the old one, and as long a validity from now on.

    Raises:
        NotFound: there is no such key.
        Conflict: it is revoked or has expired: make a new one instead.
    """
    keys, now = KeyRepository(session), utcnow()
    row = keys.by_id(key_id, lock=True)
    if row is None:
        raise NotFound(f"There is no key {key_id[:80]!r}.", "Use an id that `lethe keys list` shows.")
    if state_of(row, now) != "valid":
        raise Conflict("The key is revoked or has expired.", "Make a new one: lethe keys create")
    made = create_key(
        session,
        tenant=keys.tenant_name(row.tenant_id),
        scopes=row.scopes,
        name=row.name,
        expires_in=row.expires_at - row.created_at if row.expires_at is not None else None,
        actor=actor,
    )
    end = now + overlap
    if overlap and (row.expires_at is None or row.expires_at > end):
        row.expires_at = end
    elif not overlap:
        keys.revoke(key_id, now)
    AuditService(session).append(
        "key.rotated", actor=actor, subject_id=key_id, tenant_id=row.tenant_id, payload={"to": made.id}
    )
    return made


def state_of(key: ApiKey, now: datetime) -> Literal["valid", "expired", "revoked"]:
    """Return whether a key lets anybody in."""
    if key.revoked_at is not None:
        return "revoked"
    return "expired" if key.expires_at is not None and key.expires_at <= now else "valid"


def authenticate(session_factory: SessionFactory, secret: str) -> Principal:
    """Return who holds `secret`, and note at most once a minute that the key was used.

    Uses a transaction of its own, so that requests with the same key do not wait for each other.

    Raises:
        Unauthenticated: unknown, revoked or expired; the answer does not say which.
    """
    now = utcnow()
    with session_factory.begin() as session:
        keys = KeyRepository(session)
        found = keys.by_hash(key_hash(secret))
        if found is None:
            raise Unauthenticated("The API key is not valid.")
        key, tenant = found
        return holder_of(keys, key, tenant, now)


def holder_of(keys: KeyRepository, key: ApiKey, tenant: str, now: datetime) -> Principal:
    """Return who holds a stored key, and note at most once a minute that it was used.

    Raises:
        Unauthenticated: revoked or expired.
    """
    if state_of(key, now) != "valid":
        raise Unauthenticated("The API key is not valid.")
    if key.last_used_at is None or key.last_used_at < now - _USED_GRAIN:
        keys.touch(key.id, now, now - _USED_GRAIN)
    return Principal(key.id, key.tenant_id, frozenset(key.scopes), tenant == ROOT_TENANT)


def key_hash(secret: str) -> str:
    """Return what is kept of a key's secret."""
    # The secret has 256 random bits: a plain hash cannot be searched, and needs no salt or slowness.
    return sha256_hex(secret.encode())
