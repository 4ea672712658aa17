"""Brings a database to the newest schema. One process at a time, however many start together."""

from __future__ import annotations

from pathlib import Path

import psycopg
from alembic import command
from alembic.config import Config

MIGRATIONS = Path(__file__).resolve().parents[2] / "migrations"
_LOCK = 0x6C657468  # "leth": any number, as long as every process of ours uses the same


def migrate(database_url: str, revision: str = "head") -> None:
    """Upgrade the database at ``database_url`` to ``revision``, waiting for another migration to finish.

    Args:
        database_url: SQLAlchemy URL (``postgresql+psycopg://``).
        revision: Alembic revision; ``head`` is the newest.
    """
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("sqlalchemy.url", database_url.replace("%", "%%"))
    plain = database_url.replace("postgresql+psycopg://", "postgresql://", 1)
    with psycopg.connect(plain, autocommit=True, connect_timeout=10) as guard:
        guard.execute("SELECT pg_advisory_lock(%s)", (_LOCK,))
        command.upgrade(config, revision)
