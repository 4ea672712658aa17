"""Hold-back: how much of an unfinished text may leave, because no name in any reading can still begin in it.

A name of n letters takes at most n letters and digits of a text, whatever stands between them; encoded runs
take more, so that they are held as a whole, and with them what they may continue. The last words are held
because they decide: "Tovel" may go on as "Tovelsson", or as "Tovel Brakkin".
"""

from __future__ import annotations

import re
from collections.abc import Callable

CONTEXT = 3
"""Words that are held in any case: an unfinished one, and what may follow a name within a longer one."""

_NEAR = 160
"""Characters at the end of a text that are mostly enough to tell."""

_WORD = re.compile(r"\S+")
_ENCODED = re.compile(r"[0-9%&\\=+/_|~^]|[a-z][A-Z]|[A-Z]{2}|^\W*\w?\W*$|^.{16,}$")
"""Words that may be encoded or spelled out: digits, signs, capitals within, a single letter, or very long."""


def settled(text: str) -> int:
    """Return where the last `CONTEXT` words of `text` begin; what ends before is seen with its context."""
    return _from_the_end(text, _settled)


def releasable(text: str, letters: int) -> int:
    """Return how many characters of unfinished `text` may leave: whole words, nothing of a name begun.

    `letters` is the number of letters and digits of the longest name.
    """
    return _from_the_end(text, lambda end: _releasable(end, letters))


def _from_the_end(text: str, find: Callable[[str], int]) -> int:
    """Return `find(text)`, found in as little of the text's end as it takes.

    `find` returns 0 for an end of the text, whole words, in which it is not to be found.
    """
    size = _NEAR
    while True:
        start = max(0, len(text) - size)
        while start > 0 and not (text[start - 1].isspace() and not text[start].isspace()):
            start -= 1
        found = find(text[start:])
        if found or not start:
            return start + found if found else 0
        size *= 4


def _settled(text: str) -> int:
    words = [match.start() for match in _WORD.finditer(text)]
    return words[-CONTEXT] if len(words) >= CONTEXT else 0


def _releasable(text: str, letters: int) -> int:
    words = [match.span() for match in _WORD.finditer(text)]
    if len(words) <= CONTEXT:
        return 0
    at = back(text, words[-CONTEXT][0], letters)
    for start, end in reversed(words):
        if end <= at:
            break
        if _ENCODED.search(text[start:end]):
            at = min(at, back(text, start, letters))
    return next((start for start, end in words if end > at), 0)


def back(text: str, end: int, letters: int) -> int:
    """Return where the last `letters` letters and digits before `end` begin."""
    while end > 0 and letters > 0:
        end -= 1
        letters -= text[end].isalnum()
    return end
