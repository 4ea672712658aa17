"""Membership inference: what likelihoods still tell of what the model was trained on.

Scores are higher the more an answer looks like training data. Members are the forget set, non-members are
matched in form and length; both are scored through the routed path. 0.5 is chance.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence

from scipy.optimize import brentq
from scipy.stats import norm, rankdata

from workers.verification.metrics.rate import CONFIDENCE, Rate, null

MIN_K_SHARE = 0.2
_EDGE = 1e-9


def loss_score(token_nlls: Sequence[float]) -> float:
    """Return minus the mean NLL per token. Source: Yeom et al. (2018), the loss attack.

    Raises:
        ValueError: There is no token.
    """
    return -_mean(token_nlls)


def zlib_score(token_nlls: Sequence[float], text: str) -> float:
    """Return minus the mean NLL per byte of the zlib-compressed text: rare text may be improbable.

    Source: Carlini et al. (2021), section 5.2: log-perplexity over zlib entropy.

    Raises:
        ValueError: There is no token.
    """
    return -_mean(token_nlls) / len(zlib.compress(text.encode()))


def min_k_score(token_nlls: Sequence[float], share: float = MIN_K_SHARE) -> float:
    """Return the mean log-likelihood of the least likely share of the tokens (at least one).

    Source: Shi et al. (ICLR 2024), Min-K% Prob, k = 20.

    Raises:
        ValueError: There is no token, or the share is not in (0, 1].
    """
    if not 0 < share <= 1:
        raise ValueError(f"the share must lie in (0, 1], got {share}")
    worst = sorted(token_nlls, reverse=True)
    return -_mean(worst[: max(1, math.floor(len(worst) * share))])


def mia_auc(members: Sequence[float], non_members: Sequence[float]) -> Rate:
    """Return the chance that a member scores above a non-member, ties half: the area under the ROC curve.

    AUC = (R - m(m+1)/2) / (m n), R the members' rank sum among all (Mann and Whitney 1947; Hanley and McNeil
    1982). The interval is Newcombe's (2006), method 5: the AUCs from which the measured one lies within
    z standard errors; defined at 0 and 1, too. ``n`` counts members and non-members.
    """
    m, n = len(members), len(non_members)
    if not m or not n:
        return null("needs both members and non-members", m + n)
    ranks = rankdata([*members, *non_members])
    value = float((sum(ranks[:m]) - m * (m + 1) / 2) / (m * n))
    return Rate(value, m + n, *auc_interval(value, m, n))


def auc_interval(value: float, m: int, n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return Newcombe's (2006) interval, method 5, of an AUC measured on m members and n non-members.

    The bounds A solve |value - A| = z sqrt(V(A)) with, for N = (m + n) / 2,
    V(A) = A (1 - A) / (m n) * (2N - 1 - (3N - 3) / ((2 - A)(1 + A))).

    Raises:
        ValueError: The value is no share, or a group is empty.
    """
    if not 0 <= value <= 1 or m < 1 or n < 1:
        raise ValueError(f"an AUC in [0, 1] of two groups is needed, got {value} of {m} and {n}")
    z = float(norm.ppf((1 + confidence) / 2))
    half = (m + n) / 2

    def variance(area: float) -> float:
        inner = 2 * half - 1 - (3 * half - 3) / ((2 - area) * (1 + area))
        return area * (1 - area) / (m * n) * max(0.0, inner)

    def below(area: float) -> float:
        return value - area - z * math.sqrt(variance(area))

    def above(area: float) -> float:
        return area - value - z * math.sqrt(variance(area))

    # At 0 and 1 the variance is 0 and the equation holds trivially: the root within is the one meant.
    low = 0.0 if value == 0 else float(brentq(below, 0.0, min(value, 1 - _EDGE)))
    high = 1.0 if value == 1 else float(brentq(above, max(value, _EDGE), 1.0))
    return low, high


def _mean(values: Sequence[float]) -> float:
    if not values:
        raise ValueError("a membership score needs the negative log-likelihood of at least one token")
    return sum(values) / len(values)
