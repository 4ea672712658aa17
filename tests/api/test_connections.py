"""Slow, greedy and malformed clients, on raw sockets against the real server on loopback."""

import contextlib
import json
import socket
import time
from collections.abc import Iterator

import pytest
from fastapi import FastAPI

from app.accounts.service import create_key
from app.api.limits import HEAD_BYTES
from app.main import create_app
from tests.live import serving
from tests.service import Place

FAST = {"head_seconds": 0.3, "body_seconds": 0.3, "unread_seconds": 0.3, "max_connections": 6}


class Peer:
    """The server, and raw connections to it."""

    def __init__(self, port: int, key: str) -> None:
        self.port, self.key = port, key

    def connect(self) -> socket.socket:
        made = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made

    def head(self, method: str, path: str, *headers: str) -> bytes:
        lines = [f"{method} {path} HTTP/1.1", "Host: x", f"Authorization: Bearer {self.key}", *headers]
        return "\r\n".join([*lines, "", ""]).encode()


@pytest.fixture(scope="module")
def peer(place: Place) -> Iterator[Peer]:
    place.empty()
    settings = place.settings.model_copy(update=FAST)
    app = create_app(settings, with_engine=False)
    _endless(app)
    with place.sessions.begin() as session:
        key = create_key(session, tenant="acme", scopes=["owner"]).secret
    with serving(app, settings) as port:
        yield Peer(port, key)


def _endless(app: FastAPI) -> None:
    """An answer larger than any buffer between server and client."""

    @app.get("/endless")
    def endless() -> str:
        return "x" * 50_000_000


