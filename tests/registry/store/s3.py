"""A real S3 server in this process (moto's), which can be stopped and started with what it holds."""

from __future__ import annotations

import uuid
from threading import Thread
from typing import Any

import fsspec

from app.embedded.process import free_port


class S3:
    """The server. What it holds outlives a stop, as a real one's would."""

    def __init__(self) -> None:
        self.port = free_port()
        self._server: Any = None

    @property
    def options(self) -> dict[str, Any]:
        """What LETHE_EXPERTS_OPTIONS has to say."""
        return {"endpoint_url": f"http://127.0.0.1:{self.port}", "key": "test", "secret": "test"}

    def start(self) -> None:
        if self._server is not None:
            return
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import WSGIRequestHandler, make_server

        class Quiet(WSGIRequestHandler):
            def log(self, type: str, message: str, *args: object) -> None:
                pass

        app = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", self.port, app, threaded=True, request_handler=Quiet)
        Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    @property
    def raw(self) -> Any:
        """Its objects, past the store."""
        return fsspec.filesystem("s3", use_listings_cache=False, **self.options)

    def new_bucket(self) -> str:
        name = f"bucket-{uuid.uuid4().hex[:12]}"
        self.raw.mkdir(name)
        return name
