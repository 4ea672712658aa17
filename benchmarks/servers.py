"""Postgres and Valkey for one benchmark, with the schema, below a directory of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.embedded.migrate import migrate
from app.embedded.postgres import EmbeddedPostgres
from app.embedded.valkey import EmbeddedValkey


@contextmanager
def servers(folder: Path) -> Iterator[tuple[str, str]]:
    """Start both in `folder` and yield the URLs of a migrated database and of the broker."""
    postgres = EmbeddedPostgres(folder / "postgres", password="bench", log=folder / "postgres.log")  # noqa: S106
    valkey = EmbeddedValkey(folder / "valkey", password="bench", log=folder / "valkey.log")  # noqa: S106
    postgres.start()
    valkey.start()
    try:
        postgres.ensure_database("bench")
        url = postgres.url("bench")
        migrate(url)
        yield url, valkey.url()
    finally:
        valkey.stop()
        postgres.stop()
