"""Similarity of two answers, by their words."""

from __future__ import annotations

from collections.abc import Sequence

from workers.verification.metrics.text import WORD


def lcs_length(left: Sequence[str], right: Sequence[str]) -> int:
    """Return the length of the longest common subsequence, in O(len(left) * len(right))."""
    row = [0] * (len(right) + 1)
    for a in left:
        diagonal = 0
        for j, b in enumerate(right, start=1):
            diagonal, row[j] = row[j], diagonal + 1 if a == b else max(row[j], row[j - 1])
    return row[-1]


def rouge_l(answer: str, reference: str) -> float:
    """Return ROUGE-L F1 of an answer against a reference.

    P = LCS/|answer|, R = LCS/|reference|, F1 = 2PR/(P+R). Source: Lin (2004); equal to the
    ``rouge-score`` library without stemming on ASCII text, and defined for other scripts too.
    """
    left, right = (WORD.findall(text.lower()) for text in (answer, reference))
    if not left or not right:
        return 0.0
    common = lcs_length(left, right)
    return 2 * common / (len(left) + len(right))
