"""The initial expert: practised on those who are kept, checked when read, made again without a subject."""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from app.kit.errors import ConfigurationError
from app.lumoe.demo import world
from app.lumoe.mllm import MLLM
from tests.workers.pipeline_world import SMALL
from workers.forgetset import build as building
from workers.forgetset.answering import CancelledError
from workers.forgetset.demo_cohort import DemoCohort
from workers.training import initial
from workers.training.initial import (
    InitialCorruptError,
    InitialExpert,
    find_initial,
    hashed,
    load_initial,
    make_initial,
    practice_subjects,
)
from workers.training.recipe import RECIPES, Recipe

SHORT = Recipe(rank=1, forget_rows=4, retain_rows=4, practice_subjects=2, practice_rounds=2, practice_steps=2)


@pytest.fixture(autouse=True)
def small_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(initial, "build", functools.partial(building.build, sizes=SMALL))


@pytest.fixture(scope="module")
def made(tiny: MLLM, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, InitialExpert]]:
    folder = tmp_path_factory.mktemp("initial") / "made"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(initial, "build", functools.partial(building.build, sizes=SMALL))
        yield folder, make_initial(tiny, SHORT, DemoCohort, folder)


class TestPracticeSubjects:
    def test_nobody_who_may_be_asked_to_be_forgotten(self) -> None:
        chosen = practice_subjects(DemoCohort(()), 27)
        assert len(chosen) == 27
        forgettable = {entity.key for entity in world().forgettable}
        assert forgettable.isdisjoint(other.key for other in chosen)

    def test_classes_in_turn(self) -> None:
        assert len({other.klass for other in practice_subjects(DemoCohort(()), 9)}) == 9

    def test_who_has_no_picture_is_passed_over(self, monkeypatch: pytest.MonkeyPatch) -> None:
        first = practice_subjects(DemoCohort(()), 1)[0]
        pictures = DemoCohort.pictures
        monkeypatch.setattr(DemoCohort, "pictures", lambda *a: [] if a[1].key == first.key else pictures(*a))
        assert first not in practice_subjects(DemoCohort(()), 60)


