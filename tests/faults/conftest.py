from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.embedded.postgres import EmbeddedPostgres
from tests.faults.house import House, OwnHouse


@pytest.fixture(scope="package")
def house(postgres: EmbeddedPostgres, server_directory: Path) -> Iterator[House]:
    """A house on the run's Postgres."""
    name = f"faults_{uuid.uuid4().hex}"
    postgres.clone_database(name, "lethe_template")
    made = House(postgres.url(name), server_directory / name)
    yield made
    made.close()
    postgres.drop_database(name)


@pytest.fixture(scope="package")
def own_house(server_directory: Path) -> Iterator[House]:
    """A house whose Postgres may be ended, too."""
    made = OwnHouse.build(server_directory / "faults")
    yield made
    made.close()
