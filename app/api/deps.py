"""What endpoints depend on: settings, a session, and who asks."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Annotated, cast

from anyio import CancelScope, CapacityLimiter, to_thread
from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from app.accounts.lately import LatelySeen
from app.accounts.principal import Principal
from app.accounts.service import Scope
from app.api.rates import RateLimits
from app.db.session import SessionFactory
from app.kit.errors import Forbidden, Unauthenticated
from app.settings import Settings

_bearer = HTTPBearer(auto_error=False, description="An API key: `lethe_...`")


async def get_app_settings(request: Request) -> Settings:
    """Return the settings the application was made with."""
    return cast("Settings", request.app.state.settings)


async def get_session(request: Request) -> AsyncIterator[Session]:
    """Yield one transaction, committed when the endpoint has returned and before the response leaves.

    Endpoints on a `CommittingRoute` have committed by then. What is left to do with the database has a thread
    of its own: one that waited for its turn would hold a connection, and locks, meanwhile.
    """
    session = cast("SessionFactory", request.app.state.session_factory)()
    try:
        yield session
    except BaseException:
        await _in_own_thread(session.rollback, session)
        raise
    else:
        await _in_own_thread(session.commit, session)
    finally:
        session.close()


async def _in_own_thread(end: Callable[[], None], session: Session) -> None:
    if session.in_transaction():
        with CancelScope(shield=True):
            await to_thread.run_sync(end, limiter=CapacityLimiter(1))


def require(*scopes: Scope) -> Callable[..., Awaitable[Principal]]:
    """Return a dependency that lets in keys with at least one of `scopes`, and says who it is.

    Raises (when called):
        Unauthenticated: 401, no valid key.
        RateLimited: 429, the key has asked too often.
        Forbidden: 403, a valid key without any of the scopes.
    """

    async def principal(
        request: Request,
        credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
    ) -> Principal:
        if credentials is None:
            raise Unauthenticated("There is no API key in the request.")
        keys, secret = cast("LatelySeen", request.app.state.keys), credentials.credentials
        found = keys.known(secret)

        def admit() -> Principal:
            return admitted(request, keys.holder(secret) if found is None else found, scopes)

        waits = found is None or cast("RateLimits", request.app.state.rates).counts
        return await run_in_threadpool(admit) if waits else admit()

    principal.scopes = scopes  # type: ignore[attr-defined]  # read by the authorisation tests
    return principal


def admitted(request: Request, found: Principal, scopes: Sequence[Scope]) -> Principal:
    """Count the request against the key's rate, and return the principal if it has one of `scopes`.

    Raises:
        RateLimited: 429, the key has asked too often.
        Forbidden: 403, it has none of the scopes.
    """
    cast("RateLimits", request.app.state.rates).check(found.key_id)
    if found.scopes.isdisjoint(scopes):
        raise Forbidden(
            "This key has none of the scopes that are needed here.",
            f"Use a key with scope {' or '.join(scopes)}.",
            extra={"needs_one_of": list(scopes)},
        )
    return found


SettingsDep = Annotated[Settings, Depends(get_app_settings)]
SessionDep = Annotated[Session, Depends(get_session, scope="function")]
