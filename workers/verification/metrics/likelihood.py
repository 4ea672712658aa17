"""Figures from likelihoods: how probable the model finds right and wrong answers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from scipy.stats import ks_2samp

from workers.verification.metrics.rate import Rate, bounded_mean, null


def prob(token_nlls: Sequence[float]) -> float:
    """Return exp(-mean NLL) over an answer's tokens, in (0, 1]: its probability, normalised for length.

    Takes negative log-likelihoods in nats, one per token. Source: TOFU (arXiv 2401.06121), P(a|q)^(1/|a|);
    METHOD.md section 6.

    Raises:
        ValueError: There is no token.
    """
    if not token_nlls:
        raise ValueError("prob needs the negative log-likelihood of at least one token")
    return math.exp(-sum(token_nlls) / len(token_nlls))


def mean_prob(answers: Sequence[Sequence[float]]) -> Rate:
    """Return the mean `prob` over answers, each given as its tokens' negative log-likelihoods."""
    return bounded_mean([min(1.0, prob(nlls)) for nlls in answers])


def truth_ratio(paraphrased_right: float, wrong: Sequence[float]) -> float:
    """Return mean p(wrong) / p(paraphrased right), p normalised for length; 0 or more, unbounded.

    Takes mean log-likelihoods per token, as `MLLM.loglik` returns them: of one paraphrase of the right answer
    and of one or more wrong answers of the same form. A model that knows has a ratio near 0, one that does
    not near 1. Source: TOFU (arXiv 2401.06121), R_truth; METHOD.md section 6.

    Raises:
        ValueError: There is no wrong answer.
    """
    if not wrong:
        raise ValueError("truth_ratio needs at least one wrong answer")
    return sum(math.exp(value - paraphrased_right) for value in wrong) / len(wrong)


def truth_utility(ratios: Sequence[float]) -> Rate:
    """Return mean max(0, 1 - R_truth), in [0, 1]: 1 for a model that prefers every right answer.

    Source: TOFU (arXiv 2401.06121), the truth ratio's share in model utility.
    """
    return bounded_mean([max(0.0, 1.0 - ratio) for ratio in ratios])


def retrained_agreement(ratios: Sequence[float], retrained: Sequence[float] | None) -> Rate:
    """Return the p-value of "these truth ratios and a retrained model's are drawn alike", in [0, 1].

    Two-sample Kolmogorov-Smirnov test on the forget set; above .05 the two cannot be told apart. Needs a
    model that was trained without the data: null, with the reason, where there is none. A p-value has no
    confidence interval; the bounds are those of any number in [0, 1]. Source: TOFU (arXiv 2401.06121),
    "forget quality" of that paper (not ours).
    """
    if retrained is None:
        return null("needs a model that was retrained without the data", len(ratios))
    if not ratios or not retrained:
        return null("nothing to measure")
    return Rate(float(ks_2samp(ratios, retrained).pvalue), len(ratios), 0.0, 1.0)


def option_acc(option_nlls: Sequence[Sequence[float]], right: Sequence[int]) -> Rate:
    """Return the share of questions whose right option has the least NLL; chance is `option_chance`.

    Takes, for each question, one length-normalised negative log-likelihood per option, and the index of the
    right one. Of m options that tie for the least, the right one counts 1/m. Source: METHOD.md section 6.

    Raises:
        ValueError: The lengths differ, or an index is none of an option.
    """
    points = []
    for nlls, index in zip(option_nlls, right, strict=True):
        if not 0 <= index < len(nlls):
            raise ValueError(f"the right option must be one of 0..{len(nlls) - 1}, got {index}")
        least = min(nlls)
        tied = [i for i, value in enumerate(nlls) if value == least]
        points.append(1 / len(tied) if index in tied else 0.0)
    return bounded_mean(points)


def option_chance(options: Sequence[int]) -> float:
    """Return what guessing reaches: the mean of 1/k over questions with k options each.

    Raises:
        ValueError: There is no question, or one without options.
    """
    if not options or min(options) < 1:
        raise ValueError("option_chance needs questions with at least one option each")
    return sum(1 / k for k in options) / len(options)
