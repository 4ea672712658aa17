"""Migrations: up, down, up again, and nothing that the models have and they do not."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, inspect

import app
from app.db import models
from app.db.base import Base

ROOT = Path(app.__file__).parents[1]


def _config(url: str) -> Config:
    config = Config(str(ROOT / "alembic.ini"))
    config.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
    return config


def _tables(url: str) -> dict[str, list[tuple[str, str, bool]]]:
    engine = create_engine(url)
    inspector = inspect(engine)
    found = {
        table: sorted((c["name"], str(c["type"]), c["nullable"]) for c in inspector.get_columns(table))
        for table in inspector.get_table_names()
        if table != "alembic_version"
    }
    engine.dispose()
    return found


def test_up_down_up(empty_database: str) -> None:
    config = _config(empty_database)
    command.upgrade(config, "head")
    first = _tables(empty_database)
    assert set(first) == set(Base.metadata.tables)
    command.downgrade(config, "base")
    assert _tables(empty_database) == {}
    command.upgrade(config, "head")
    assert _tables(empty_database) == first


def test_models_and_migrations_agree(database: str) -> None:
    command.check(_config(database))


def test_every_constraint_has_a_name_and_there_are_no_relationships() -> None:
    for table in Base.metadata.tables.values():
        assert all(constraint.name for constraint in table.constraints)
    for mapper in Base.registry.mappers:
        assert not mapper.relationships
    assert models.RemovalRequest.__tablename__ == "removal_requests"
