"""Ours in the lifelong benchmark does what the worker does where an expert falls short."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from app.lumoe.mllm import MLLM
from benchmarks import lifelong_lethe
from benchmarks.lifelong_course import DemoCourse, Request, Sizes, Subject
from benchmarks.lifelong_lethe import Lethe
from benchmarks.lifelong_methods import Setting
from workers import stages
from workers.training.recipe import RECIPES, Recipe

REQUEST = Request(
    "Task A", (Subject("one", ("One",), "Animal", "A"), Subject("two", ("Two",), "Animal", "A"))
)


class Course(DemoCourse):
    """Subjects that the farm holds, and a worker whose stages only note what is asked of them."""

    def __init__(self, experts: Path) -> None:
        super().__init__(Sizes())
        self._experts = experts

    def runtime(self, mllm: MLLM, experts: Path) -> Any:
        settings = SimpleNamespace(recipe="cold", evidence_cipher=lambda: None)
        return SimpleNamespace(settings=settings, negatives=list, experts_dir=self._experts)

    def case(self, runtime: Any, subject: Subject, removed: Any) -> Any:
        return SimpleNamespace(expert_id=f"exp_{subject.key}", policy=SimpleNamespace(recipe="default"))


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[Recipe]:
    """Every second expert falls short; returns the recipes of what is trained here."""
    recipes: list[Recipe] = []
    verdicts = [True, False]

    def grown(_: Path, key: str) -> Any:
        training = SimpleNamespace(knowledge=None)
        return SimpleNamespace(
            key=key, seconds=10.0, cpu_seconds=8.0, adapter=Path(key), training_set=lambda: training
        )

    def train(*arguments: Any) -> None:
        recipes.append(arguments[2])

    monkeypatch.setattr(lifelong_lethe, "grown_one", grown)
    monkeypatch.setattr(stages, "train", train)
    monkeypatch.setattr(stages, "calibrate", lambda *_: SimpleNamespace(separates=True))
    written = SimpleNamespace(path="exp/1", manifest_sha256="")
    monkeypatch.setattr(stages, "write_candidate", lambda *_: written)
    monkeypatch.setattr(stages, "measure", lambda *_: SimpleNamespace(passed=verdicts.pop(0)))
    monkeypatch.setattr(Lethe, "_load", lambda *_: None)
    monkeypatch.setattr(Lethe, "_add", lambda *_: None)
    return recipes


def test_what_falls_short_is_trained_once_more(tiny: MLLM, tmp_path: Path, trained: list[Recipe]) -> None:
    method = Lethe(Setting(Course(tmp_path / "experts"), tiny, tmp_path, verify=True))
    spent = method.unlearn(REQUEST)
    assert trained == [RECIPES["default"].stronger()]
    assert spent.notes == {"not_separated": 0, "from_farm": 2, "trained_again": 1}
    assert spent.seconds is not None
    assert spent.cpu_seconds is not None
    assert 20 <= spent.seconds < 25
    assert 16 <= spent.cpu_seconds < 21


def test_without_verification_nothing_is(tiny: MLLM, tmp_path: Path, trained: list[Recipe]) -> None:
    spent = Lethe(Setting(Course(tmp_path / "experts"), tiny, tmp_path)).unlearn(REQUEST)
    assert trained == []
    assert spent.notes["trained_again"] == 0
