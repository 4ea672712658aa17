"""What every request carries: an id in all its log lines and in its answer, one line in the log, one span."""

import re
import time

import structlog
import uuid_utils
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.kit.logging import get_logger
from app.kit.tracing import parent_of, span

HEADER = "X-Request-Id"
_NAME = HEADER.lower().encode()
_ACCEPTED = re.compile(r"[A-Za-z0-9._-]{1,64}")
_ID = re.compile(r"[a-z]{3}_[0-9a-f]{32}|[0-9]{1,18}")
_QUIET = frozenset({"/healthz", "/readyz", "/metrics"})
_log = get_logger("api")


def endpoint_of(scope: Scope) -> str:
    """Return the path with its parameters filled in where they are ids; `unknown` for one that nobody has.

    Anything else that a client put there may be a name, and is left out, as is the query.
    """
    template = getattr(scope.get("route"), "path_format", None) or getattr(scope.get("route"), "path", None)
    if template is None:
        return "unknown"
    given = scope.get("path_params", {})
    return re.sub(
        r"{(\w+)(?::\w+)?}",
        lambda found: value if _ID.fullmatch(value := str(given.get(found[1], ""))) else found[0],
        template,
    )


class RequestContext:
    """Names every request, logs how it ended, and traces it if traces are configured.

    The log has the route's template and our ids in it, never the path as it was sent, no address and no
    header: a client may write anything there. A client's own `X-Request-Id` is taken if it is 1 to 64
    letters, digits, `.`, `_`, `-`.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get(HEADER, "")
        request_id = given if _ACCEPTED.fullmatch(given) else uuid_utils.uuid7().hex
        scope.setdefault("state", {})["request_id"] = request_id
        start = time.perf_counter()
        status = 500

        async def named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                others = [pair for pair in message["headers"] if pair[0].lower() != _NAME]
                message["headers"] = [*others, (_NAME, request_id.encode())]
            await send(message)

        with (
            structlog.contextvars.bound_contextvars(request_id=request_id),
            span(scope["method"], parent=parent_of(headers), kind="server", request_id=request_id) as traced,
        ):
            try:
                await self.app(scope, receive, named)
            finally:
                route = getattr(scope.get("route"), "path", "(none)")
                traced.update_name(f"{scope['method']} {route}")
                traced.set_attribute("http.route", route)
                traced.set_attribute("http.response.status_code", status)
                if route not in _QUIET:
                    milliseconds = round((time.perf_counter() - start) * 1000, 1)
                    told = {"method": scope["method"], "route": route, "endpoint": endpoint_of(scope)}
                    _log.info("answered", **told, status=status, milliseconds=milliseconds)
