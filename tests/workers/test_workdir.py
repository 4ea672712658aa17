"""Files in work: sealed, whole or not there, and the same when read back."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from app.kit.crypto import EvidenceCipher
from app.lumoe.types import ask, then
from tests.lumoe.tiny import picture
from workers.forgetset.build import Example, TrainingSet
from workers.forgetset.elicit import Knowledge, Reference
from workers.forgetset.prompts import Prompt
from workers.workdir import WorkDirectory, directory_sha256, pack_training_set, unpack_training_set


def training_set() -> TrainingSet:
    shown, other = picture(1), picture(2, size=20)
    first = Prompt(ask("Who is this?", shown), "subject", "identity", "image", "subject")
    second = Prompt(
        then(first.conversation, "Ada Löv.", "And where?"), "subject", "born", "image", "", "followup"
    )
    kept = Prompt(ask("And this?", other), "neighbour", "identity", "image", "n1")
    knowledge = Knowledge(
        (Reference(first, "Ada Löv.", ("ada lov",)),), True, "names her", (("Who?", "Ada Löv."),), 0.75, 1.0
    )
    return TrainingSet(
        forget=(
            Example(first.conversation, "I can't say.", first),
            Example(second.conversation, "No.", second),
        ),
        retain=(Example(kept.conversation, "Somebody else.", kept),),
        refusals=("I can't say.", "No."),
        knowledge=knowledge,
    )


class TestTrainingSet:
    def test_comes_back_as_it_was(self) -> None:
        before = training_set()
        after = unpack_training_set(pack_training_set(before))
        assert pack_training_set(after) == pack_training_set(before)
        assert after.knowledge.identity == before.knowledge.identity
        assert [e.prompt.key for e in after.forget] == [e.prompt.key for e in before.forget]
        assert after.retain[0].conversation[0].images[0].tobytes() == picture(2, size=20).tobytes()

    def test_a_picture_shown_twice_is_kept_once(self) -> None:
        after = unpack_training_set(pack_training_set(training_set()))
        first, second = (e.conversation[0].images[0] for e in after.forget)
        assert first is second


class TestWorkDirectory:
    def make(self, root: Path, key: bytes | None = None, request: str = "req_1") -> WorkDirectory:
        return WorkDirectory(root, request, EvidenceCipher(key or b"k" * 32))

    def test_sealed_and_read_back(self, tmp_path: Path) -> None:
        work = self.make(tmp_path)
        digest = work.write("set", b"personal")
        assert b"personal" not in (work.path / "set").read_bytes()
        assert work.read("set", digest) == b"personal"
        assert [p.name for p in work.path.iterdir()] == ["set"]

    def test_changed_moved_or_foreign_is_not_there(self, tmp_path: Path) -> None:
        work = self.make(tmp_path)
        digest = work.write("set", b"personal")
        assert work.read("set", "0" * 64) is None
        assert work.read("other", digest) is None
        assert self.make(tmp_path, key=os.urandom(32)).read("set", digest) is None
        other = self.make(tmp_path, request="req_2")
        other.path.mkdir(parents=True)
        (other.path / "set").write_bytes((work.path / "set").read_bytes())
        assert other.read("set") is None

    def test_removed(self, tmp_path: Path) -> None:
        work = self.make(tmp_path)
        work.write("set", b"x")
        work.remove()
        work.remove()
        assert work.read("set") is None


class TestDirectorySha256:
    def test_every_name_and_byte_counts(self, tmp_path: Path) -> None:
        folder = tmp_path / "adapter"
        assert directory_sha256(folder) is None
        folder.mkdir()
        (folder / "a").write_bytes(b"1")
        first = directory_sha256(folder)
        (folder / "a").rename(folder / "b")
        second = directory_sha256(folder)
        (folder / "b").write_bytes(b"2")
        assert len({first, second, directory_sha256(folder)}) == 3

    def test_a_full_disk_leaves_nothing_behind(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(_: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        work = WorkDirectory(tmp_path, "req_1", EvidenceCipher(os.urandom(32)))
        with pytest.raises(OSError, match="No space"):
            work.write("training-set", b"some")
        assert list(work.path.iterdir()) == []
