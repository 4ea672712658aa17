"""Canonical text: one form for everything that reads the same, with the way back to the original.

Compatibility folding (NFKC, Unicode Standard Annex 15), zero-width characters dropped, diacritics stripped,
other scripts transliterated by sound (anyascii) or read as the Latin letter they look like (Unicode Technical
Standard 39), case folded, everything that is neither letter nor digit one space. Chinese characters are
words of their own and kana words end where the script changes: these scripts do not write spaces.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

from anyascii import anyascii
from confusable_homoglyphs.confusables import confusables_data

_INVISIBLE = frozenset(
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180e\u200b\u200c\u200d\u200e\u200f\u202a"
    "\u202b\u202c\u202d\u202e\u2060\u2061\u2062\u2063\u2064\u2066\u2067\u2068\u2069\u3164\ufe0e\ufe0f\ufeff"
)
_ASCII = str.maketrans(
    {chr(i): chr(i).lower() if chr(i).isalnum() else " " for i in range(128)},
)
_WORD = re.compile("[^ ]+")
_LATIN = frozenset(string.ascii_letters)
Fold = Callable[[str], str]
"""Maps one character to what it reads as: letters and digits of ASCII in lower case, and spaces."""


@dataclass(frozen=True, slots=True)
class Canonical:
    """`text`: words of [a-z0-9] between single spaces; `origin[i]`: index in the original of character i."""

    text: str
    origin: Sequence[int]

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Return the half-open range of the original text that canonical range [start, end) came from."""
        places = self.origin[start:end]
        return min(places), max(places) + 1


def canonicalise(text: str, fold: Fold | None = None) -> Canonical:
    """Return the canonical form of `text`, of any length and script; `fold` is `by_sound` unless given."""
    return _ascii(text) if text.isascii() else _any_script(text, fold or by_sound)


def _ascii(text: str) -> Canonical:
    """The common case, some five times faster."""
    parts: list[str] = []
    origin: list[int] = []
    before = 0
    for match in _WORD.finditer(text.translate(_ASCII)):
        if parts:
            origin.append(before)
        start, before = match.span()
        parts.append(match.group())
        origin.extend(range(start, before))
    return Canonical(" ".join(parts), origin)


def _any_script(text: str, fold: Fold) -> Canonical:
    out: list[str] = []
    origin: list[int] = []
    script = ""
    spaced = True
    for index, raw in enumerate(text):
        folded = fold(raw)
        if "\u3041" <= raw <= "\u30fe":  # hiragana, katakana
            before, script = script, "katakana" if raw > "\u30a0" else "hiragana"
            if before != script and not spaced and folded.strip():
                folded = " " + folded
        elif folded:
            if script and folded != " " and not spaced:
                folded = " " + folded
            script = ""
        if len(folded) == 1 and folded != " ":
            out.append(folded)
            origin.append(index)
            spaced = False
            continue
        for char in folded:
            if char != " ":
                out.append(char)
                origin.append(index)
                spaced = False
            elif not spaced:
                out.append(" ")
                origin.append(index)
                spaced = True
    if out and spaced:
        out.pop()
        origin.pop()
    return Canonical("".join(out), origin)


@lru_cache(maxsize=1 << 15)
def by_sound(char: str) -> str:
    """Return what `char` reads as, other scripts transliterated by sound; "" if it is not to be seen."""
    if char in _INVISIBLE or unicodedata.combining(char):
        return ""
    if char.isascii():
        return char.lower() if char.isalnum() else " "
    read = anyascii(unicodedata.normalize("NFKC", char)).casefold()
    if unicodedata.category(char)[0] == "L":  # soft and hard signs do not end a word
        read = read.replace("'", "").replace("`", "").replace('"', "")
        if not read:
            return ""
    read = "".join(c if c.isascii() and c.isalnum() else " " for c in read) or " "
    return f" {read} " if _is_ideograph(char) else read


@lru_cache(maxsize=1 << 15)
def by_look(char: str) -> str:
    """Return what `char` reads as, taken for the Latin letter it looks like if there is one."""
    return by_sound(char) if char.isascii() else _look_alikes().get(char) or by_sound(char)


def looks_otherwise(text: str) -> bool:
    """Whether some character of `text` looks like another letter than it sounds."""
    return not text.isascii() and any(by_look(char) != by_sound(char) for char in set(text))


def _is_ideograph(char: str) -> bool:
    return (
        "\u3400" <= char <= "\u9fff" or "\uf900" <= char <= "\ufaff" or "\U00020000" <= char <= "\U0003ffff"
    )


@cache
def _look_alikes() -> dict[str, str]:
    """Return {character: the Latin letter it looks like}, lower case, of the Unicode confusables.

    Small letters that are listed with no Latin letter are taken for what their capital looks like (в for B).
    """
    candidates = {
        char: [other["c"] for other in others]
        for char, others in confusables_data.items()
        if len(char) == 1 and not char.isascii() and not _is_east_asian(char)
    }
    found = {char: latin for char, others in candidates.items() for latin in others if latin in _LATIN}
    for char in map(chr, range(0x370, 0x530)):  # Greek and Cyrillic
        if char not in found and char.upper() in found:
            found[char] = found[char.upper()]
    for char, others in candidates.items():
        likely = (by_sound(other) for other in others if len(other) == 1)
        if char not in found and (read := next((one for one in likely if one in _LATIN), None)):
            found[char] = read
    return {
        char: "i" if latin == "l" and by_sound(char) == "i" else latin.lower()  # a capital I is listed as l
        for char, latin in found.items()
    }


def _is_east_asian(char: str) -> bool:
    return "\u2e80" <= char <= "\ua4cf" or "\uac00" <= char <= "\ud7ff" or _is_ideograph(char)
