"""One message over HTTP, to where it may go and nowhere else, within a time of its own."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import httpcore
import httpx

from app.webhooks.addresses import Resolve, is_public, system_addresses

SECONDS = 15.0
"""How long a message may take: name, connection, TLS, and the receiver's status line and headers together."""

_CONNECT_SECONDS = 5.0


class AddressRefusedError(Exception):
    """The host's name leads into a private network."""


class NotResolvedError(Exception):
    """The host's name leads nowhere."""


@dataclass(frozen=True, slots=True)
class Sent:
    """How sending went: an HTTP status, or a code for what happened instead.

    Codes: `address_not_allowed`, `name_not_resolved`, `no_connection`, `tls`, `timeout`, `protocol`, `status`
    (an answer other than 2xx), `secret_unreadable`.
    """

    status: int | None
    error: str | None
    milliseconds: int

    @property
    def delivered(self) -> bool:
        """Whether the receiver has taken it (2xx)."""
        return self.error is None


class GuardedBackend(httpcore.NetworkBackend):
    """Connects to the addresses that it has checked itself, so that a name cannot lead elsewhere afterwards.

    Args:
        private_allowed: connect to private and loopback addresses too.
        deadline: on the monotonic clock; no read or write goes on after it, however slowly bytes come.
        resolve: from names to addresses.
    """

    def __init__(self, *, private_allowed: bool, deadline: float, resolve: Resolve) -> None:
        self._private_allowed = private_allowed
        self._deadline = deadline
        self._resolve = resolve
        self._system = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect to the first address of `host` that answers.

        Raises:
            NotResolvedError: there is none.
            AddressRefusedError: one of them is private; the others are then not tried either.
        """
        try:
            addresses = self._resolve(host, port)
        except (OSError, UnicodeError) as error:
            raise NotResolvedError from error
        if not self._private_allowed and not all(is_public(address) for address in addresses):
            raise AddressRefusedError
        last: Exception = NotResolvedError()
        for address in addresses:
            try:
                stream = self._system.connect_tcp(
                    address, port, _left(self._deadline, timeout), local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                last = error
                continue
            return _Stream(stream, self._deadline)
        raise last


class _Stream(httpcore.NetworkStream):
    """A stream whose every operation ends at the deadline."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: float) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Read, but not after the deadline."""
        return self._stream.read(max_bytes, _left(self._deadline, timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Write, but not after the deadline."""
        self._stream.write(buffer, _left(self._deadline, timeout))

    def close(self) -> None:
        """Close the connection."""
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        """Start TLS with the certificate of the name that was asked for."""
        left = _left(self._deadline, timeout)
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, left), self._deadline)

    def get_extra_info(self, info: str) -> Any:
        """Tell what the stream beneath knows."""
        return self._stream.get_extra_info(info)


def send(
    url: str,
    headers: Mapping[str, str],
    body: bytes,
    *,
    private_allowed: bool,
    seconds: float = SECONDS,
    resolve: Resolve = system_addresses,
) -> Sent:
    """Post `body` and return how that went. Redirects are answers like any other; bodies are not read.

    Args:
        url: where to.
        headers: besides `User-Agent` and `Content-Type`.
        body: JSON.
        private_allowed: whether it may go into private networks.
        seconds: how long it may take in all.
        resolve: from names to addresses.
    """
    start = time.monotonic()
    backend = GuardedBackend(private_allowed=private_allowed, deadline=start + seconds, resolve=resolve)
    sent: dict[bytes | str, bytes | str] = {"User-Agent": "Lethe", "Content-Type": "application/json"}
    sent.update(headers.items())
    status: int | None = None
    try:
        with (
            httpcore.ConnectionPool(ssl_context=_tls(), network_backend=backend) as pool,
            pool.stream(
                "POST",
                url,
                headers=sent,
                content=body,
                extensions={"timeout": {"connect": _CONNECT_SECONDS, "read": seconds, "write": seconds}},
            ) as response,
        ):
            status = response.status
        error = None if 200 <= status < 300 else "status"
    except Exception as problem:  # whatever a stranger's server may do to us ends here
        error = _code(problem)
    return Sent(status, error, round((time.monotonic() - start) * 1000))


def _code(problem: Exception) -> str:
    if isinstance(problem, AddressRefusedError):
        return "address_not_allowed"
    if isinstance(problem, NotResolvedError):
        return "name_not_resolved"
    if isinstance(problem, httpcore.TimeoutException):
        return "timeout"
    cause: BaseException | None = problem
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return "tls"
        cause = cause.__cause__ or cause.__context__
    return "no_connection" if isinstance(problem, httpcore.NetworkError) else "protocol"


def _left(deadline: float, timeout: float | None) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise httpcore.ReadTimeout("the deadline has passed")
    return left if timeout is None else min(left, timeout)


@lru_cache(maxsize=1)
def _tls() -> ssl.SSLContext:
    return httpx.create_ssl_context()
