"""Stores without a rename: writers that die, damaged objects and copies, stores that are away."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest

from app.lumoe.errors import ExpertCorruptError, ExpertPathError
from app.lumoe.expertfiles import CONTENT, MANIFEST
from app.registry.store import StoreRefusedError, StoreUnavailableError, VersionTakenError, open_store
from app.registry.store.objects import ObjectStore
from app.settings import load_settings
from tests.registry.store.conftest import EXPERT, Written
from tests.registry.store.s3 import S3
from tests.registry.store.test_store import PATH, cipher, publish

FILES = [*CONTENT, MANIFEST]
DAMAGES = ["flipped", "half", "empty", "longer", "gone"]
KILLED = """
import json, os, signal, sys
from pathlib import Path
from app.registry.store.objects import ObjectStore
url, options, source, path, left = sys.argv[1:]
left = int(left)
store = ObjectStore(url, json.loads(options), cache=Path(source + "-cache"), cache_bytes=2**30)
create = store._create
def counted(*arguments):
    global left
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    create(*arguments)
store._create = counted
store.publish(Path(source), path)
"""


def raw(store: ObjectStore) -> tuple[Any, str]:
    """Return the file system, and where the version at `PATH` lies in it."""
    fs, root = fsspec.core.url_to_fs(store.url, **store._options)
    fs.invalidate_cache()
    return fs, f"{root}/{PATH}"


def damage(store: ObjectStore, name: str, change: Callable[[bytes], bytes]) -> None:
    """Change an object past the store."""
    fs, at = raw(store)
    fs.pipe_file(f"{at}/{name}", change(fs.cat_file(f"{at}/{name}")))


def flipped(content: bytes) -> bytes:
    return content[:-3] + bytes([content[-3] ^ 1]) + content[-2:]


class TestWriterThatDies:
    @pytest.mark.parametrize("done", range(len(FILES)))
    def test_between_two_files(
        self, objects: ObjectStore, written: Written, monkeypatch: pytest.MonkeyPatch, done: int
    ) -> None:
        source, create, left = written(), objects._create, done

        def dies(*arguments: Any) -> None:
            nonlocal left
            if not left:
                raise KeyboardInterrupt
            left -= 1
            create(*arguments)

        with monkeypatch.context() as dying:
            dying.setattr(objects, "_create", dies)
            with pytest.raises(KeyboardInterrupt):
                objects.publish(source, PATH)
        assert not objects.holds(PATH), "without a manifest there is no version"
        assert objects.versions(EXPERT) == ({1} if done else set()), "but its number is taken"
        with pytest.raises(ExpertCorruptError, match="no such version"):
            objects.load(PATH, cipher(), "0" * 64)
        sha256 = publish(objects, source)
        assert objects.load(PATH, cipher(), sha256).version == 1

    def test_killed(self, s3: S3, written: Written, tmp_path: Path) -> None:
        s3.start()
        url, source = f"s3://{s3.new_bucket()}/experts", written()
        program = [sys.executable, "-c", KILLED, url, json.dumps(s3.options), str(source), PATH]
        ended = subprocess.run([*program, "4"], check=False, timeout=60)
        assert ended.returncode == -signal.SIGKILL
        store = ObjectStore(url, s3.options, cache=tmp_path / "cache", cache_bytes=2**30)
        assert (store.versions(EXPERT), store.holds(PATH)) == ({1}, False)
        assert subprocess.run([*program, "9"], check=False, timeout=60).returncode == 0
        assert store.holds(PATH)

    def test_and_another_with_other_files(self, objects: ObjectStore, written: Written) -> None:
        first, second = written(), written()
        fs, at = raw(objects)
        fs.makedirs(at, exist_ok=True) if "memory" in objects.url else None
        fs.pipe_file(f"{at}/subject.bin", (first / "subject.bin").read_bytes())
        with pytest.raises(VersionTakenError):
            objects.publish(second, PATH)
        assert not objects.holds(PATH)
        objects.remove(EXPERT)
        sha256 = publish(objects, second)
        with pytest.raises(VersionTakenError):  # a late writer changes nothing where a version is
            objects.publish(first, PATH)
        assert objects.inspect(PATH, cipher(), sha256).version == 1

    def test_what_is_left_is_deleted_with_a_later_version(
        self, objects: ObjectStore, written: Written
    ) -> None:
        fs, at = raw(objects)
        fs.makedirs(at, exist_ok=True) if "memory" in objects.url else None
        fs.pipe_file(f"{at}/subject.bin", b"left by a writer that died")
        publish(objects, written(2), f"{EXPERT}/2")
        publish(objects, written(3), f"{EXPERT}/3")
        objects.remove_unfinished(EXPERT, below=3)
        assert objects.versions(EXPERT) == {2, 3}


class TestDamagedObject:
    @pytest.mark.parametrize(
        ("objects", "name", "how"),
        [
            *(("memory", name, how) for name in FILES for how in DAMAGES),
            *(("s3", "gate.bin", how) for how in DAMAGES),
        ],
        indirect=["objects"],
    )
    def test_nobody_reads_it(self, objects: ObjectStore, written: Written, name: str, how: str) -> None:
        sha256 = publish(objects, written())
        objects.cache.forget(EXPERT)
        if how == "gone":
            fs, at = raw(objects)
            fs.rm_file(f"{at}/{name}")
        else:
            changes: dict[str, Callable[[bytes], bytes]] = {
                "flipped": flipped,
                "half": lambda content: content[: len(content) // 2],
                "empty": lambda _: b"",
                "longer": lambda content: content + b"\0" * 100_000,
            }
            damage(objects, name, changes[how])
        for read in (objects.load, objects.inspect):
            with pytest.raises(ExpertCorruptError, match=name):
                read(PATH, cipher(), sha256)
        assert not objects.cache.has(PATH)

    def test_is_not_fetched_at_every_poll_and_comes_back(
        self, objects: ObjectStore, written: Written, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        source = written()
        sha256 = publish(objects, source)
        objects.cache.forget(EXPERT)
        damage(objects, "gate.bin", flipped)
        with pytest.raises(ExpertCorruptError):
            objects.load(PATH, cipher(), sha256)
        fetched: list[str] = []
        fetch = objects._fetch

        def noted(path: str, sha256: str | None) -> dict[str, bytes]:
            fetched.append(path)
            return fetch(path, sha256)

        monkeypatch.setattr(objects, "_fetch", noted)
        with pytest.raises(ExpertCorruptError, match="restore it"):
            objects.load(PATH, cipher(), sha256)
        assert fetched == []
        damage(objects, "gate.bin", lambda _: (source / "gate.bin").read_bytes())
        objects._damaged.update({key: (0.0, 1.0, error) for key, (*_, error) in objects._damaged.items()})
        assert objects.load(PATH, cipher(), sha256).version == 1

    def test_one_that_is_read_already_is_kept(self, objects: ObjectStore, written: Written) -> None:
        sha256 = publish(objects, written())
        damage(objects, "gate.bin", flipped)
        assert objects.load(PATH, cipher(), sha256).version == 1, "from the copy"
        with pytest.raises(ExpertCorruptError):
            objects.inspect(PATH, cipher(), sha256)


class TestCopies:
    @pytest.mark.parametrize("objects", ["memory"], indirect=True)
    @pytest.mark.parametrize("name", FILES)
    @pytest.mark.parametrize("how", ["flipped", "half", "gone"])
    def test_damaged_ones_are_fetched_again(
        self, objects: ObjectStore, written: Written, name: str, how: str
    ) -> None:
        sha256 = publish(objects, written())
        file = objects.cache.place(PATH) / name
        whole = file.read_bytes()
        if how == "gone":
            file.unlink()
        else:
            file.write_bytes(flipped(whole) if how == "flipped" else whole[: len(whole) // 2])
        assert objects.load(PATH, cipher(), sha256).version == 1
        assert file.read_bytes() == whole

    def test_another_key_fetches_nothing(
        self, objects: ObjectStore, written: Written, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sha256 = publish(objects, written())
        monkeypatch.setattr(objects, "_fetch", None)
        other = type(cipher())(b"x" * 32)
        with pytest.raises(ExpertCorruptError, match="LETHE_EVIDENCE_KEY"):
            objects.load(PATH, other, sha256)


class TestPaths:
    @pytest.mark.parametrize("objects", ["memory"], indirect=True)
    @pytest.mark.parametrize(
        "path",
        ["exp_1/1/..", "s3://other/exp_1/1", "a\\b/1", "exp_1/%2e%2e", "exp_1/1?versionId=2", "exp_1/1/x"],
    )
    def test_nothing_but_an_expert_and_a_number(self, objects: ObjectStore, path: str) -> None:
        with pytest.raises(ExpertPathError, match="leaves the experts directory"):
            objects.load(path, cipher(), "0" * 64)


class TestAway:
    def store(self, s3: S3, tmp_path: Path, bucket: str, **options: Any) -> ObjectStore:
        quick = {"config_kwargs": {"connect_timeout": 1, "read_timeout": 2, "retries": {"max_attempts": 0}}}
        return ObjectStore(
            f"s3://{bucket}/experts",
            {**s3.options, **quick, **options},
            cache=tmp_path / "cache",
            cache_bytes=2**30,
        )

    def test_down_then_up(self, s3: S3, tmp_path: Path, written: Written) -> None:
        s3.start()
        store = self.store(s3, tmp_path, s3.new_bucket())
        sha256 = publish(store, written())
        s3.stop()
        try:
            assert store.load(PATH, cipher(), sha256).version == 1, "from the copy"
            store.cache.forget(EXPERT)
            source = written(2)
            for attempt in (
                lambda: store.load(PATH, cipher(), sha256),
                lambda: store.publish(source, f"{EXPERT}/2"),
                lambda: store.versions(EXPERT),
                lambda: store.remove(EXPERT),
            ):
                with pytest.raises(StoreUnavailableError, match="cannot be reached"):
                    attempt()
        finally:
            s3.start()
        assert store.load(PATH, cipher(), sha256).version == 1
        publish(store, source, f"{EXPERT}/2")
        assert store.versions(EXPERT) == {1, 2}

    def test_never_answers(self, s3: S3, tmp_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            url = f"http://127.0.0.1:{server.getsockname()[1]}"
            impatient = {"connect_timeout": 1, "read_timeout": 0.2, "retries": {"max_attempts": 0}}
            store = self.store(s3, tmp_path, "bucket", endpoint_url=url, config_kwargs=impatient)
            with pytest.raises(StoreUnavailableError, match="cannot be reached"):
                store.holds(PATH)

    def test_no_bucket(self, s3: S3, tmp_path: Path, written: Written) -> None:
        s3.start()
        store = self.store(s3, tmp_path, "nobodys-bucket")
        for attempt in (
            lambda: store.holds(PATH),
            lambda: store.versions(EXPERT),
            lambda: store.publish(written(), PATH),
        ):
            with pytest.raises(StoreRefusedError, match="bucket that it names does not exist: create it"):
                attempt()

    def test_no_credentials(self, s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        s3.start()
        bucket = s3.new_bucket()
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
        store = self.store(s3, tmp_path, bucket, key=None, secret=None, anon=False)
        with pytest.raises(StoreRefusedError, match=r"no credentials .* set AWS_ACCESS_KEY_ID"):
            store.holds(PATH)

    def test_access_denied(self, objects: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuses(*_: Any, **__: Any) -> None:
            raise PermissionError("Access Denied")

        fs, _ = objects._connected()
        monkeypatch.setattr(fs, "cat_file", refuses)
        with pytest.raises(StoreRefusedError, match=r"refuses access .*list, read, create and delete"):
            objects.holds(PATH)

    def test_a_driver_throws_what_it_likes(
        self, objects: ObjectStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def throws(*_: Any, **__: Any) -> None:
            raise RuntimeError("event loop is closed")

        fs, _ = objects._connected()
        monkeypatch.setattr(fs, "cat_file", throws)
        with pytest.raises(StoreUnavailableError, match="RuntimeError: event loop is closed"):
            objects.holds(PATH)


def test_two_in_one_process_share_what_memory_holds(tmp_path: Path, written: Written) -> None:
    ends = [
        open_store(
            load_settings(_env_file=None, experts_dir="memory://two/experts", experts_cache=tmp_path / str(i))
        )
        for i in range(2)
    ]
    sha256 = publish(ends[0], written())
    assert ends[1].load(PATH, cipher(), sha256).version == 1
    assert ends[1].folder(PATH, sha256).is_relative_to(tmp_path / "1")
