"""Real servers for every test that needs one: one Postgres and one Valkey per run, throw-away data in them.

Fixtures:
    postgres, valkey         the running servers (session)
    database                 URL of a migrated database of this test's own, dropped afterwards
    empty_database           URL of an empty database of this test's own, dropped afterwards
    postgres_url             URL of a migrated database shared by all tests that roll back (session)
    redis_url                URL of an empty Redis database
    settings                 Settings on postgres_url and redis_url, with directories of the test's own
    own_environment          restores the environment (every test)
    engine, db_session       SQLAlchemy engine and a session on postgres_url; rolled back, commits included
"""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from app.db.session import create_engine_from
from app.embedded.migrate import migrate
from app.embedded.postgres import EmbeddedPostgres
from app.embedded.valkey import EmbeddedValkey
from app.settings import Settings, load_settings

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")  # before a test imports torch; two cores are soon oversubscribed
for _name in [name for name in os.environ if name.startswith("LETHE_")]:
    del os.environ[_name]  # a developer's own settings must not reach the tests
os.environ["HF_HUB_OFFLINE"] = "1"

_TEMPLATE = "lethe_template"
_SHARED = "lethe_shared"
_numbers = itertools.count()


@pytest.fixture(autouse=True)
def own_environment() -> Iterator[None]:
    """What a test (or a command that it calls in this process) sets in the environment ends with it."""
    before = dict(os.environ)
    yield
    if os.environ != before:
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture(scope="session")
def server_directory() -> Iterator[Path]:
    """A short-named directory for the servers' data, removed at the end."""
    directory = Path(tempfile.mkdtemp(prefix="lethe-tests-"))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres(server_directory: Path) -> Iterator[EmbeddedPostgres]:
    """One Postgres for the run, with a migrated template database."""
    server = EmbeddedPostgres(
        server_directory / "postgres", password="test", log=server_directory / "postgres.log", durable=False
    )
    server.start()
    try:
        server.ensure_database(_TEMPLATE)
        migrate(server.url(_TEMPLATE))
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def valkey(server_directory: Path) -> Iterator[EmbeddedValkey]:
    """One Valkey for the run."""
    server = EmbeddedValkey(
        server_directory / "valkey", password="test", log=server_directory / "valkey.log", durable=False
    )
    server.start()
    yield server
    server.stop()


@pytest.fixture
def database(postgres: EmbeddedPostgres) -> Iterator[str]:
    """URL of a migrated database of the test's own: for several connections, processes, or commits."""
    name = f"test_{next(_numbers)}"
    postgres.clone_database(name, _TEMPLATE)
    yield postgres.url(name)
    postgres.drop_database(name)


@pytest.fixture
def empty_database(postgres: EmbeddedPostgres) -> Iterator[str]:
    """URL of a database without tables: for migrations."""
    name = f"test_{next(_numbers)}"
    postgres.ensure_database(name)
    yield postgres.url(name)
    postgres.drop_database(name)


@pytest.fixture(scope="session")
def postgres_url(postgres: EmbeddedPostgres) -> str:
    """URL of one migrated database for every test that rolls back."""
    postgres.clone_database(_SHARED, _TEMPLATE)
    return postgres.url(_SHARED)


@pytest.fixture
def redis_url(valkey: EmbeddedValkey) -> str:
    """URL of a Redis database that is empty when the test starts."""
    url = valkey.url(1 + next(_numbers) % 60)
    with redis.Redis.from_url(url) as client:
        client.flushdb()
    return url


@pytest.fixture
def settings(postgres_url: str, redis_url: str, tmp_path: Path) -> Settings:
    """Settings of a development process on the test servers, on the CPU."""
    return load_settings(
        _env_file=None,
        database_url=postgres_url,
        redis_url=redis_url,
        experts_dir=tmp_path / "experts",
        device="cpu",
    )


@pytest.fixture(scope="session")
def engine(postgres_url: str) -> Iterator[Engine]:
    """The SQLAlchemy engine on the shared database, as the service configures it."""
    engine = create_engine_from(load_settings(_env_file=None, database_url=postgres_url), connections=10)
    yield engine
    engine.dispose()


@pytest.fixture
def db_session(engine: Engine) -> Iterator[Session]:
    """A session inside a transaction that is rolled back; the code under test may commit."""
    with engine.connect() as connection, connection.begin() as transaction:
        with Session(connection, expire_on_commit=False, join_transaction_mode="create_savepoint") as session:
            yield session
        transaction.rollback()
