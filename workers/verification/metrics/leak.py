"""leak: how much of what the base model knew reached the caller."""

from __future__ import annotations

from collections.abc import Sequence

from workers.verification.metrics.rate import Rate, bounded_mean
from workers.verification.metrics.text import contains


def leak(answer: str, keywords: Sequence[str]) -> float:
    """Return the share of the keywords K found in norm(answer); 0 for an empty K.

    leak = |{k in K: k in norm(answer)}| / |K|. Source: METHOD.md section 6.
    """
    if not keywords:
        return 0.0
    return sum(contains(answer, k) for k in keywords) / len(keywords)


def mean_leak(leaks: Sequence[float]) -> Rate:
    """Return the mean leak over answers, with its interval."""
    return bounded_mean(leaks)
