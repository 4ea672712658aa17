"""A real server on loopback in a thread, as `app.serve` starts it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from app.api.connections import server_options
from app.settings import Settings


@contextmanager
def serving(app: FastAPI, settings: Settings) -> Iterator[int]:
    """Serve `app` with the limits of `settings`; yields the port."""
    with socket.socket(proto=socket.IPPROTO_TCP) as listening:  # asyncio then sets TCP_NODELAY
        listening.bind(("127.0.0.1", 0))
        config = uvicorn.Config(
            app, log_level="critical", timeout_graceful_shutdown=2, **server_options(settings)
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        yield listening.getsockname()[1]
        server.should_exit = True
        thread.join(timeout=30)
