"""A TCP proxy on loopback that can fall silent, cut its connections, and change what is behind it."""

from __future__ import annotations

import contextlib
import socket
import threading

_CHUNK = 65_536


class TcpProxy:
    """Listens on a port that stays the same whatever becomes of the server behind it.

    Silent, it is half-open: it accepts connections and bytes, and nothing ever comes back. A connection that
    was silent once stays so.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.silent = False
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()

    def cut(self) -> None:
        """Close every connection there is."""
        with self._lock:
            ends, self._open = self._open, set()
        for end in ends:
            _close(end)

    def close(self) -> None:
        _close(self._listener)
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self.target), timeout=5)
            except OSError:
                _close(client)
                continue
            server.settimeout(None)
            with self._lock:
                self._open |= {client, server}
            silenced = threading.Event()
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._pump, args=(source, sink, silenced), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, silenced: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while content := source.recv(_CHUNK):
                if self.silent:
                    silenced.set()
                if not silenced.is_set():
                    sink.sendall(content)
        if not silenced.is_set():
            _close(source)
            _close(sink)
            with self._lock:
                self._open -= {source, sink}


def _close(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
