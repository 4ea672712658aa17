"""The pipeline with experts at a URL: published with the manifest last, retried while the store is away."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from app.lumoe.expertfiles import MANIFEST
from app.lumoe.mllm import MLLM
from app.registry.service import RegistryService
from app.registry.store.objects import ObjectStore
from app.removal.erasure import erase_files
from app.removal.states import State
from tests.service import Service, own_settings, service, sessions  # noqa: F401
from tests.workers.pipeline_world import PipelineWorld, build_world
from workers.runtime import Runtime

ALL = ["prepare", "train", "calibrate", "measure"]


@pytest.fixture
def world(
    service: Service,  # noqa: F811
    tiny: MLLM,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> PipelineWorld:
    url = f"memory://{uuid.uuid4().hex}/experts"
    service.settings = service.settings.model_copy(update={"experts_url": url})
    return build_world(service, tiny, monkeypatch, tmp_path / "machine-1")


def another_machine(world: PipelineWorld, name: str = "machine-2") -> None:
    """Go on with a worker that shares nothing but SQL and the store."""
    settings = world.runtime.settings
    own = settings.model_copy(update={"experts_dir": settings.experts_dir.parent / name})
    world.runtime = Runtime.start(own, world.runtime.mllm)


def store_of(world: PipelineWorld) -> ObjectStore:
    store = world.runtime.store
    assert isinstance(store, ObjectStore)
    return store


def expert_of(request_id: str) -> str:
    return request_id.replace("req_", "exp_")


def objects(world: PipelineWorld) -> set[str]:
    """Return the names of all objects."""
    url = store_of(world).url
    return {path.rpartition("/experts/")[2] for path in fsspec.filesystem("memory").find(url)}


def away(*_: Any, **__: Any) -> Any:
    raise ConnectionRefusedError(111, "Connection refused")


class TestPublish:
    def test_request_becomes_active_and_is_erased(self, world: PipelineWorld) -> None:
        request_id = world.file()
        with world.replica():
            assert world.process(request_id) is State.ACTIVE
        assert {name.rpartition("/")[0] for name in objects(world)} == {f"{expert_of(request_id)}/1"}
        assert len(objects(world)) == 5
        assert world.work_files(request_id) == set()
        with world.service.sessions() as session:
            (row,) = RegistryService(session, world.service.settings).live_experts()
        another_machine(world)
        loaded = world.runtime.store.load(row.path, world.runtime.cipher, row.manifest_sha256)
        assert loaded.request_id == request_id
        work = world.runtime.experts_dir / ".work" / request_id
        work.mkdir(parents=True)
        assert erase_files(world.runtime.settings, request_id) == [
            expert_of(request_id),
            f".work/{request_id}",
        ]
        assert objects(world) == set()
        assert not (world.runtime.experts_dir / expert_of(request_id)).exists()
        assert not work.exists()
        assert erase_files(world.runtime.settings, request_id) == []

    def test_worker_dies_between_two_files(
        self, world: PipelineWorld, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        request_id, left = world.file(), 3
        create = ObjectStore._create

        def dies(*arguments: Any) -> None:
            nonlocal left
            if not left:
                raise MemoryError
            left -= 1
            create(*arguments)

        with monkeypatch.context() as dying:
            dying.setattr(ObjectStore, "_create", dies)
            assert world.process(request_id) is State.PUBLISHING
        assert not any(name.endswith(MANIFEST) for name in objects(world))
        with world.replica():
            assert world.process(request_id) is State.ACTIVE
        assert world.ran == ALL, "the next attempt takes over what is there"
        assert len(objects(world)) == 5

    def test_worker_dies_for_good(self, world: PipelineWorld, monkeypatch: pytest.MonkeyPatch) -> None:
        """Another machine has neither work nor candidate: it does all again, under the next number."""
        request_id, create = world.file(), ObjectStore._create

        def dies(store: ObjectStore, path: str, name: str, content: bytes) -> None:
            if name == MANIFEST:
                raise MemoryError
            create(store, path, name, content)

        with monkeypatch.context() as dying:
            dying.setattr(ObjectStore, "_create", dies)
            world.process(request_id)
        another_machine(world)
        with world.replica():
            assert world.process(request_id) is State.ACTIVE
        assert world.ran == ALL * 2
        assert {name.rpartition("/")[0] for name in objects(world)} == {f"{expert_of(request_id)}/2"}, (
            "and deletes what the first one left"
        )

    def test_another_attempt_has_taken_the_number(
        self, world: PipelineWorld, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A late writer whose lease is lost has put a file where ours was to go."""
        request_id = world.file()
        create = ObjectStore._create

        def late(store: ObjectStore, path: str, name: str, content: bytes) -> None:
            if path.endswith("/1") and name == "gate.bin":
                fs = fsspec.filesystem("memory")
                fs.pipe_file(f"{store.url.removeprefix('memory:/')}/{path}/{name}", b"the other's")
            create(store, path, name, content)

        monkeypatch.setattr(ObjectStore, "_create", late)
        with world.replica():
            assert world.process(request_id) is State.PUBLISHING
            assert world.process(request_id) is State.ACTIVE
        assert world.ran == [*ALL, "calibrate", "measure"]
        assert f"{expert_of(request_id)}/2/{MANIFEST}" in objects(world)
        assert not any(name.startswith(f"{expert_of(request_id)}/1/") for name in objects(world))

    def test_object_damaged_before_the_registry_knew(
        self, world: PipelineWorld, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        request_id = world.file()
        with monkeypatch.context() as broken:
            broken.setattr(RegistryService, "publish", away)
            assert world.process(request_id) is State.PUBLISHING
        shutil.rmtree(world.runtime.experts_dir / expert_of(request_id))
        root = store_of(world).url.removeprefix("memory:/")
        fsspec.filesystem("memory").pipe_file(f"{root}/{expert_of(request_id)}/1/subject.bin", b"x")
        with world.replica():
            assert world.process(request_id) is State.ACTIVE
        with world.service.sessions() as session:
            (row,) = RegistryService(session, world.service.settings).live_experts()
        assert row.version == 2
        world.runtime.store.inspect(row.path, world.runtime.cipher, row.manifest_sha256)


class TestStoreAway:
    def test_for_all_attempts_waits_for_a_person(
        self, world: PipelineWorld, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        request_id = world.file()
        with monkeypatch.context() as down:
            down.setattr(MemoryFileSystem, "pipe_file", away)
            states = world.attempts(request_id, 4)
        assert states == [State.PUBLISHING, State.PUBLISHING, State.NEEDS_ATTENTION, None]
        row = world.row(request_id)
        assert (row.reason_code, "memory" in str(row.reason)) == ("store_unavailable", False)
        world.service.post(f"/requests/{request_id}/retry", world.service.operator)
        with world.replica():
            assert world.process(request_id) is State.ACTIVE
        assert world.ran == ALL, "nothing was lost"

    def test_refuses(self, world: PipelineWorld, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuses(*_: Any, **__: Any) -> None:
            raise PermissionError("arn:aws:iam::1:user/x is not authorized")

        request_id = world.file()
        with monkeypatch.context() as refusing:
            refusing.setattr(MemoryFileSystem, "pipe_file", refuses)
            assert world.process(request_id) is State.NEEDS_ATTENTION
        row = world.row(request_id)
        assert (row.reason_code, "arn" in str(row.reason)) == ("configuration", False)
        world.service.post(f"/requests/{request_id}/retry", world.service.operator)
        with world.replica():
            assert world.process(request_id) is State.ACTIVE
