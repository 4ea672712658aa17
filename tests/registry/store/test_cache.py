"""Local copies: whole or not there, bounded, and shared by processes that do not know of each other."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from app.lumoe.expertfiles import MANIFEST
from app.registry.store.cache import ExpertCache
from app.registry.store.errors import StoreUnavailableError

FILES = {"adapter_model.safetensors": b"a" * 900, MANIFEST: b"m" * 100}
PROGRAM = """
import sys
from pathlib import Path
from app.registry.store.cache import ExpertCache
cache = ExpertCache(Path(sys.argv[1]), 3000)
content = {"adapter_model.safetensors": b"a" * 900, "manifest.json": b"m" * 100}
for i in range(60):
    cache.fill(f"exp_{i % 5}/1", lambda: content)
    if i % 7 == 0:
        cache.keep_only({"exp_1/1", "exp_2/1"})
"""


def entries(root: Path) -> list[str]:
    return sorted(str(p.parent.relative_to(root)) for p in root.glob(f"exp*/*/{MANIFEST}"))


def use(cache: ExpertCache, path: str, ago: float) -> None:
    os.utime(cache.place(path) / MANIFEST, (time.time() - ago,) * 2)


@pytest.fixture
def cache(tmp_path: Path) -> ExpertCache:
    return ExpertCache(tmp_path, 3000)


class TestFill:
    def test_is_there_whole(self, cache: ExpertCache) -> None:
        assert not cache.has("exp_1/1")
        place = cache.fill("exp_1/1", lambda: FILES)
        assert cache.has("exp_1/1")
        assert {file.name: file.read_bytes() for file in place.iterdir()} == FILES

    def test_instead_of_a_damaged_one(self, cache: ExpertCache, tmp_path: Path) -> None:
        place = cache.fill("exp_1/1", lambda: {**FILES, "more": b"x"})
        cache.fill("exp_1/1", lambda: FILES)
        assert {file.name for file in place.iterdir()} == set(FILES)
        assert os.listdir(tmp_path) == ["exp_1"]

    def test_nothing_is_left_of_one_that_failed(self, cache: ExpertCache, tmp_path: Path) -> None:
        def fails() -> dict[str, bytes]:
            raise ValueError

        with pytest.raises(ValueError):  # noqa: PT011  the very one
            cache.fill("exp_1/1", fails)
        assert os.listdir(tmp_path) == []

    def test_a_disk_that_takes_nothing(self, cache: ExpertCache, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(Path, "write_bytes", full)
        with pytest.raises(StoreUnavailableError, match=r"No space left.*LETHE_EXPERTS_CACHE"):
            cache.fill("exp_1/1", lambda: FILES)

    def test_another_user_may_read_it(self, cache: ExpertCache) -> None:
        assert cache.fill("exp_1/1", lambda: FILES).stat().st_mode & 0o777 == 0o755


class TestBound:
    def test_the_least_recently_used_go(self, cache: ExpertCache, tmp_path: Path) -> None:
        for i in range(3):
            cache.fill(f"exp_{i}/1", lambda: FILES)
            use(cache, f"exp_{i}/1", 100 - i)
        assert cache.has("exp_0/1"), "which counts as use"
        cache.fill("exp_3/1", lambda: FILES)
        assert entries(tmp_path) == ["exp_0/1", "exp_3/1"], "down to nine tenths of the bound"

    def test_one_larger_than_all_is_kept_while_it_is_read(self, cache: ExpertCache, tmp_path: Path) -> None:
        cache.fill("exp_0/1", lambda: FILES)
        cache.fill("exp_1/1", lambda: {**FILES, "large": b"x" * 5000})
        assert entries(tmp_path) == ["exp_1/1"]

    def test_live_ones_are_kept_where_others_read_their_files(self, tmp_path: Path) -> None:
        cache = ExpertCache(tmp_path, 1500, keep_live=True)
        for i in range(3):
            cache.fill(f"exp_{i}/1", lambda: FILES)
            cache.keep_only({f"exp_{n}/1" for n in range(i + 1)})
        cache.fill("exp_9/1", lambda: FILES)
        cache.fill("exp_8/1", lambda: FILES)
        assert entries(tmp_path) == ["exp_0/1", "exp_1/1", "exp_2/1", "exp_8/1"]


class TestKeepOnly:
    def test_others_go(self, cache: ExpertCache, tmp_path: Path) -> None:
        for path in ("exp_0/1", "exp_0/2", "exp_1/1"):
            cache.fill(path, lambda: FILES)
        (tmp_path / ".work" / "req_1").mkdir(parents=True)
        cache.keep_only({"exp_0/2"})
        assert entries(tmp_path) == ["exp_0/2"]
        assert sorted(os.listdir(tmp_path)) == [".work", "exp_0"]

    def test_what_processes_that_died_have_left(self, cache: ExpertCache, tmp_path: Path) -> None:
        for name, age in ((".filling-old", 7200), (".aside-old", 7200), (".filling-new", 0)):
            (tmp_path / name).mkdir()
            os.utime(tmp_path / name, (time.time() - age,) * 2)
        cache.keep_only(())
        assert os.listdir(tmp_path) == [".filling-new"]

    def test_no_directory_yet(self, tmp_path: Path) -> None:
        ExpertCache(tmp_path / "none", 1).keep_only({"exp_0/1"})


class TestTogether:
    def test_threads_fill_the_same(self, cache: ExpertCache, tmp_path: Path) -> None:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: cache.fill("exp_1/1", lambda: FILES), range(100)))
        assert entries(tmp_path) == ["exp_1/1"]
        assert os.listdir(tmp_path) == ["exp_1"]

    def test_one_that_always_comes_second_leaves_the_others_copy(
        self, cache: ExpertCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        other, install = ExpertCache(tmp_path, 10**6), os.rename

        def be_overtaken(source: Path, target: Path) -> None:
            if target == cache.place("exp_1/1"):
                with monkeypatch.context() as patch:
                    patch.setattr(os, "rename", install)
                    other.fill("exp_1/1", lambda: FILES)
            install(source, target)

        monkeypatch.setattr(os, "rename", be_overtaken)
        cache.fill("exp_1/1", lambda: FILES)
        assert entries(tmp_path) == ["exp_1/1"]
        assert os.listdir(tmp_path) == ["exp_1"]

    def test_processes_fill_and_delete(self, tmp_path: Path) -> None:
        """Whatever is there at any time is whole; nothing temporary stays; nobody fails."""
        running = [
            subprocess.Popen([sys.executable, "-c", PROGRAM, str(tmp_path)], stdout=subprocess.DEVNULL)
            for _ in range(3)
        ]
        while any(process.poll() is None for process in running):
            for i in range(5):
                try:
                    content = {name: (tmp_path / f"exp_{i}/1" / name).read_bytes() for name in FILES}
                except FileNotFoundError:
                    continue  # not there, or moved aside while it was read
                assert content == FILES
            time.sleep(0.005)
        assert [process.returncode for process in running] == [0, 0, 0]
        assert [name for name in os.listdir(tmp_path) if name.startswith(".")] == []
