"""Brings a database to the newest schema; processes that start together take turns."""

from __future__ import annotations

from alembic import command
from alembic.config import Config

from app.db.schema import MIGRATIONS


def migrate(database_url: str, revision: str = "head") -> None:
    """Upgrade the database at ``database_url`` to ``revision``.

    Args:
        database_url: SQLAlchemy URL (``postgresql+psycopg://``).
        revision: Alembic revision; ``head`` is the newest.
    """
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("sqlalchemy.url", database_url.replace("%", "%%"))
    command.upgrade(config, revision)
