"""Which revision the database has, and whether this code can work with it."""

from functools import lru_cache
from pathlib import Path

from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import text
from sqlalchemy.orm import Session

MIGRATIONS = Path(__file__).resolve().parents[2] / "migrations"


@lru_cache(maxsize=1)
def revisions() -> tuple[str, ...]:
    """Return the revisions that this code knows, the newest first."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    return tuple(script.revision for script in ScriptDirectory.from_config(config).walk_revisions())


def revision_of(session: Session) -> str | None:
    """Return the database's revision; None before the first migration."""
    if session.execute(text("SELECT to_regclass('alembic_version')")).scalar_one() is None:
        return None
    return session.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()


def too_old(revision: str | None) -> bool:
    """Tell whether the database lacks a migration of this code's.

    One that this code does not know is newer: a rolling upgrade, in which old processes go on.
    """
    return revision is None or revision in revisions()[1:]
