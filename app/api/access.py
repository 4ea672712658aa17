"""One line in the log for each answer: which endpoint, which id of ours; nothing that a client wrote."""

import re
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.kit.logging import get_logger

_ID = re.compile(r"[a-z]{3}_[0-9a-f]{32}|[0-9]{1,18}")
_log = get_logger("access")


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


class AccessLog:
    """Writes the line when the answer has ended, however it ended."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.monotonic(), 0

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, noted)
        finally:
            milliseconds = round(1000 * (time.monotonic() - began), 1)
            _log.info(
                "answered",
                method=scope["method"],
                endpoint=endpoint_of(scope),
                status=status,
                ms=milliseconds,
            )
