"""A small round-robin proxy: each request goes to the next replica that says it is ready."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx

_CHECK_SECONDS = 0.2


class Balancer:
    """Listens on loopback until `close`. `ports` may be changed at any time.

    Attributes:
        answered: how many requests each replica has answered, by its port.
    """

    def __init__(self, ports: Sequence[int]) -> None:
        self.ports = list(ports)
        self.answered: Counter[int] = Counter()
        self._ready: list[int] = []
        self._next = 0
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._client = httpx.Client(trust_env=False, timeout=30)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        for loop in (self._server.serve_forever, self._check):
            threading.Thread(target=loop, name="balancer", daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self._ended.set()
        self._server.shutdown()
        self._server.server_close()

    def _check(self) -> None:
        while not self._ended.wait(_CHECK_SECONDS):
            self._ready = [port for port in list(self.ports) if is_ready(port)]

    def _choose(self) -> int | None:
        with self._lock:
            self._next += 1
            ready = self._ready
            return ready[self._next % len(ready)] if ready else None

    def _forward(self, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
        port = self._choose()
        if port is None:
            return 503, b"{}"
        try:
            answer = self._client.request(
                method, f"http://127.0.0.1:{port}{path}", headers=headers, content=body
            )
        except httpx.TransportError:
            return 502, b"{}"
        self.answered[port] += 1
        return answer.status_code, answer.content

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        forward = self._forward

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                kept = {
                    name: self.headers[name]
                    for name in ("Authorization", "Content-Type")
                    if name in self.headers
                }
                status, content = forward("POST", self.path, kept, body)
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        return Handler


def is_ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz", trust_env=False, timeout=5).is_success
    except httpx.TransportError:
        return False
