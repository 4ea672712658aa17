"""The figures of several recipes' experts."""

from __future__ import annotations

import pytest

from benchmarks.training import METRICS, Trial, figures


def trial(recipe: str, seconds: float, quality: float | None, passed: bool = True) -> Trial:
    """Return an expert whose every score is ``quality``."""
    scores: dict[str, float | None] = dict.fromkeys(METRICS, quality)
    return Trial(recipe, "Dorel", 0, int(seconds * 10), 1.0, seconds, 0.2, 5.0, passed, scores)


class TestFigures:
    def test_by_recipe(self) -> None:
        found = figures([trial("a", 2.0, 1.0), trial("b", 9.0, 0.5), trial("a", 4.0, 0.9, passed=False)])
        recipes = found["recipes"]
        assert list(recipes) == ["a", "b"]
        assert (recipes["a"]["n"], recipes["a"]["passed"]) == (2, 1)
        assert recipes["a"]["train_seconds"] == 3.0
        assert recipes["a"]["forget_quality"] == pytest.approx(0.95)
        assert recipes["b"]["steps"] == 90
        assert len(found["trials"]) == 3

    def test_what_was_never_measured_has_no_mean(self) -> None:
        assert figures([trial("a", 2.0, None)])["recipes"]["a"]["leak"] is None
