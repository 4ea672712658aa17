"""Limits and headers that hold before any endpoint sees a request."""

import asyncio
from collections.abc import Callable

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.problems import problem_response
from app.kit.errors import AddressTooLong, BadRequest, HeadersTooLarge, PayloadTooLarge, Problem

SMALL_BODY_BYTES = 1024 * 1024
SLOWEST_BYTES = 20_000
"""A second more for every so many bytes that have come."""


ADDRESS_BYTES = 8 * 1024
HEAD_BYTES = 32 * 1024
"""Most bytes of a request's line and headers together."""


class HeadLimit:
    """Refuses addresses and headers over the limit (the server ends those that are still coming)."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on unless its head is too large."""
        error: Problem | None = None
        if scope["type"] == "http":
            address = len(scope.get("raw_path") or b"") + len(scope["query_string"])
            headers = sum(len(key) + len(value) + 4 for key, value in scope["headers"])
            if address > ADDRESS_BYTES:
                error = AddressTooLong(f"The address has {address:,} bytes; the limit is {ADDRESS_BYTES:,}.")
            elif headers > HEAD_BYTES - ADDRESS_BYTES:
                most = HEAD_BYTES - ADDRESS_BYTES
                error = HeadersTooLarge(f"The headers have {headers:,} bytes; the limit is {most:,}.")
        if error is None:
            await self.app(scope, receive, send)
            return
        nameless = {**scope, "path": "/", "raw_path": b"/", "query_string": b""}  # nobody needs 200 kB back
        await problem_response(error, Request(nameless))(scope, receive, send)


class BodyLimit:
    """Refuses bodies over the limit: by Content-Length before reading, and by counting while reading.

    A body must be whole after `seconds`, and one second more for each 20 kB that have come.

    Args:
        app: the application.
        limit_of: from a path to its limit in bytes.
        seconds: how long a body may take.
    """

    def __init__(self, app: ASGIApp, limit_of: Callable[[str], int], seconds: float) -> None:
        self.app = app
        self.limit_of = limit_of
        self.seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with a counted body."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        limit = self.limit_of(scope["path"])
        declared = next((v for k, v in scope["headers"] if k == b"content-length"), b"0")
        if not declared.isdigit():
            error = BadRequest("Content-Length is not a number.", "Send the body's size in bytes.")
            await problem_response(error, Request(scope))(scope, receive, send)
            return
        if int(declared) > limit:
            await problem_response(too_large(limit), Request(scope))(scope, receive, send)
            return
        received, whole, began = 0, False, asyncio.get_running_loop().time()

        async def counted() -> Message:
            nonlocal received, whole
            if whole:  # what comes now is the client's going, whenever that is
                return await receive()
            try:
                async with asyncio.timeout_at(began + self.seconds + received / SLOWEST_BYTES):
                    message = await receive()
            except TimeoutError:
                detail = f"After {received:,} bytes the rest of the body did not come in time."
                raise HTTPException(408, detail, {"Connection": "close"}) from None
            whole = not message.get("more_body", False)
            received += len(message.get("body", b""))
            if received > limit:
                # An HTTPException passes through the framework's own body parsing unchanged.
                raise HTTPException(413, too_large(limit).detail)
            return message

        await self.app(scope, counted, send)


def too_large(limit: int) -> PayloadTooLarge:
    """Return the error for a body over `limit` bytes."""
    return PayloadTooLarge(
        f"The body is larger than {limit:,} bytes.", "Send fewer or smaller pictures, or less text."
    )


_ALWAYS = {
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-resource-policy": b"same-origin",
    b"cross-origin-opener-policy": b"same-origin",
    b"permissions-policy": b"camera=(), geolocation=(), microphone=()",
    b"cache-control": b"no-store",
}
_NOTHING = b"default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_DOCUMENTATION = (
    b"default-src 'none'; connect-src 'self'; worker-src blob:; "
    b"script-src 'self' 'unsafe-inline' https://cdn.jsdelivr.net; "
    b"style-src 'self' 'unsafe-inline' https://cdn.jsdelivr.net https://fonts.googleapis.com; "
    b"font-src https://fonts.gstatic.com; img-src 'self' data: https://fastapi.tiangolo.com "
    b"https://cdn.redoc.ly; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""FastAPI's documentation pages bring a viewer from a CDN; what they show is static."""
_DOCUMENTATION_PAGES = frozenset({"/docs", "/docs/oauth2-redirect", "/redoc"})


class SecurityHeaders:
    """Adds the headers that no answer should be without, unless the endpoint has set its own.

    Args:
        app: the application.
        strict_transport: tell browsers to come back over TLS alone (they heed it only if they came over it).
    """

    def __init__(self, app: ASGIApp, *, strict_transport: bool) -> None:
        self.app = app
        self._always = dict(_ALWAYS)
        if strict_transport:
            self._always[b"strict-transport-security"] = b"max-age=31536000"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; add headers to the answer."""
        path = scope.get("path", "")
        policy = _DOCUMENTATION if path in _DOCUMENTATION_PAGES else _NOTHING
        wanted = self._always | {b"content-security-policy": policy}

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                present = {key.lower() for key, _ in message["headers"]}
                added = [pair for pair in wanted.items() if pair[0] not in present]
                message["headers"] = [*message["headers"], *added]
            await send(message)

        await self.app(scope, receive, with_headers)
