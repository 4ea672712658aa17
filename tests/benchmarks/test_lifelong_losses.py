"""The baselines' losses against values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from benchmarks.lifelong_losses import (
    LOSSES,
    Likelihood,
    Terms,
    direct_preference,
    gradient_ascent,
    gradient_difference,
    kl_minimisation,
    negative_preference,
    nll,
    preference_optimisation,
    sequence_log_p,
    simple_negative_preference,
)

# Two answers: 2 tokens with log p = -1, 3 tokens with log p = -4. Mean per token: 5 / 5 = 1.
FORGET = Likelihood(torch.tensor([-1.0, -4.0]), torch.tensor([2.0, 3.0]), torch.tensor([-1.0, -2.0]))
RETAIN = Likelihood(torch.tensor([-3.0]), torch.tensor([2.0]))  # 1.5 per token
REFUSAL = Likelihood(torch.tensor([-6.0, -2.0]), torch.tensor([4.0, 4.0]), torch.tensor([-8.0, -2.0]))


def logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_nll_is_the_mean_over_tokens_not_over_answers() -> None:
    assert float(nll(FORGET)) == pytest.approx(1.0)


def test_gradient_ascent() -> None:
    assert float(gradient_ascent(Terms(forget=FORGET))) == pytest.approx(-1.0)


def test_gradient_difference() -> None:
    assert float(gradient_difference(Terms(forget=FORGET, retain=RETAIN))) == pytest.approx(-1.0 + 1.5)


def test_kl_minimisation() -> None:
    terms = Terms(forget=FORGET, retain=RETAIN, retain_kl=torch.tensor(0.25))
    assert float(kl_minimisation(terms)) == pytest.approx(-0.75)


def test_preference_optimisation() -> None:
    assert float(preference_optimisation(Terms(refusal=REFUSAL, retain=RETAIN))) == pytest.approx(1.0 + 1.5)


def test_npo_of_unchanged_weights_is_two_over_beta_log_two() -> None:
    unchanged = Likelihood(FORGET.log_p, FORGET.tokens, FORGET.log_p)
    assert float(negative_preference(Terms(forget=unchanged), beta=0.1)) == pytest.approx(20 * math.log(2))


def test_npo() -> None:
    # log ratios 0 and -2: -(2/b) mean log s(-b r)
    expected = -(2 / 0.5) * (math.log(logistic(0)) + math.log(logistic(1.0))) / 2
    assert float(negative_preference(Terms(forget=FORGET), beta=0.5)) == pytest.approx(expected)


def test_simnpo_normalises_by_length_and_keeps_the_retain_term() -> None:
    margins = (2.0 * 1 / 2 - 0.1, 2.0 * 4 / 3 - 0.1)
    expected = -(2 / 2.0) * sum(math.log(logistic(m)) for m in margins) / 2 + 1.5
    terms = Terms(forget=FORGET, retain=RETAIN)
    assert float(simple_negative_preference(terms, beta=2.0, gamma=0.1)) == pytest.approx(expected)


def test_dpo_prefers_the_refusal() -> None:
    # refusal ratios 2 and 0, forget ratios 0 and -2: margins 2 and 2
    expected = -(2 / 0.5) * math.log(logistic(0.5 * 2))
    assert float(direct_preference(Terms(forget=FORGET, refusal=REFUSAL), beta=0.5)) == pytest.approx(
        expected
    )


def test_forgetting_lowers_every_loss_that_drives_it() -> None:
    """What GA, NPO, SimNPO and DPO minimise falls when the gold answer becomes less likely."""
    later = Likelihood(FORGET.log_p - 3, FORGET.tokens, FORGET.log_ref)
    for name in ("ga", "npo", "simnpo", "dpo"):
        loss = LOSSES[name].function
        assert loss(Terms(later, REFUSAL, RETAIN)) < loss(Terms(FORGET, REFUSAL, RETAIN)), name


def test_a_missing_part_is_an_error() -> None:
    with pytest.raises(ValueError, match="not computed"):
        gradient_difference(Terms(forget=FORGET))
    with pytest.raises(ValueError, match="KL"):
        kl_minimisation(Terms(forget=FORGET, retain=RETAIN))
    with pytest.raises(ValueError, match="reference"):
        negative_preference(Terms(forget=Likelihood(FORGET.log_p, FORGET.tokens)))


def test_the_registry_names_what_each_loss_reads() -> None:
    for name, loss in LOSSES.items():
        parts = {"forget": FORGET, "refusal": REFUSAL, "retain": RETAIN}
        terms = Terms(
            **{part: parts[part] for part in loss.parts},
            retain_kl=torch.tensor(0.1) if loss.kl else None,
        )
        assert loss.function(terms).ndim == 0, name


def test_token_likelihoods_are_summed_by_row() -> None:
    logits = torch.log(torch.tensor([[0.5, 0.5], [0.25, 0.75], [0.9, 0.1]]))
    found = sequence_log_p(logits, torch.tensor([0, 1, 0]), torch.tensor([0, 0, 1]), 2)
    assert found.log_p.tolist() == pytest.approx([math.log(0.5 * 0.75), math.log(0.9)])
    assert found.tokens.tolist() == [2, 1]
