"""Uvicorn's HTTP/1.1, with limits on what a client may take its time over.

Everything that a client can keep waiting has an end: a request's head, an answer that nobody reads, the
number of connections (here), and a request's body (`app.api.limits`). What the service itself takes time
over, an answer being written or an event stream, has none.
"""

import asyncio
import json
from http import HTTPStatus
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from app.api.limits import HEAD_BYTES
from app.kit.errors import PROBLEM_TYPE_PREFIX
from app.settings import Settings

KEEP_ALIVE_SECONDS = 5


class BoundedProtocol(H11Protocol):
    """Uvicorn's HTTP/1.1 with three limits more: connections, the time of a head, the time nobody reads."""

    most_connections = 1000
    head_seconds = 10.0
    unread_seconds = 30.0

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._head_timer: asyncio.TimerHandle | None = None
        self._unread_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """Take the connection, or refuse it before a byte of it is read."""
        if len(self.connections) >= self.most_connections:
            transport.write(_raw(503, "unavailable", "Too many connections.", "Try again in a second."))
            transport.close()
        super().connection_made(transport)
        if transport.is_closing():
            self.connections.discard(self)
        else:
            self._await_head()

    def data_received(self, data: bytes) -> None:
        """Read on; the head must be whole in time, from its first byte or the connection's beginning on."""
        if self.transport.is_closing():
            return
        began = self.cycle
        idle = began is None or began.response_complete
        if idle and self._head_timer is None:
            self._await_head()
        super().data_received(data)
        if self.cycle is not began:
            self._head_is_whole()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timers."""
        self._head_is_whole()
        self._is_read()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The client reads more slowly than we write: it has so long to go on."""
        self.flow.pause_writing()
        self._unread_timer = self.loop.call_later(self.unread_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """The client reads again."""
        self._is_read()
        self.flow.resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Say what is wrong with a request that cannot be read, and close."""
        detail = f"{msg} It is no HTTP/1.1, or its line and headers are over {HEAD_BYTES:,} bytes."
        hint = "Put data into the body; a key is all that this service reads from headers."
        self.transport.write(_raw(400, "malformed-request", detail, hint))
        self.transport.close()

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(self.head_seconds, self._too_slow)

    def _head_is_whole(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _is_read(self) -> None:
        if self._unread_timer is not None:
            self._unread_timer.cancel()
            self._unread_timer = None

    def _too_slow(self) -> None:
        self._head_timer = None
        if self.transport.is_closing():
            return
        detail = f"The request's headers were not complete after {self.head_seconds:g} s."
        self.transport.write(_raw(408, "too-slow", detail, "Send the request again, all of it at once."))
        self.transport.close()


def bounded_protocol(settings: Settings) -> type[BoundedProtocol]:
    """Return the protocol with this process's limits."""

    class Bounded(BoundedProtocol):
        most_connections = settings.max_connections
        head_seconds = settings.head_seconds
        unread_seconds = settings.unread_seconds

    return Bounded


def server_options(settings: Settings) -> dict[str, Any]:
    """Return what uvicorn is started with, wherever it is started."""
    return {
        "http": bounded_protocol(settings),
        "h11_max_incomplete_event_size": HEAD_BYTES,
        "timeout_keep_alive": KEEP_ALIVE_SECONDS,
        "ws": "none",
        "server_header": False,
        "access_log": False,  # it would write addresses with whatever is in them; see `app.api.access`
    }


def _raw(status: int, type: str, detail: str, hint: str) -> bytes:
    """Return a whole answer for a request that never came to be one, as a problem document."""
    title = HTTPStatus(status).phrase
    problem = {
        "type": PROBLEM_TYPE_PREFIX + type,
        "title": title,
        "status": status,
        "detail": detail,
        "hint": hint,
    }
    body = json.dumps(problem).encode()
    head = (
        f"HTTP/1.1 {status} {title}\r\nContent-Type: application/problem+json\r\n"
        f"Content-Length: {len(body)}\r\n"
        "X-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body
