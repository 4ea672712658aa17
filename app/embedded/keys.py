"""The first API keys: made once, kept in the home for the owner of the home alone."""

from __future__ import annotations

from collections.abc import Mapping

from app.accounts.service import ROOT_TENANT, authenticate, create_key
from app.db.session import SessionFactory, create_engine_from, session_factory
from app.embedded.home import Home
from app.kit.errors import Unauthenticated
from app.settings import load_settings

LOCAL_TENANT = "local"
_FIRST = {
    "owner": (LOCAL_TENANT, ("owner", "chat")),
    "chat": (LOCAL_TENANT, ("chat",)),
    "operator": (ROOT_TENANT, ("operator", "chat")),
    "auditor": (ROOT_TENANT, ("auditor",)),
}


def ensure_keys(home: Home, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the stack's own keys by name, making those that the database does not (or no longer) know.

    Args:
        home: where the keys are kept; its database stores their hashes alone.
        environment: holds ``LETHE_DATABASE_URL``.
    """
    engine = create_engine_from(load_settings(database_url=environment["LETHE_DATABASE_URL"]), connections=2)
    sessions = session_factory(engine)
    try:
        keys = {name: key for name, key in home.keys().items() if name in _FIRST and _valid(sessions, key)}
        missing = [name for name in _FIRST if name not in keys]
        with sessions.begin() as session:
            for name in missing:
                tenant, scopes = _FIRST[name]
                label = f"{name} key of the embedded stack"
                keys[name] = create_key(session, tenant=tenant, scopes=scopes, name=label).secret
    finally:
        engine.dispose()
    if missing:
        home.save_keys(keys)
    return keys


def _valid(sessions: SessionFactory, key: str) -> bool:
    try:
        authenticate(sessions, key)
    except Unauthenticated:
        return False
    return True
