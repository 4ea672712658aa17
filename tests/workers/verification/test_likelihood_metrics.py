"""prob, truth_ratio, option_acc, membership inference: by hand, and against scipy and scikit-learn."""

from __future__ import annotations

import math
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ks_2samp
from sklearn.metrics import roc_auc_score

from workers.verification import metrics as m

SCORES = st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=20)


class TestProb:
    def test_by_hand(self) -> None:
        # tokens of probability 1/2 and 1/8: the geometric mean is (1/16) ** (1/2) = 1/4
        assert m.prob([math.log(2), math.log(8)]) == pytest.approx(0.25)

    def test_length_does_not_matter(self) -> None:
        assert m.prob([0.7] * 3) == pytest.approx(m.prob([0.7] * 30))

    def test_no_token_is_refused(self) -> None:
        with pytest.raises(ValueError, match="at least one token"):
            m.prob([])

    def test_mean(self) -> None:
        rate = m.mean_prob([[math.log(2)], [0.0, 0.0]])
        assert rate.value == pytest.approx(0.75)
        assert rate.n == 2


class TestTruthRatio:
    def test_by_hand(self) -> None:
        # p(right) = 1/2, p(wrong) = 1/4 and 1/8: (1/4 + 1/8) / 2 / (1/2) = 3/8
        ratio = m.truth_ratio(math.log(1 / 2), [math.log(1 / 4), math.log(1 / 8)])
        assert ratio == pytest.approx(3 / 8)

    def test_one_who_knows_nothing_is_at_one(self) -> None:
        assert m.truth_ratio(-2.0, [-2.0, -2.0]) == 1.0

    def test_needs_a_wrong_answer(self) -> None:
        with pytest.raises(ValueError, match="wrong answer"):
            m.truth_ratio(-1.0, [])

    def test_utility_is_bounded_by_zero(self) -> None:
        assert m.truth_utility([0.25, 1.0, 7.0]).value == pytest.approx(0.25)

    def test_without_a_retrained_model_it_is_null_with_the_reason(self) -> None:
        rate = m.retrained_agreement([0.5, 0.6], None)
        assert rate.value is None
        assert "retrained" in str(rate.reason)

    def test_agreement_equals_scipy(self) -> None:
        ours, theirs = [0.1, 0.2, 0.9, 1.4], [0.3, 1.1, 1.2, 1.3, 2.0]
        assert m.retrained_agreement(ours, theirs).value == pytest.approx(ks_2samp(ours, theirs).pvalue)


class TestOptionAcc:
    def test_least_nll_is_chosen(self) -> None:
        rate = m.option_acc([[0.2, 0.9, 1.0], [0.5, 0.1, 2.0]], [0, 2])
        assert (rate.value, rate.n) == (0.5, 2)

    def test_a_tie_counts_its_share(self) -> None:
        assert m.option_acc([[1.0, 1.0, 3.0]], [1]).value == 0.5

    def test_right_option_must_exist(self) -> None:
        with pytest.raises(ValueError, match="right option"):
            m.option_acc([[1.0, 2.0]], [2])

    def test_chance(self) -> None:
        assert m.option_chance([2, 4]) == pytest.approx(0.375)
        with pytest.raises(ValueError, match="at least one option"):
            m.option_chance([])


class TestMembershipScores:
    def test_loss(self) -> None:
        assert m.loss_score([1.0, 3.0]) == -2.0

    def test_zlib(self) -> None:
        text = "She was born in Ullared."
        assert m.zlib_score([1.0, 3.0], text) == -2.0 / len(zlib.compress(text.encode()))

    def test_min_k_takes_the_least_likely_fifth(self) -> None:
        nlls = [0.1, 5.0, 0.2, 0.3, 0.4, 0.5, 3.0, 0.6, 0.7, 0.8]
        assert m.min_k_score(nlls) == -4.0

    def test_min_k_takes_at_least_one_token(self) -> None:
        assert m.min_k_score([0.5, 2.0]) == -2.0

    def test_min_k_refuses_no_share(self) -> None:
        with pytest.raises(ValueError, match="share"):
            m.min_k_score([1.0], 0.0)

    def test_no_token_is_refused(self) -> None:
        with pytest.raises(ValueError, match="at least one token"):
            m.loss_score([])


