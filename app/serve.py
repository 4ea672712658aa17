"""The API process: the application behind the HTTP server with its limits.

python -m app.serve --host 127.0.0.1 --port 8000
"""

import argparse
from collections.abc import Sequence

import uvicorn

from app.api.connections import server_options
from app.settings import get_settings


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until SIGTERM or Ctrl-C, and finish what is being answered."""
    parser = argparse.ArgumentParser(prog="python -m app.serve", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument(
        "--grace", type=int, default=10, help="seconds for running answers when it is stopped"
    )
    given = parser.parse_args(arguments)
    uvicorn.run(
        "app.main:create_app",
        factory=True,
        host=given.host,
        port=given.port,
        timeout_graceful_shutdown=given.grace,
        **server_options(get_settings()),
    )


if __name__ == "__main__":
    main()
