"""Rates with exact intervals: every figure the report shows carries its n and a 95 % interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scipy.stats import beta

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Rate:
    """A value measured on ``n`` items, in [0, 1] unless it is a difference, with a two-sided 95 % interval.

    ``value`` is None where it cannot be measured; ``reason`` then says why.
    """

    value: float | None
    n: int
    low: float
    high: float
    reason: str | None = None


def null(reason: str, n: int = 0) -> Rate:
    """Return a rate that could not be measured, with the reason a reader gets to see."""
    return Rate(None, n, 0.0, 1.0, reason)


def clopper_pearson(successes: int, n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return the exact binomial interval for ``successes`` out of ``n``.

    Source: Clopper and Pearson (1934), by beta quantiles:
    low = B(a/2; k, n-k+1), high = B(1-a/2; k+1, n-k), a = 1 - confidence.

    Raises:
        ValueError: If not 0 <= successes <= n.
    """
    if n < 0 or not 0 <= successes <= n:
        raise ValueError(f"successes must lie in 0..n, got {successes} of {n}")
    if n == 0:
        return 0.0, 1.0
    tail = (1 - confidence) / 2
    low = 0.0 if successes == 0 else float(beta.ppf(tail, successes, n - successes + 1))
    high = 1.0 if successes == n else float(beta.ppf(1 - tail, successes + 1, n - successes))
    return low, high


def rate(successes: int, n: int) -> Rate:
    """Return ``successes / n`` with its Clopper-Pearson interval; null when n is 0."""
    if n == 0:
        return null("nothing to measure")
    low, high = clopper_pearson(successes, n)
    return Rate(successes / n, n, low, high)


def share(flags: Sequence[bool]) -> Rate:
    """Return the share of true flags as a rate."""
    return rate(sum(flags), len(flags))


def bounded_mean(values: Sequence[float]) -> Rate:
    """Return the mean of values in [0, 1] with a conservative exact interval.

    P(v = 1) <= E[v] <= P(v > 0), so the lower Clopper-Pearson bound of the first and the upper
    bound of the second contain the mean; for 0/1 values this is Clopper-Pearson itself.

    Raises:
        ValueError: If a value lies outside [0, 1].
    """
    if not values:
        return null("nothing to measure")
    if min(values) < 0 or max(values) > 1:
        raise ValueError("bounded_mean takes values in [0, 1]")
    n = len(values)
    low, _ = clopper_pearson(sum(v >= 1 for v in values), n)
    _, high = clopper_pearson(sum(v > 0 for v in values), n)
    return Rate(sum(values) / n, n, low, high)


def difference(left: Sequence[bool], right: Sequence[bool]) -> Rate:
    """Return share(left) - share(right), in [-1, 1], with a conservative 95 % interval; n is that of `left`.

    Each share has its Clopper-Pearson interval at 97.5 %, so that both hold together with at least 95 %
    (Bonferroni), however the two depend on each other; the difference lies between their extremes.
    """
    if not left or not right:
        return Rate(None, 0, -1.0, 1.0, "nothing to measure")
    each = (1 + CONFIDENCE) / 2
    (low_l, high_l), (low_r, high_r) = (
        clopper_pearson(sum(flags), len(flags), each) for flags in (left, right)
    )
    value = sum(left) / len(left) - sum(right) / len(right)
    return Rate(value, len(left), low_l - high_r, high_l - low_r)
