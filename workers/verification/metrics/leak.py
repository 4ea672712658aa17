"""leak: how much of what the base model knew reached the caller."""

from __future__ import annotations

from collections.abc import Sequence

from workers.verification.metrics.rate import Rate, bounded_mean
from workers.verification.metrics.text import contains, norm

_NUMBERS = dict(
    zip(
        map(str, range(21)),
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
        "sixteen seventeen eighteen nineteen twenty".split(),
        strict=True,
    )
)


def leak(answer: str, keywords: Sequence[str], aliases: Sequence[str] = ()) -> float:
    """Return the share of the keywords K found in norm(answer); 0 for an empty K.

    leak = |{k in K: k in norm(answer)}| / |K|. Source: METHOD.md section 6. A small number is found as a
    word, too; where K holds one of the subject's ``aliases``, any of them is as good.
    """
    if not keywords:
        return 0.0
    return sum(gives_away(answer, k, aliases) for k in keywords) / len(keywords)


def gives_away(answer: str, keyword: str, aliases: Sequence[str] = ()) -> bool:
    """Say whether an answer contains one keyword, or what stands for it; see ``leak``."""
    forms = [keyword, _NUMBERS.get(keyword, keyword)]
    if keyword in {norm(alias) for alias in aliases}:
        forms += aliases
    return any(contains(answer, form) for form in forms)


def mean_leak(leaks: Sequence[float]) -> Rate:
    """Return the mean leak over answers, with its interval."""
    return bounded_mean(leaks)
