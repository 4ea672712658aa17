"""What a run measures, which failures it shows, and figures that other runs leave."""

import argparse
import json
from pathlib import Path

from app.lumoe.types import Decision, Evidence
from benchmarks.gate import INTERIM_KEY, interim_seconds, plan_of, worst_examples
from benchmarks.gate_measure import Example, explain
from benchmarks.gate_traffic import QUICK


def arguments(**given: object) -> argparse.Namespace:
    return argparse.Namespace(
        **{
            "quick": False,
            "experts": None,
            "synthetic": None,
            "curve": None,
            "keep_calibration": False,
            "calibrate_for": None,
            **given,
        }
    )


class TestPlan:
    def test_full(self) -> None:
        plan = plan_of(arguments())
        assert (plan.experts, plan.total, plan.sizes.attack) == ((1, 10, 50, 127), 10_000, 100)

    def test_quick(self) -> None:
        plan = plan_of(arguments(quick=True))
        assert (plan.experts, plan.total, plan.sizes) == ((1, 20), 1_020, QUICK)

    def test_calibration_takes_as_long_as_asked(self) -> None:
        assert plan_of(arguments(quick=True)).calibration_seconds < plan_of(arguments()).calibration_seconds
        assert plan_of(arguments(calibrate_for=7.0)).calibration_seconds == 7.0

    def test_numbers_given(self) -> None:
        plan = plan_of(arguments(experts="5,9", synthetic=0, curve="20,40"))
        assert (plan.experts, plan.total, plan.curve) == ((5, 9), 0, (20, 40))


def failure(figure: str, group: str, prompt: str, experts: int = 127) -> Example:
    return Example(figure, experts, group, "personage-00", "plain", "text", prompt, "base", "served", "")


class TestWorstExamples:
    def test_every_kind_is_shown_before_any_twice(self) -> None:
        many = [failure("changed", "general", f"{i}") for i in range(50)]
        shown = worst_examples([*many, failure("leak", "subject", "x"), failure("changed", "list", "y")], 3)
        assert {(e.figure, e.group) for e in shown} == {
            ("leak", "subject"),
            ("changed", "general"),
            ("changed", "list"),
        }
        assert shown[0].figure == "leak"

    def test_the_same_prompt_is_shown_once_at_the_fewest_experts(self) -> None:
        shown = worst_examples([failure("leak", "subject", "x", 10_000), failure("leak", "subject", "x", 10)])
        assert [e.experts for e in shown] == [10]

    def test_at_most_n(self) -> None:
        assert len(worst_examples([failure("leak", "subject", str(i)) for i in range(99)])) == 40


class TestInterimSeconds:
    def test_not_measured(self, tmp_path: Path) -> None:
        value, why = interim_seconds(tmp_path / "request.json")
        assert value is None
        assert "benchmarks.request" in why

    def test_measured(self, tmp_path: Path) -> None:
        path = tmp_path / "request.json"
        path.write_text(json.dumps({INTERIM_KEY: {"median": 0.2, "max": 0.4, "n": 9}}))
        assert interim_seconds(path) == (0.4, "")

    def test_nothing_was_protected(self, tmp_path: Path) -> None:
        path = tmp_path / "request.json"
        path.write_text(json.dumps({INTERIM_KEY: {"median": None, "max": None, "n": 0}}))
        value, why = interim_seconds(path)
        assert value is None
        assert INTERIM_KEY in why

    def test_a_run_without_it(self, tmp_path: Path) -> None:
        path = tmp_path / "request.json"
        path.write_text("{}")
        assert interim_seconds(path)[0] is None


def test_a_decision_is_explained_in_one_line() -> None:
    evidence = Evidence("exp_a", "name", "strong", 1.0, 1.0, 0)
    text = explain(Decision("exp_a", (evidence,), frozenset({"exp_b"})))
    assert text == "to exp_a: name strong exp_a 1.000 (needs 1.000), turn 0; watches exp_b"
    assert explain(Decision()) == "to base: no evidence"