def answer_of(connection: socket.socket) -> bytes:
    """All that comes until the server closes; the test's socket time-out if it never does."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := connection.recv(65_536):
            received += piece
    return received


def problem(answer: bytes, status: int, type: str) -> dict[str, object]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ".encode()), answer[:300]
    assert b"application/problem+json" in head
    found: dict[str, object] = json.loads(body)
    assert found["type"] == f"urn:lethe:problem:{type}"
    assert found["hint"]
    return found


def trickle(connection: socket.socket, data: bytes) -> bytes:
    """Send a byte at a time for as long as the server takes them; return its answer."""
    connection.settimeout(0.05)
    for at in range(len(data)):
        try:
            connection.sendall(data[at : at + 1])
            if received := connection.recv(65_536):
                connection.settimeout(20)
                return received + answer_of(connection)
        except TimeoutError:
            continue
        except (BrokenPipeError, ConnectionResetError):
            break
    pytest.fail("the server took all of it")


class TestHead:
    def test_that_never_begins(self, peer: Peer) -> None:
        with peer.connect() as connection:
            problem(answer_of(connection), 408, "too-slow")

    def test_byte_by_byte(self, peer: Peer) -> None:
        with peer.connect() as connection:
            problem(
                trickle(connection, peer.head("GET", "/healthz", "X-Slow: " + "x" * 900)), 408, "too-slow"
            )

    def test_byte_by_byte_after_a_first_request(self, peer: Peer) -> None:
        with peer.connect() as connection:
            connection.sendall(peer.head("GET", "/healthz"))
            first = b""
            while b'"ok"}' not in first:
                first += connection.recv(65_536)
            problem(
                trickle(connection, peer.head("GET", "/healthz", "X-Slow: " + "x" * 900)), 408, "too-slow"
            )

    @pytest.mark.parametrize(
        ("status", "type", "path", "headers"),
        [
            (431, "headers-too-large", "/healthz", ("X-Large: " + "x" * HEAD_BYTES,)),
            (431, "headers-too-large", "/healthz", tuple(f"X-{i}: {'x' * 50}" for i in range(1000))),
            (414, "address-too-long", "/healthz?q=" + "x" * HEAD_BYTES, ()),
            (414, "address-too-long", "/" + "x" * 60_000, ()),
        ],
        ids=["one", "many", "query", "path"],
    )
    def test_too_large(self, peer: Peer, status: int, type: str, path: str, headers: tuple[str, ...]) -> None:
        with peer.connect() as connection:
            connection.sendall(peer.head("GET", path, *headers, "Connection: close"))
            answer = answer_of(connection)
        assert len(answer) < 2000
        if answer.startswith(b"HTTP/1.1 400 "):  # it was still coming when it was too much
            status, type = 400, "malformed-request"
        problem(answer, status, type)

    def test_too_large_and_without_an_end(self, peer: Peer) -> None:
        with peer.connect() as connection, contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(peer.head("GET", "/healthz")[:-2])
            for _ in range(1000):
                connection.sendall(b"X-More: " + b"x" * 10_000 + b"\r\n")
            pytest.fail("ten megabytes of headers were taken")

    @pytest.mark.parametrize(
        "data", [b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", b"GET\r\n\r\n", b"\0" * 40_000]
    )
    def test_that_is_no_http(self, peer: Peer, data: bytes) -> None:
        with peer.connect() as connection:
            connection.sendall(data)
            problem(answer_of(connection), 400, "malformed-request")

    def test_in_two_pieces(self, peer: Peer) -> None:
        whole = peer.head("GET", "/healthz", "Connection: close")
        with peer.connect() as connection:
            connection.sendall(whole[:20])
            time.sleep(0.05)
            connection.sendall(whole[20:])
            assert answer_of(connection).startswith(b"HTTP/1.1 200")


class TestBody:
    HEADERS = ("Content-Type: application/json", "Content-Length: 100000")

    def test_that_never_comes(self, peer: Peer) -> None:
        with peer.connect() as connection:
            connection.sendall(peer.head("POST", "/unlearn-requests", *self.HEADERS))
            problem(answer_of(connection), 408, "too-slow")

    def test_byte_by_byte(self, peer: Peer) -> None:
        with peer.connect() as connection:
            connection.sendall(peer.head("POST", "/unlearn-requests", *self.HEADERS))
            problem(trickle(connection, b" " * 1000), 408, "too-slow")

    def test_byte_by_byte_where_nobody_reads_it(self, peer: Peer) -> None:
        """It is refused for its key at once; the connection does not stay open for what comes after."""
        head = peer.head("POST", "/unlearn-requests", *self.HEADERS).replace(peer.key.encode(), b"nobody's")
        with peer.connect() as connection:
            connection.sendall(head)
            assert connection.recv(65_536).startswith(b"HTTP/1.1 401")
            trickle(connection, b" " * 1000)

    def test_a_large_one_that_comes_steadily_may_take_longer(self, peer: Peer) -> None:
        body = b'{"name": "Ann", "class": "Personage"' + b" " * 40_000 + b"}"
        head = peer.head(
            "POST", "/unlearn-requests", "Content-Type: application/json", f"Content-Length: {len(body)}",
            "Connection: close",
        )  # fmt: skip
        with peer.connect() as connection:
            connection.sendall(head + body[:30_000])
            time.sleep(0.5)
            connection.sendall(body[30_000:])
            assert answer_of(connection).startswith(b"HTTP/1.1 202")


def test_an_answer_that_nobody_reads_is_given_up(peer: Peer) -> None:
    with peer.connect() as connection:
        connection.sendall(peer.head("GET", "/endless"))
        time.sleep(1.0)
        assert len(answer_of(connection)) < 50_000_000


def test_too_many_connections_are_refused_and_room_comes_back(peer: Peer) -> None:
    with contextlib.ExitStack() as held:
        others = [held.enter_context(peer.connect()) for _ in range(12)]
        answers = [answer_of(connection) for connection in others]
        refused = [answer for answer in answers if answer.startswith(b"HTTP/1.1 503")]
        assert len(refused) >= 6
        for answer in refused:
            problem(answer, 503, "unavailable")
    with peer.connect() as connection:
        connection.sendall(peer.head("GET", "/healthz", "Connection: close"))
        assert answer_of(connection).startswith(b"HTTP/1.1 200")


def test_a_slow_client_keeps_nobody_else_waiting(peer: Peer) -> None:
    with peer.connect(), peer.connect() as quick:
        quick.sendall(peer.head("GET", "/requests", "Connection: close"))
        assert answer_of(quick).startswith(b"HTTP/1.1 200")