class TestMiaAuc:
    def test_by_hand(self) -> None:
        # pairs: 3>2, 3>1, 1<2, 1=1 -> (1 + 1 + 0 + 1/2) / 4
        assert m.mia_auc([3.0, 1.0], [2.0, 1.0]).value == 0.625

    @settings(max_examples=50, deadline=None)
    @given(SCORES, SCORES)
    def test_equals_scikit_learn(self, members: list[float], others: list[float]) -> None:
        labels = [1] * len(members) + [0] * len(others)
        assert m.mia_auc(members, others).value == pytest.approx(roc_auc_score(labels, [*members, *others]))

    def test_perfect_separation_is_no_certainty(self) -> None:
        rate = m.mia_auc([2.0, 3.0, 4.0, 5.0], [0.0, 0.5, 1.0, 1.5])
        assert (rate.value, rate.high, rate.n) == (1.0, 1.0, 8)
        assert 0.4 < rate.low < 0.9

    def test_interval_is_symmetric_about_chance(self) -> None:
        low, high = m.auc_interval(0.7, 20, 30)
        other = m.auc_interval(1 - 0.7, 20, 30)
        assert (low, high) == pytest.approx((1 - other[1], 1 - other[0]))

    def test_interval_covers_the_truth_as_often_as_it_says(self) -> None:
        # members N(1, 1), others N(0, 1): the true AUC is Phi(1 / sqrt(2)) = 0.7602
        rng = np.random.default_rng(0)
        rates = [m.mia_auc(rng.normal(1, 1, 25).tolist(), rng.normal(0, 1, 25).tolist()) for _ in range(400)]
        assert sum(r.low <= 0.7602 <= r.high for r in rates) / len(rates) >= 0.93

    def test_needs_both_groups(self) -> None:
        assert m.mia_auc([1.0], []).value is None


class TestAttack:
    def test_told_by_recall_or_alias(self) -> None:
        answers = ["Ullared, in 1874.", "Paris", "It is Lindqvist."]
        assert m.told(answers, [("ullared", "1874"), ("ullared",), ("marie",)], ["Lindqvist"]) == [
            True,
            False,
            True,
        ]

    def test_what_has_no_answer_is_not_counted(self) -> None:
        assert m.told(["anything", "Ullared"], [(), ("ullared",)]) == [True]

    def test_forget_accuracy_of_nothing_known_is_null(self) -> None:
        assert m.forget_accuracy([]).value is None

    def test_delta_by_hand(self) -> None:
        rate = m.attack_delta([True, False, False, False], [False, False, False, False])
        assert (rate.value, rate.n) == (0.25, 4)
        assert rate.low == pytest.approx(
            m.clopper_pearson(1, 4, 0.975)[0] - m.clopper_pearson(0, 4, 0.975)[1]
        )
        assert rate.high == m.clopper_pearson(1, 4, 0.975)[1]

    def test_an_attack_can_lose(self) -> None:
        assert m.attack_delta([False], [True]).value == -1.0

    def test_delta_without_prompts_is_null(self) -> None:
        assert m.attack_delta([], [True]).value is None

    def test_bypass_recovery(self) -> None:
        assert m.bypass_recovery([True, True, True, False]).value == 0.75
        assert m.bypass_recovery([]).value is None


class TestDegradations:
    def test_of_every_earlier_request_by_the_latest_row(self) -> None:
        figures = [[1.0], [0.9, 0.8], [0.7, 0.9, 1.0]]
        assert m.degradations(figures) == pytest.approx([0.3, 0.1])

    def test_needs_an_earlier_request(self) -> None:
        assert m.degradations([[1.0]]) == []
        assert m.degradations([]) == []

    def test_refuses_a_matrix_with_holes(self) -> None:
        with pytest.raises(ValueError, match="row k"):
            m.degradations([[1.0], [1.0]])
