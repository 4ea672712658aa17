"""Runs migrations against `LETHE_DATABASE_URL` (or the URL that a caller put into the configuration)."""

from alembic import context
from sqlalchemy import create_engine, pool, text

from app.db import models  # noqa: F401  fills Base.metadata
from app.db.base import Base
from app.db.session import CLIENT_ENCODING
from app.settings import load_settings

_MIGRATION_LOCK = 0x4C4554484D  # two processes that start together migrate one after the other


def _url() -> str:
    given = context.config.get_main_option("sqlalchemy.url")
    return load_settings(database_url=given).database_url if given else load_settings().database_url


def _offline() -> None:
    context.configure(url=_url(), target_metadata=Base.metadata, literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()


def _online() -> None:
    engine = create_engine(_url(), poolclass=pool.NullPool, connect_args=CLIENT_ENCODING)
    with engine.connect() as connection:
        context.configure(
            connection=connection,
            target_metadata=Base.metadata,
            compare_type=True,
            compare_server_default=True,
        )
        with context.begin_transaction():
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
            context.run_migrations()
    engine.dispose()


if context.is_offline_mode():
    _offline()
else:
    _online()
