"""What every store promises, wherever it lies."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from app.kit.crypto import EvidenceCipher
from app.lumoe.errors import ExpertCorruptError, ExpertPathError
from app.lumoe.expertfiles import CONTENT, MANIFEST
from app.registry.store import ExpertStore, VersionTakenError
from app.settings import load_settings
from tests.lumoe.experts import as_format_1
from tests.registry.store.conftest import EXPERT, REQUEST, Written

PATH = f"{EXPERT}/1"
OUTSIDE = [
    "../elsewhere/1",
    "/etc/passwd",
    ".",
    "",
    "exp_1/../../x",
    "exp_1/..",
]


def cipher() -> EvidenceCipher:
    return load_settings(_env_file=None).evidence_cipher()


def publish(store: ExpertStore, source: Path, path: str = PATH) -> str:
    """Publish a folder; return its manifest's SHA-256."""
    sha256 = hashlib.sha256((source / MANIFEST).read_bytes()).hexdigest()
    store.publish(source, path)
    return sha256


class TestPublish:
    def test_is_read_by_others(self, store: ExpertStore, written: Written) -> None:
        assert not store.holds(PATH)
        sha256 = publish(store, written())
        assert store.holds(PATH)
        assert store.versions(EXPERT) == {1}
        for read in (store.load, store.inspect):
            loaded = read(PATH, cipher(), sha256)
            assert (loaded.key, loaded.request_id) == (f"{EXPERT}@1", REQUEST)
            assert list(loaded.adapter) == ["layer"]
        folder = store.folder(PATH, sha256)
        assert {file.name for file in folder.iterdir()} == {*CONTENT, MANIFEST}
        assert store.sealed_subject(PATH) == (folder / "subject.bin").read_bytes()

    def test_again_is_the_same(self, store: ExpertStore, written: Written) -> None:
        source = written()
        sha256 = publish(store, source)
        store.publish(source, PATH)
        assert store.load(PATH, cipher(), sha256).version == 1

    def test_what_an_older_release_wrote(self, store: ExpertStore, written: Written) -> None:
        source = written()
        as_format_1(source, cipher())
        sha256 = publish(store, source)
        for read in (store.load, store.inspect):
            assert read(PATH, cipher(), sha256).version == 1

    def test_never_over_another(self, store: ExpertStore, written: Written) -> None:
        sha256 = publish(store, written())
        with pytest.raises(VersionTakenError, match="versions never change"):
            store.publish(written(), PATH)
        assert store.inspect(PATH, cipher(), sha256).version == 1

    def test_not_what_is_damaged(self, store: ExpertStore, written: Written) -> None:
        source = written()
        (source / "gate.bin").write_bytes(b"x")
        with pytest.raises(ExpertCorruptError, match=r"gate\.bin does not match"):
            store.publish(source, PATH)
        assert not store.holds(PATH)

    def test_nor_with_files_that_are_not_an_experts(self, store: ExpertStore, written: Written) -> None:
        source = written()
        manifest = (source / MANIFEST).read_text().replace("adapter_config.json", "adapter_model.bin")
        (source / MANIFEST).write_text(manifest)
        with pytest.raises(ExpertCorruptError, match="not of format"):
            store.publish(source, PATH)


class TestRead:
    def test_what_is_not_there(self, store: ExpertStore) -> None:
        assert store.versions(EXPERT) == set()
        for read in (store.load, store.inspect):
            with pytest.raises(ExpertCorruptError, match=r"manifest\.json"):
                read(PATH, cipher(), "0" * 64)

    def test_another_manifest_than_is_on_record(self, store: ExpertStore, written: Written) -> None:
        publish(store, written())
        for read in (store.load, store.inspect):
            with pytest.raises(ExpertCorruptError, match="not the one that was published"):
                read(PATH, cipher(), "0" * 64)

    def test_another_key(self, store: ExpertStore, written: Written) -> None:
        sha256 = publish(store, written())
        with pytest.raises(ExpertCorruptError, match="LETHE_EVIDENCE_KEY"):
            store.load(PATH, EvidenceCipher(b"x" * 32), sha256)

    @pytest.mark.parametrize("path", OUTSIDE)
    def test_paths_that_lead_out(self, store: ExpertStore, written: Written, path: str) -> None:
        with pytest.raises(ExpertPathError, match="leaves the experts directory"):
            store.load(path, cipher(), "0" * 64)
        with pytest.raises(ExpertPathError):
            store.publish(written(), path)
        with pytest.raises(ExpertPathError):
            store.sealed_subject(path)


class TestRemove:
    def test_everything_of_one_expert(self, store: ExpertStore, written: Written) -> None:
        shas = [publish(store, written(version), f"{EXPERT}/{version}") for version in (1, 2)]
        other = f"{EXPERT}b/1"
        publish(store, written(), other)
        assert store.remove(EXPERT)
        assert not store.remove(EXPERT)
        assert store.versions(EXPERT) == set()
        with pytest.raises(ExpertCorruptError):
            store.load(PATH, cipher(), shas[0])
        assert store.holds(other)

    @pytest.mark.parametrize("expert_id", ["..", "", "exp_1/.."])
    def test_nothing_outside(self, store: ExpertStore, expert_id: str) -> None:
        with pytest.raises(ExpertPathError):
            store.remove(expert_id)
