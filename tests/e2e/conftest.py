"""The whole embedded stack, started once per run on free ports."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.client import Client
from app.embedded.home import Home
from app.embedded.supervisor import Stack
from app.lumoe.mllm import MLLM

THREADS = {name: str(os.cpu_count() or 1) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
"""The children do the work here, one at a time: they get the cores that the tests leave alone."""


@pytest.fixture(scope="session")
def stack(server_directory: Path) -> Iterator[Stack]:
    """Postgres, Valkey, API and worker, with a home of their own."""
    with Stack(Home(server_directory / "stack"), port=0, environment=THREADS) as running:
        yield running


@pytest.fixture(scope="session")
def owner(stack: Stack) -> Iterator[Client]:
    """A client that files requests."""
    with Client(stack.url, stack.keys["owner"]) as client:
        yield client


@pytest.fixture(scope="session")
def chat(stack: Stack) -> Iterator[Client]:
    """A client that asks."""
    with Client(stack.url, stack.keys["chat"]) as client:
        yield client


@pytest.fixture(scope="session")
def unwrapped() -> MLLM:
    """The same base model without anything around it."""
    return MLLM.load("demo", "cpu")
