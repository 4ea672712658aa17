"""Thresholds: conformal on the maximum over all experts, one comparison per negative for a new one."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from app.lumoe.gate.record import GateRecord, NegativeScores
from app.lumoe.gate.threshold import LEAST, MISTAKEN, Thresholds, conformal_threshold

INF = math.inf
N = 199


def record(scores: list[float], *, likeness: list[float] | None = None, alike: float = INF) -> GateRecord:
    like = likeness if likeness is not None else [0.0] * len(scores)
    negatives = NegativeScores("set", torch.tensor(scores), torch.tensor(like))
    return GateRecord(("Mira",), "Personage", torch.zeros(0, 0), alike=alike, negatives=negatives)


class TestConformalThreshold:
    def test_the_rate_on_new_negatives_is_at_most_alpha(self) -> None:
        scores = [float(i) for i in range(199)]
        threshold = conformal_threshold(scores, alpha=0.05)
        assert threshold == 189.0
        assert sum(score > threshold for score in scores) / 200 <= 0.05

    def test_too_few_for_alpha_takes_the_largest(self) -> None:
        assert conformal_threshold([3.0, 1.0, 2.0], alpha=0.01) == 3.0

    def test_none(self) -> None:
        assert conformal_threshold([], alpha=0.01) == float("-inf")


class TestThresholds:
    def test_of_nobody(self) -> None:
        assert Thresholds.over([]).recognition == LEAST

    def test_never_below_the_least(self) -> None:
        assert Thresholds.over([record([-INF] * N)]).recognition == LEAST

    def test_the_maximum_over_experts_counts(self) -> None:
        first = record([-1.5 if i < 2 else -9.0 for i in range(N)])
        second = record([-1.2 if i >= N - 2 else -9.0 for i in range(N)])
        alone = [Thresholds.over([r], alpha=0.015).recognition for r in (first, second)]
        assert alone == [LEAST] * 2  # two of 199 are within 1.5 %
        assert Thresholds.over([first, second], alpha=0.015).recognition == pytest.approx(-1.5)

    def test_one_more_is_what_all_together_are(self) -> None:
        generator = torch.Generator().manual_seed(0)
        records = [record((-8 * torch.rand(N, generator=generator)).tolist()) for _ in range(20)]
        step = Thresholds()
        for one in records:
            step = step.with_record(one)
        together = Thresholds.over(records)
        assert (step.recognition, step.likeness) == (together.recognition, together.likeness)

    def test_rises_with_every_expert(self) -> None:
        generator = torch.Generator().manual_seed(1)
        held, found = Thresholds(), []
        for _ in range(30):
            held = held.with_record(record((-0.8 - 9 * torch.rand(N, generator=generator)).tolist()))
            found.append(held.recognition)
        assert found == sorted(found)
        assert found[-1] > found[0]

    def test_what_the_model_takes_for_the_subject_is_no_negative(self) -> None:
        taken = record([-0.01] * 50 + [-9.0] * (N - 50))
        assert Thresholds.over([taken]).recognition == LEAST
        assert Thresholds.over([record([-0.8] * 50 + [-9.0] * (N - 50))]).recognition == pytest.approx(-0.8)
        assert Thresholds.over([record([math.log(0.49)] * N)]).recognition <= MISTAKEN

    def test_whoever_is_removed_later_is_no_negative_any_more(self) -> None:
        first = record([-0.9] * 10 + [-9.0] * (N - 10))
        assert Thresholds.over([first]).recognition == pytest.approx(-0.9)
        removed = record([INF] * 10 + [-9.0] * (N - 10))
        assert Thresholds.over([first, removed]).recognition == LEAST

    def test_likeness_counts_where_it_decides_alone(self) -> None:
        likeness = [0.7] * 20 + [0.1] * (N - 20)
        known = record([-9.0] * N, likeness=likeness)
        assert Thresholds.over([known]).likeness == -INF
        assert Thresholds.over([replace(known, alike=0.8)]).likeness == pytest.approx(0.7)

    def test_records_without_scores_change_nothing(self) -> None:
        bare = GateRecord(("Mira",), "Personage", torch.zeros(0, 0))
        assert Thresholds.over([bare]).recognition == LEAST

    def test_two_negative_sets_both_hold(self) -> None:
        one = record([-1.0] * N)
        other = replace(
            one, negatives=replace(one.negatives, digest="other", recognition=torch.full((N,), -0.8))
        )
        assert Thresholds.over([one, other]).recognition == pytest.approx(-0.8)
