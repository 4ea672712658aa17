"""More and more epochs until LUMoE forgets as well as ours; what the figures say of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from app.lumoe.mllm import MLLM
from app.lumoe.types import ask
from benchmarks.equal_quality import Pair, Run, compare, doubled, figures, fresh_lethe
from benchmarks.lifelong_course import DemoCourse, Question, Request, Sizes, Subject
from benchmarks.lifelong_methods import Setting, Spent
from workers.runtime import Runtime

REQUEST = Request("Dorel", (Subject("dorel", ("Dorel",), "Personage", "A"),))
ASKED = [
    Question(f"q{i}", ask("Who?"), "It is Dorel.", "forget", "dorel", ("Dorel",), "name", "text")
    for i in range(4)
]


class Refuses:
    """A method that refuses the first n questions and tells the rest."""

    last_only = False

    def __init__(self, n: int) -> None:
        self.n = n

    def unlearn(self, request: Request) -> Spent:
        assert request is REQUEST
        return Spent()

    def answer(self, questions: Sequence[Question]) -> list[str]:
        return ["I cannot help with that." if i < self.n else q.gold for i, q in enumerate(questions)]

    def token_nlls(self, questions: Sequence[Question]) -> list[list[float]]:
        raise NotImplementedError

    def keep(self, done: Sequence[Request]) -> None:
        raise NotImplementedError

    def restore(self, done: Sequence[Request]) -> bool:
        raise NotImplementedError


def pair(ours: float, *released: tuple[float, float]) -> Pair:
    """Return a pair whose runs took (CPU seconds, forget quality); ours took `ours` seconds, quality 1."""
    runs = tuple(Run(cpu, cpu, quality, 4, 5 * 2**k) for k, (cpu, quality) in enumerate(released))
    return Pair("Dorel", 1, Run(ours, ours, 1.0, 4), runs)


class TestDoubled:
    def test_up_to_the_most(self) -> None:
        assert list(doubled(5, 40)) == [5, 10, 20, 40]
        assert list(doubled(5, 39)) == [5, 10, 20]


class TestCompare:
    def test_stops_where_it_is_as_good(self) -> None:
        found = compare(REQUEST, ASKED, lambda: Refuses(3), lambda epochs: Refuses(epochs // 5), 80)
        assert [(run.epochs, run.forget_quality) for run in found.released] == [
            (5, 0.25),
            (10, 0.5),
            (20, 1.0),
        ]
        assert found.ours.forget_quality == 0.75
        assert found.reached

    def test_gives_up_after_the_most(self) -> None:
        found = compare(REQUEST, ASKED, lambda: Refuses(4), lambda _: Refuses(1), 20)
        assert [run.epochs for run in found.released] == [5, 10, 20]
        assert not found.reached


class TestFigures:
    def test_ratio_is_of_the_run_that_sufficed(self) -> None:
        found = figures([pair(2.0, (4.0, 0.5), (8.0, 1.0)), pair(1.0, (3.0, 1.0))])
        assert found["reached"] == 2
        assert found["times"] == pytest.approx((4.0 + 3.0) / 2)
        assert found["released_forget_quality"] == pytest.approx(0.75)
        assert found["equal_forget_quality"] == 1.0

    def test_who_never_reached_it_is_counted(self) -> None:
        assert figures([pair(1.0, (3.0, 0.5))])["reached"] == 0


def test_a_farms_experts_are_not_taken(tiny: MLLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for made_first in ("initial_expert", "negatives"):
        monkeypatch.setattr(Runtime, made_first, lambda *_: None)
    course = DemoCourse(Sizes())
    assert fresh_lethe(Setting(course, tiny, tmp_path)).farm.is_relative_to(tmp_path)
