"""Stores of every kind, each empty: a directory, fsspec's memory, and a real S3 server in this process."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.registry.store import ExpertStore, open_store
from app.registry.store.objects import ObjectStore
from app.settings import Settings, load_settings
from tests.doctor.files import write
from tests.registry.store.s3 import S3

REQUEST = "req_" + "a" * 32
EXPERT = "exp_" + "a" * 32


@pytest.fixture(scope="session")
def s3() -> Iterator[S3]:
    for module in ("s3fs", "flask_cors", "moto.moto_server.werkzeug_app"):
        pytest.importorskip(module, reason="needs s3fs, moto[s3], flask and flask-cors: the extra `dev`")
    server = S3()
    yield server
    server.stop()


@pytest.fixture(params=["directory", "memory", "s3"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    """Settings with an empty store of each kind."""
    return settings_for(request.param, request, tmp_path)


def settings_for(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    own: dict[str, object] = {"experts_cache": tmp_path / "cache", "_env_file": None}
    if kind == "directory":
        return load_settings(experts_dir=tmp_path / "experts", **own)
    if kind == "memory":
        return load_settings(experts_dir=f"memory://{uuid.uuid4().hex}/experts", **own)
    server: S3 = request.getfixturevalue("s3")
    server.start()
    options = json.dumps(server.options)
    return load_settings(experts_dir=f"s3://{server.new_bucket()}/experts", experts_options=options, **own)


@pytest.fixture
def store(settings: Settings) -> ExpertStore:
    return open_store(settings)


@pytest.fixture(params=["memory", "s3"])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    """A store that is not a directory."""
    found = open_store(settings_for(request.param, request, tmp_path))
    assert isinstance(found, ObjectStore)
    return found


Written = Callable[..., Path]


@pytest.fixture
def written(tmp_path: Path) -> Written:
    """Write a whole expert version in work, and return its folder; every call's files differ."""

    def run(version: int = 1) -> Path:
        own = load_settings(_env_file=None)
        root = tmp_path / "work" / uuid.uuid4().hex
        return root / write(root, REQUEST, own, version).path

    return run
