"""A replica whose experts are at a URL: what it serves while the store is away, and afterwards."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from fsspec.implementations.memory import MemoryFileSystem

from app.chat.loader import ExpertLoader
from app.lumoe.errors import ExpertCorruptError
from app.main import create_app
from app.registry.store import StoreUnavailableError, open_store
from app.settings import Settings, load_settings
from tests.chat.test_interim import House
from tests.chat.test_loader import REQUEST, row
from tests.chat.test_vllm import Registry, checks, eventually

ABOUT_FIRST, ABOUT_SECOND = "Who is Korvane?", "Who is Mira Tovel?"


def away(*_: Any, **__: Any) -> Any:
    raise ConnectionRefusedError(111, "Connection refused")


@pytest.fixture
def elsewhere(chat_settings: Settings) -> Settings:
    own = {"max_pictures": 16, "experts_url": f"memory://{uuid.uuid4().hex}/experts"}
    return chat_settings.model_copy(update=own)


@pytest.fixture
def house(elsewhere: Settings) -> Iterator[House]:
    with TestClient(create_app(elsewhere)) as client:
        yield House(client, elsewhere)


def test_while_it_is_away(house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cat_file = MemoryFileSystem.cat_file
    gone = [False]

    def sometimes(*arguments: Any, **named: Any) -> Any:
        return away() if gone[0] and "manifest" in arguments[1] else cat_file(*arguments, **named)

    monkeypatch.setattr(MemoryFileSystem, "cat_file", sometimes)
    made = house.settings.model_copy(update={"experts_dir": tmp_path / "made"})
    registry = Registry(house.client, house.sessions, made)
    first = registry.file()
    house.protected(first)
    ref = registry.write(first, house.engine.mllm, tmp_path / "adapter")
    open_store(house.settings).publish(tmp_path / "made" / ref.path, ref.path)
    open_store(house.settings).keep_only(())  # no copy on this machine

    gone[0] = True
    generation = registry.publish(first, ref)
    assert eventually(lambda: checks(house.client)["registry"] != "ok")
    assert house.refuses(ABOUT_FIRST), "as before"
    assert not house.refuses(ABOUT_SECOND)
    house.file("Mira Tovel")
    assert eventually(lambda: house.refuses(ABOUT_SECOND)), "approved since, protected all the same"
    assert house.ask(ABOUT_FIRST)["routing"]["answered_by"] == ref.expert_id
    assert not registry.acknowledged(generation)

    gone[0] = False
    assert eventually(lambda: registry.acknowledged(generation))
    assert eventually(lambda: checks(house.client)["registry"] == "ok")
    assert ref.expert_id in house.engine.local.router.experts


class TestStart:
    def test_while_it_is_away(
        self, elsewhere: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with TestClient(create_app(elsewhere)) as client:
            house = House(client, elsewhere)
            made = elsewhere.model_copy(update={"experts_dir": tmp_path / "made"})
            registry = Registry(client, house.sessions, made)
            request_id = registry.file()
            ref = registry.write(request_id, house.engine.mllm, tmp_path / "adapter")
            open_store(elsewhere).publish(tmp_path / "made" / ref.path, ref.path)
            registry.publish(request_id, ref)
        fresh = elsewhere.model_copy(update={"experts_dir": tmp_path / "another-machine"})
        with monkeypatch.context() as down:
            down.setattr(MemoryFileSystem, "cat_file", away)
            with TestClient(create_app(fresh)) as client:
                house = House(client, fresh)
                assert client.get("/readyz").status_code == 503
                body = {"messages": [{"role": "user", "content": ABOUT_FIRST}]}
                assert client.post("/chat", headers=house.key, json=body).status_code == 503
                down.undo()
                assert eventually(lambda: client.get("/readyz").status_code == 200)
                assert ref.expert_id in house.engine.local.router.experts


class TestLoader:
    @pytest.fixture
    def settings(self, tmp_path: Path) -> Settings:
        url = f"memory://{uuid.uuid4().hex}/experts"
        return load_settings(_env_file=None, experts_dir=url, experts_cache=tmp_path / "cache")

    def test_fetches_once_and_keeps(
        self, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        found = row(settings, tmp_path / "made")
        open_store(settings).publish(tmp_path / "made" / found.path, found.path)
        cipher = settings.evidence_cipher()
        loader = ExpertLoader(settings, cipher)
        assert loader.load([found])[0].request_id == REQUEST
        monkeypatch.setattr(MemoryFileSystem, "cat_file", away)
        assert loader.load([found])[0].request_id == REQUEST
        assert ExpertLoader(settings, settings.evidence_cipher()).load([found])[0].request_id == REQUEST, (
            "from this machine's copy"
        )
        assert loader.load([]) == []
        with pytest.raises(StoreUnavailableError):
            ExpertLoader(settings, cipher).load([found])

    def test_files_are_there_for_whoever_writes(self, settings: Settings, tmp_path: Path) -> None:
        """vLLM reads a version's files again and again, from the place that it was told."""
        own = settings.model_copy(update={"engine": "vllm"})
        found = row(own, tmp_path / "made")
        open_store(own).publish(tmp_path / "made" / found.path, found.path)
        loader = ExpertLoader(own, own.evidence_cipher())
        (loaded,) = loader.load([found])
        assert loaded.adapter == {}
        open_store(own).keep_only(())
        assert not (own.experts_dir / found.path).exists()
        loader.load([found])
        assert (own.experts_dir / found.path / "adapter_model.safetensors").exists()

    @pytest.mark.parametrize("path", ["../elsewhere/1", "/etc/passwd", "exp_1", "s3://other/exp_1/1"])
    def test_paths_that_lead_out(self, settings: Settings, tmp_path: Path, path: str) -> None:
        with pytest.raises(ExpertCorruptError, match="leaves the experts directory"):
            ExpertLoader(settings, settings.evidence_cipher()).load([row(settings, tmp_path / "made", path)])
