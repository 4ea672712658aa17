"""Hold-back: how much of an unfinished text may leave, because no name in any reading can still begin in it.

A name of n letters takes at most n letters and digits of a text, whatever stands between them; encoded runs
take more, so that they are held as a whole, and with them what they may continue. The last words are held
because they decide: "Tovel" may go on as "Tovelsson", or as "Tovel Brakkin".
"""

from __future__ import annotations

import re

CONTEXT = 3
"""Words that are held in any case: an unfinished one, and what may follow a name within a longer one."""

_WORD = re.compile(r"\S+")
_ENCODED = re.compile(r"[0-9%&\\=+/_|~^]|[a-z][A-Z]|[A-Z]{2}|^\W*\w?\W*$|^.{16,}$")
"""Words that may be encoded or spelled out: digits, signs, capitals within, a single letter, or very long."""


def settled(text: str) -> int:
    """Return where the last `CONTEXT` words of `text` begin; what ends before is seen with its context."""
    words = [match.start() for match in _WORD.finditer(text)]
    return words[-CONTEXT] if len(words) >= CONTEXT else 0


def releasable(text: str, letters: int) -> int:
    """Return how many characters of unfinished `text` may leave: whole words, nothing of a name begun.

    `letters` is the number of letters and digits of the longest name.
    """
    words = [match.span() for match in _WORD.finditer(text)]
    if len(words) <= CONTEXT:
        return 0
    at = _back(text, words[-CONTEXT][0], letters)
    for start, end in reversed(words):
        if end <= at:
            break
        if _ENCODED.search(text[start:end]):
            at = min(at, _back(text, start, letters))
    return next((start for start, end in words if end > at), 0)


def _back(text: str, end: int, letters: int) -> int:
    """Return where the last `letters` letters and digits before `end` begin."""
    while end > 0 and letters > 0:
        end -= 1
        letters -= text[end].isalnum()
    return end
