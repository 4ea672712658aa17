"""Migrations: up, down, up again, and nothing that the models have and they do not."""

from pathlib import Path
from uuid import uuid4

from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, inspect, text

import app
from app.db import models
from app.db.base import Base
from app.db.session import create_engine_from
from app.embedded.migrate import migrate
from app.embedded.postgres import EmbeddedPostgres
from app.settings import load_settings

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


def test_server_without_a_locale(empty_database: str, postgres: EmbeddedPostgres) -> None:
    """Such a server's databases are SQL_ASCII unless somebody says otherwise."""
    name = f"ascii_{uuid4().hex}"
    engine = create_engine(empty_database, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name} ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0"))
    engine.dispose()
    migrate(postgres.url(name))
    engine = create_engine_from(load_settings(_env_file=None, database_url=postgres.url(name)))
    with engine.connect() as connection:
        assert connection.execute(text("SELECT 'é'")).scalar() == "é"
    engine.dispose()


def test_requests_under_way_are_protected_by_the_upgrade(empty_database: str) -> None:
    """Approved ones without a live expert, in one new generation that keeps the experts of the newest."""
    config = _config(empty_database)
    command.upgrade(config, "0001")
    engine = create_engine(empty_database)
    states = {"queued": "{}", "failed": "{}", "active": "{}", "in_review": None, "cancelled": "{}"}
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO tenants (id, name) VALUES ('ten', 'acme')"))
        connection.execute(
            text(
                "INSERT INTO api_keys (id, tenant_id, name, prefix, key_hash, scopes) "
                "VALUES ('key', 'ten', 'k', 'p', 'h', '{}')"
            )
        )
        for state, policy in states.items():
            connection.execute(
                text(
                    "INSERT INTO removal_requests (id, tenant_id, created_by, state, klass, legal_ground, "
                    "subject_token, expected_by, policy) "
                    "VALUES (:state, 'ten', 'key', :state, 'Plants', 'other', :state, now(), :policy)"
                ),
                {"state": state, "policy": policy},
            )
        connection.execute(
            text(
                "INSERT INTO experts (id, version, request_id, path, manifest_sha256, bytes) "
                "VALUES ('exp', 1, 'active', 'p', 'h', 1)"
            )
        )
        connection.execute(text("INSERT INTO generations (number, cause) VALUES (4, 'publish')"))
        connection.execute(text("INSERT INTO generation_experts VALUES (4, 'exp', 1)"))
    command.upgrade(config, "head")
    with engine.begin() as connection:
        interims = connection.execute(
            text("SELECT request_id, from_generation, until_generation FROM interim_protections ORDER BY 1")
        ).all()
        experts = connection.execute(text("SELECT * FROM generation_experts ORDER BY 1")).all()
    assert [tuple(row) for row in interims] == [("failed", 5, None), ("queued", 5, None)]
    assert [tuple(row) for row in experts] == [("exp", 1, 4, None)]
    command.downgrade(config, "0001")
    command.upgrade(config, "head")
    engine.dispose()


def test_rows_of_generations_become_spans_and_rows_again(empty_database: str) -> None:
    """With an expert that was out for a while, one that ended, one that came last, and a number left out."""
    config = _config(empty_database)
    command.upgrade(config, "0008")
    engine = create_engine(empty_database)
    members = {1: "a", 2: "ab", 3: "b", 5: "abc"}
    rows = [(n, f"exp_{name}", 1) for n, names in members.items() for name in names]
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO generations (number, cause) VALUES (4, 'rollback')"))
        for number in members:
            connection.execute(
                text("INSERT INTO generations (number, cause) VALUES (:n, 'publish')"), {"n": number}
            )
        for row in rows:
            statement = text("INSERT INTO generation_experts VALUES (:n, :id, :v)")
            connection.execute(statement, dict(zip(("n", "id", "v"), row, strict=True)))
        connection.execute(text("DELETE FROM generations WHERE number = 4"))
    command.upgrade(config, "head")
    with engine.begin() as connection:
        spans = connection.execute(text("SELECT * FROM generation_experts ORDER BY expert_id, 3")).all()
        sizes = connection.execute(text("SELECT number, experts FROM generations ORDER BY 1")).all()
    assert [tuple(row) for row in spans] == [
        ("exp_a", 1, 1, 3), ("exp_a", 1, 5, None), ("exp_b", 1, 2, None), ("exp_c", 1, 5, None),
    ]  # fmt: skip
    assert [tuple(row) for row in sizes] == [(1, 1), (2, 2), (3, 1), (5, 3)]
    command.downgrade(config, "0008")
    with engine.begin() as connection:
        again = connection.execute(text("SELECT * FROM generation_experts ORDER BY 1, 2")).all()
    assert [tuple(row) for row in again] == rows
    engine.dispose()


def test_models_and_migrations_agree(database: str) -> None:
    command.check(_config(database))


def test_every_constraint_has_a_name_and_there_are_no_relationships() -> None:
    for table in Base.metadata.tables.values():
        assert all(constraint.name for constraint in table.constraints)
    for mapper in Base.registry.mappers:
        assert not mapper.relationships
    assert models.RemovalRequest.__tablename__ == "removal_requests"
