"""Browsers that logged in with an API key: who they are, until when, and how that ends."""

from dataclasses import dataclass
from datetime import timedelta

from app.accounts.principal import Principal
from app.accounts.repository import KeyRepository, SessionRepository
from app.accounts.service import authenticate, holder_of
from app.audit.service import AuditService
from app.db.models import BrowserSession
from app.db.session import SessionFactory
from app.kit.clock import utcnow
from app.kit.errors import Unauthenticated
from app.kit.ids import is_id, new_id


@dataclass(frozen=True, slots=True)
class LoggedIn:
    """A live session and who it belongs to. `tenant` is the tenant's name, `key_name` the key's."""

    session_id: str
    principal: Principal
    tenant: str
    key_name: str


def start_session(factory: SessionFactory, secret: str, lasts: timedelta) -> LoggedIn:
    """Begin a session of whoever holds `secret`; it is over after `lasts`, or when the key is.

    Raises:
        Unauthenticated: the key is unknown, revoked or expired.
    """
    principal = authenticate(factory, secret)
    now = utcnow()
    with factory.begin() as session:
        sessions = SessionRepository(session)
        sessions.forget_expired(now)
        row = sessions.add(BrowserSession(id=new_id("ses"), key_id=principal.key_id, expires_at=now + lasts))
        _audited(session_of=row.id, kind="session.started", principal=principal, audit=AuditService(session))
    return find_session(factory, row.id)


def find_session(factory: SessionFactory, session_id: str) -> LoggedIn:
    """Return a live session.

    Raises:
        Unauthenticated: it is unknown, over, or its key was revoked or has expired.
    """
    now = utcnow()
    if not is_id(session_id, "ses"):
        raise Unauthenticated("There is no such session.")
    with factory.begin() as session:
        found = SessionRepository(session).live(session_id, now)
        if found is None:
            raise Unauthenticated("The session is over.")
        row, key, tenant = found
        principal = holder_of(KeyRepository(session), key, tenant, now)
        return LoggedIn(row.id, principal, tenant, key.name)


def end_session(factory: SessionFactory, logged_in: LoggedIn) -> None:
    """End a session for good: its cookie is worth nothing afterwards, wherever a copy of it is."""
    with factory.begin() as session:
        SessionRepository(session).end(logged_in.session_id, utcnow())
        _audited(
            session_of=logged_in.session_id,
            kind="session.ended",
            principal=logged_in.principal,
            audit=AuditService(session),
        )


def _audited(*, session_of: str, kind: str, principal: Principal, audit: AuditService) -> None:
    audit.append(kind, actor=principal.key_id, subject_id=session_of, tenant_id=principal.tenant_id)
