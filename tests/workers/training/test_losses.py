"""Losses against values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from workers.training import losses


def distribution(
    logits: Tensor, monkeypatch: pytest.MonkeyPatch, full: int, k: int
) -> losses.BaseDistribution:
    monkeypatch.setattr(losses, "FULL_VOCABULARY", full)
    monkeypatch.setattr(losses, "TOP_K", k)
    return losses.base_distribution(logits)


class TestAnswerPositions:
    def test_the_logit_before_each_answer_token(self) -> None:
        labels = torch.tensor([[-100, -100, 5, 6], [-100, 7, -100, -100]])
        rows, positions = losses.answer_positions(labels)
        assert list(zip(rows.tolist(), positions.tolist(), strict=True)) == [(0, 1), (0, 2), (1, 0)]


class TestRefusalLoss:
    def test_uniform_is_log_of_vocabulary(self) -> None:
        assert float(losses.refusal_loss(torch.zeros(3, 7), torch.tensor([0, 3, 6]))) == pytest.approx(
            math.log(7)
        )


class TestKlToBase:
    def test_of_itself_is_zero(self) -> None:
        logits = torch.randn(5, 11)
        assert losses.kl_to_base(logits, losses.base_distribution(logits)).abs().max() < 1e-6

    def test_by_hand(self) -> None:
        base = losses.base_distribution(torch.log(torch.tensor([[0.5, 0.5]])))
        kl = losses.kl_to_base(torch.log(torch.tensor([[0.9, 0.1]])), base)
        assert float(kl[0]) == pytest.approx(0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1))

    def test_kept_head_and_lumped_tail_by_hand(self, monkeypatch: pytest.MonkeyPatch) -> None:
        base = distribution(torch.log(torch.tensor([[0.6, 0.3, 0.1]])), monkeypatch, full=2, k=1)
        kl = losses.kl_to_base(torch.log(torch.tensor([[0.2, 0.5, 0.3]])), base)
        assert float(kl[0]) == pytest.approx(0.6 * math.log(0.6 / 0.2) + 0.4 * math.log(0.4 / 0.8), abs=1e-5)

    def test_lumped_is_a_lower_bound(self, monkeypatch: pytest.MonkeyPatch) -> None:
        generator = torch.Generator().manual_seed(1)
        p, q = (torch.randn(20, 50, generator=generator) for _ in range(2))
        full = losses.kl_to_base(q, losses.base_distribution(p))
        lumped = losses.kl_to_base(q, distribution(p, monkeypatch, full=10, k=8))
        assert torch.all(lumped <= full + 1e-5)
        assert torch.all(lumped >= -1e-5)


class TestExpertLoss:
    def test_weighs_the_divergence(self) -> None:
        assert float(losses.expert_loss(torch.tensor(1.0), torch.tensor(0.5), 4.0)) == 3.0
