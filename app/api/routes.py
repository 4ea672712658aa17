"""Routes whose work and commit are one piece of work of one thread.

A sync endpoint that FastAPI runs needs the thread pool again after it has returned: to validate its answer,
and then to leave its dependencies, which commits. Between the two it holds a connection, and whatever locks
its transaction took. With every thread waiting for one of those locks, or for a connection, nobody can give
it a thread, and all wait until a time limit. So nothing here waits for a thread while it holds anything.
"""

from collections.abc import Callable
from functools import wraps
from inspect import iscoroutinefunction, signature
from typing import Any, TypeVar

from anyio import CapacityLimiter, to_thread
from anyio.lowlevel import RunVar
from fastapi.routing import APIRoute
from sqlalchemy.orm import Session

_SESSION = "session"
_AT_ONCE = "_at_once"
E = TypeVar("E", bound=Callable[..., Any])


def at_most(n: int) -> Callable[[E], E]:
    """Have at most `n` calls of a `CommittingRoute` endpoint run at once; the others wait for no thread.

    For what computes more than it waits: more threads than cores only take the interpreter from each other,
    and hold connections and locks for all that time.
    """

    def marked(endpoint: E) -> E:
        setattr(endpoint, _AT_ONCE, n)
        return endpoint

    return marked


class CommittingRoute(APIRoute):
    """Commits the endpoint's `session` in the thread that ran it, as soon as it has returned.

    For sync endpoints that take `session: SessionDep`; others are as they always are. What the endpoint
    raises rolls back, as ever. Use it with `APIRouter(route_class=CommittingRoute)`.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, committing(endpoint), **options)


def committing(endpoint: Callable[..., Any]) -> Callable[..., Any]:
    """Return the endpoint as one that commits its session before it gives its thread back."""
    if iscoroutinefunction(endpoint) or _SESSION not in signature(endpoint).parameters:
        return endpoint

    most: int | None = getattr(endpoint, _AT_ONCE, None)
    limit = RunVar[CapacityLimiter](f"at most {most} of {endpoint.__module__}.{endpoint.__qualname__}")

    def limiter() -> CapacityLimiter | None:
        """Return the limit among the endpoint's calls in this event loop; None for the thread pool's own."""
        if most is None:
            return None
        try:
            return limit.get()
        except LookupError:
            made = CapacityLimiter(most)
            limit.set(made)
            return made

    @wraps(endpoint)
    async def run(**arguments: Any) -> Any:
        return await to_thread.run_sync(_committed, endpoint, arguments, limiter=limiter())

    return run


def _committed(endpoint: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    answer = endpoint(**arguments)
    session: Session = arguments[_SESSION]
    session.commit()
    return answer