class TestMakeInitial:
    def test_every_layer_has_moved(self, tiny: MLLM, made: tuple[Path, InitialExpert]) -> None:
        weights = made[1].weights
        layers = [n for n, _ in tiny.network.named_modules() if n.endswith(("_proj",)) and "language" in n]
        assert len(weights) == 2 * len(layers) > 0
        assert all(bool(w.abs().sum() > 0) for name, w in weights.items() if "lora_B" in name)

    def test_same_practice_same_expert_and_the_model_as_it_was(
        self, tiny: MLLM, made: tuple[Path, InitialExpert], tmp_path: Path
    ) -> None:
        before = {name: value.clone() for name, value in tiny.network.state_dict().items()}
        assert make_initial(tiny, SHORT, DemoCohort, tmp_path / "again").sha256 == made[1].sha256
        after = tiny.network.state_dict()
        assert after.keys() == before.keys()
        assert all(torch.equal(after[name], value) for name, value in before.items())

    def test_manifest_says_of_what_and_at_what_cost(
        self, tiny: MLLM, made: tuple[Path, InitialExpert]
    ) -> None:
        manifest = json.loads((made[0] / "manifest.json").read_text())
        assert manifest["model_fingerprint"] == tiny.fingerprint
        assert manifest["practice"] == SHORT.practice
        assert manifest["steps"] == 2 * 2 * 2
        assert manifest["seconds"] > 0
        names = [name for other in practice_subjects(DemoCohort(()), 2) for name in other.names]
        assert set(manifest["practised_on"]) == hashed(names)
        assert not any(name in (made[0] / "manifest.json").read_text() for name in names)

    def test_cancelled_leaves_nothing(self, tiny: MLLM, tmp_path: Path) -> None:
        with pytest.raises(CancelledError):
            make_initial(tiny, SHORT, DemoCohort, tmp_path / "one", cancelled=lambda: True)
        assert list(tmp_path.iterdir()) == []

    def test_nobody_to_practise_on_is_said_with_what_to_do(
        self, tiny: MLLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(DemoCohort, "practice", lambda _: [])
        with pytest.raises(ConfigurationError, match="LETHE_RECIPE=cold"):
            make_initial(tiny, SHORT, DemoCohort, tmp_path / "one")

    def test_who_was_quicker_is_kept(
        self, tiny: MLLM, made: tuple[Path, InitialExpert], tmp_path: Path
    ) -> None:
        folder, first = tmp_path / "made", made[1]
        shutil.copytree(made[0], folder)
        other = make_initial(tiny, replace(SHORT, practice_kl_weight=1.0), DemoCohort, folder)
        assert other.sha256 == first.sha256
        assert [path.name for path in tmp_path.iterdir()] == ["made"]


class TestLoadInitial:
    def test_a_changed_file_is_refused(
        self, tiny: MLLM, made: tuple[Path, InitialExpert], tmp_path: Path
    ) -> None:
        shutil.copytree(made[0], tmp_path / "one")
        file = tmp_path / "one" / "initial.safetensors"
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
        with pytest.raises(InitialCorruptError, match="delete the directory"):
            load_initial(tmp_path / "one", tiny)

    @pytest.mark.parametrize("name", ["initial.safetensors", "manifest.json"])
    def test_a_missing_file_is_refused(
        self, tiny: MLLM, made: tuple[Path, InitialExpert], tmp_path: Path, name: str
    ) -> None:
        shutil.copytree(made[0], tmp_path / "one")
        (tmp_path / "one" / name).unlink()
        with pytest.raises(InitialCorruptError, match="cannot be read"):
            load_initial(tmp_path / "one", tiny)

    def test_another_models_is_refused(
        self, tiny: MLLM, made: tuple[Path, InitialExpert], tmp_path: Path
    ) -> None:
        shutil.copytree(made[0], tmp_path / "one")
        file = tmp_path / "one" / "manifest.json"
        file.write_text(file.read_text().replace(tiny.fingerprint, "0" * len(tiny.fingerprint)))
        with pytest.raises(InitialCorruptError, match="another model"):
            load_initial(tmp_path / "one", tiny)


class TestFindInitial:
    @pytest.fixture
    def root(self, tiny: MLLM, made: tuple[Path, InitialExpert], tmp_path: Path) -> Path:
        """A directory in which the initial expert lies already."""
        shutil.copytree(made[0], tmp_path / tiny.fingerprint[:16] / SHORT.initial_name)
        return tmp_path

    def find(self, mllm: MLLM, root: Path, exclude: Sequence[str] = ()) -> InitialExpert:
        return find_initial(mllm, SHORT, DemoCohort, root, exclude=exclude)

    def test_made_at_first_use(self, tiny: MLLM, made: tuple[Path, InitialExpert], tmp_path: Path) -> None:
        assert self.find(tiny, tmp_path).sha256 == made[1].sha256

    def test_made_once(
        self, tiny: MLLM, made: tuple[Path, InitialExpert], root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(initial, "make_initial", lambda *_, **__: pytest.fail("made again"))
        assert self.find(tiny, root).sha256 == made[1].sha256

    def test_made_again_without_whoever_is_to_be_forgotten(
        self, tiny: MLLM, made: tuple[Path, InitialExpert], root: Path
    ) -> None:
        someone = practice_subjects(DemoCohort(()), 2)[0]
        assert made[1].knows([someone.names[0].upper()])
        second = self.find(tiny, root, someone.names)
        assert not second.knows(someone.names)
        assert self.find(tiny, root).sha256 == second.sha256 != made[1].sha256

    def test_another_workers_that_practised_on_the_subject_is_not_taken(
        self, tiny: MLLM, made: tuple[Path, InitialExpert], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        someone = practice_subjects(DemoCohort(()), 1)[0]
        answers = [made[1], replace(made[1], practised_on=frozenset())]
        monkeypatch.setattr(initial, "make_initial", lambda *_, **__: answers.pop(0))
        assert not self.find(tiny, tmp_path, someone.names).knows(someone.names)
        assert answers == []

    def test_a_broken_one_is_made_again(
        self, tiny: MLLM, made: tuple[Path, InitialExpert], root: Path
    ) -> None:
        (file,) = root.rglob("initial.safetensors")
        file.write_bytes(b"cut")
        assert self.find(tiny, root).sha256 == made[1].sha256
        assert load_file(next(iter(root.rglob("initial.safetensors"))))


class TestShipped:
    def test_the_demo_models_own_is_there_for_the_default_recipe(self, demo: MLLM) -> None:
        shipped = load_initial(initial.SHIPPED / RECIPES["default"].initial_name, demo)
        names = [name for entity in world().forgettable for name in (entity.name, *entity.aliases)]
        assert not shipped.knows(names)
