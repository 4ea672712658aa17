"""Canonical text: one form for everything that reads the same, with the way back to the original.

Compatibility folding (NFKC, Unicode Standard Annex 15), zero-width characters dropped, diacritics stripped,
other scripts transliterated (anyascii), case folded, everything that is neither letter nor digit one space.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

from anyascii import anyascii

_INVISIBLE = frozenset(
    "\u00ad\u034f\u061c\u180e\u200b\u200c\u200d\u200e\u200f\u2060\u2061\u2062\u2063\u2064\ufeff"
)


@dataclass(frozen=True, slots=True)
class Canonical:
    """`text`: words of [a-z0-9] between single spaces; `origin[i]`: index in the original of character i."""

    text: str
    origin: tuple[int, ...]

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Return the half-open range of the original text that canonical range [start, end) came from."""
        return self.origin[start], self.origin[end - 1] + 1


def canonicalise(text: str) -> Canonical:
    """Return the canonical form of `text`, of any length and script."""
    out: list[str] = []
    origin: list[int] = []
    for index, raw in enumerate(text):
        if raw in _INVISIBLE or unicodedata.combining(raw):
            continue
        folded = raw.casefold() if raw.isascii() else anyascii(unicodedata.normalize("NFKC", raw)).casefold()
        for char in folded or " ":
            if char.isalnum() and char.isascii():
                out.append(char)
                origin.append(index)
            elif out and out[-1] != " ":
                out.append(" ")
                origin.append(index)
    if out and out[-1] == " ":
        out.pop()
        origin.pop()
    return Canonical("".join(out), tuple(origin))


def joined_letters(canonical: Canonical) -> Canonical:
    """Join runs of three or more single letters ("m i r a" -> "mira"); other words stay as they are.

    A double gap cannot be told from a single one after folding, so a whole spaced-out name becomes one word;
    the name index therefore holds every alias without its spaces, too.
    """
    words: list[tuple[int, int]] = []
    start = 0
    for part in canonical.text.split(" "):
        words.append((start, start + len(part)))
        start += len(part) + 1
    out: list[str] = []
    origin: list[int] = []
    i = 0
    while i < len(words):
        j = i
        while j < len(words) and words[j][1] - words[j][0] == 1:
            j += 1
        if out:
            out.append(" ")
            origin.append(origin[-1])
        run = words[i:j] if j - i >= 3 else words[i : i + 1]
        for a, b in run:
            out.append(canonical.text[a:b])
            origin.extend(canonical.origin[a:b])
        i += len(run)
    return Canonical("".join(out), tuple(origin))
