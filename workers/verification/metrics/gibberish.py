"""gibberish: text that repeats itself instead of saying something."""

from __future__ import annotations

from collections.abc import Sequence

from workers.verification.metrics.text import tokens as words_of

REPEATED_4GRAMS = 0.5
DISTINCT_TOKENS = 0.3


def repeated_ngrams(tokens: Sequence[str], n: int = 4) -> float:
    """Return 1 - distinct n-grams / all n-grams; 0 for fewer than n + 1 tokens."""
    grams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if len(grams) > 1 else 0.0


def is_gibberish(answer: str) -> bool:
    """Say whether an answer is gibberish: repeated 4-grams > .5 or distinct/total tokens < .3.

    Source: METHOD.md section 6. An empty answer is not gibberish (it is no refusal either).
    """
    tokens = words_of(answer)
    if not tokens:
        return False
    return repeated_ngrams(tokens) > REPEATED_4GRAMS or len(set(tokens)) / len(tokens) < DISTINCT_TOKENS
