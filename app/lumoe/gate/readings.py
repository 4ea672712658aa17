"""Readings: every way in which a text may be meant to be read, each with the way back to the original.

As it stands; look-alike letters; leet ("M1r4"); reversed; letters shifted (rot13 and other Caesar shifts,
Atbash); and encoded runs decoded in place, twice if need be. Spaced-out letters ("M-i-r-a") are no reading of
their own: the name index looks at every reading once more without its spaces.

The work is bounded: what is derived from a text has, in sum, at most `_BUDGET` times its length.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product

from app.lumoe.gate.canonical import Canonical, by_look, canonicalise, looks_otherwise
from app.lumoe.gate.decode import Source, decodings, may_be_encoded
from app.lumoe.gate.ordinary import FUNCTION_WORDS, ordinary_words

Known = Callable[[str], bool]
"""Whether a canonical word is one of those looked for: it settles what a 1 stands for, i or l."""

_BUDGET = 6
_SLACK = 4_000
_SHIFTED = 500
_LEAST_DISGUISED = 5
_LEAST_SHIFTED = 8
_LOWER = string.ascii_lowercase
_LEET = str.maketrans("4@3€05$7+8962", "aaeeosstt" + "bggz")
_EITHER = "1!|¡"
_AS_I, _AS_L = ({ord(sign): letter for sign in _EITHER} for letter in "il")
_LEET_SIGN = re.compile("[0-9@€$!|+¡]")
_SIGNS = frozenset("@€$!|+¡")
_MAX_DOUBTFUL = 4
_MAX_DOUBTED = 60
_LEET_RUN = re.compile(r"(?<!\S)\S(?:[ \t]+\S)+(?=[.,;:!?]*(?:\s|$))|(?<!\S)\S*[0-9@€$!|+¡]\S*")
"""A word with a sign that may stand for a letter, or a run of single characters."""
_EDGES = ".,;:!?()[]{}\"'«»“”„‘’…*"


def _shift(n: int) -> dict[int, str]:
    rotated = _LOWER[n:] + _LOWER[:n]
    return {ord(a): b for a, b in zip(_LOWER + _LOWER.upper(), rotated + rotated.upper(), strict=True)}


_ROT13 = _shift(13)
_ATBASH = {
    ord(a): b for a, b in zip(_LOWER + _LOWER.upper(), _LOWER[::-1] + _LOWER[::-1].upper(), strict=True)
}
EXCHANGED = (_ROT13, _ATBASH)
"""Letters exchanged in all words."""
SHIFTED = tuple(_shift(n) for n in range(1, 26) if n != 13)
"""Letters shifted in the words that are not English."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One way to read a text.

    `name`: `plain`, `homoglyph`, `leet`, `reversed`, `rot13`, `caesar`, `atbash`, or the encodings that were
    decoded, outermost first ("base64", "hex+url"). `least`: names of fewer letters do not count in it.
    """

    name: str
    source: Source
    form: Canonical
    least: int = 1

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Return the half-open range of the original text that canonical range [start, end) came from."""
        return self.source.back(*self.form.span(start, end))


def readings(text: str, known: Known) -> Iterator[Reading]:
    """Yield every reading of `text`, the plain one first; empty ones are left out."""
    left = _BUDGET * len(text) + _SLACK
    for reading in _all(text, known):
        if reading.name != "plain":
            left -= len(reading.source.text)
            if left < 0:
                return
        if reading.form.text:
            yield reading


def _all(text: str, known: Known) -> Iterator[Reading]:
    original = Source(text)
    plain = Reading("plain", original, canonicalise(text))
    yield plain
    if looks_otherwise(text):
        yield Reading("homoglyph", original, canonicalise(text, by_look))
    yield from _leet(original, known, "leet")
    first = list(decodings(original))
    for name, source in first:
        yield from _decoded(name, source, known)
    yield from _turned(original, plain.form, "")
    yield from _shifted(plain)
    if may_be_encoded(text):
        back, rotated = original.reversed(), original.mapped(text.translate(_ROT13))
        yield from _leet(back, known, "reversed+leet")
        for name, source in (("reversed", back), ("rot13", rotated)):
            for inner, again in decodings(source):
                yield Reading(f"{name}+{inner}", again, canonicalise(again.text), _LEAST_DISGUISED)
    for name, source in first:
        for inner, again in decodings(source):
            yield from _decoded(f"{name}+{inner}", again, known)
        yield from _turned(source, canonicalise(source.text), f"{name}+")


def _decoded(name: str, source: Source, known: Known) -> Iterator[Reading]:
    yield Reading(name, source, canonicalise(source.text))
    if looks_otherwise(source.text):
        yield Reading(f"{name}+homoglyph", source, canonicalise(source.text, by_look))
    yield from _leet(source, known, f"{name}+leet")


def _turned(source: Source, form: Canonical, prefix: str) -> Iterator[Reading]:
    """Yield `source`, read as `form`, reversed, reversed word by word, in rot13 and in Atbash."""
    back = Canonical(form.text[::-1], form.origin[::-1])
    yield Reading(f"{prefix}reversed", source, back, _LEAST_DISGUISED)
    yield Reading(f"{prefix}reversed", source, _words_reversed(form), _LEAST_DISGUISED)
    for name, table in (("rot13", _ROT13), ("atbash", _ATBASH)):
        turned = Canonical(form.text.translate(table), form.origin)
        yield Reading(f"{prefix}{name}", source, turned, _LEAST_DISGUISED)


def _words_reversed(form: Canonical) -> Canonical:
    words = form.text.split(" ")
    origin: list[int] = []
    at = 0
    for word in words:
        end = at + len(word)
        origin += form.origin[at:end][::-1]
        origin += form.origin[end : end + 1]
        at = end + 1
    return Canonical(" ".join(word[::-1] for word in words), origin)


def _shifted(plain: Reading) -> Iterator[Reading]:
    """Yield the other Caesar shifts of the words that are not English, up to `_SHIFTED` letters of them."""
    kept = foreign_words(plain.form)
    if len(kept.text) >= _LEAST_SHIFTED:
        every = " ".join(kept.text.translate(table) for table in SHIFTED)
        places = ((*kept.origin, kept.origin[-1]) * len(SHIFTED))[:-1]
        yield Reading("caesar", plain.source, Canonical(every, places), _LEAST_SHIFTED)


def foreign_words(form: Canonical, *, unfinished: bool = False) -> Canonical:
    """Return the words that are not English, up to `_SHIFTED` letters of them.

    The last one is among them if it is `unfinished`: what it will be is not known.
    """
    kept: list[str] = []
    origin: list[int] = []
    at = 0
    for word in form.text.split(" "):
        end = at + len(word)
        last = unfinished and end == len(form.text)
        if last or (word.isalpha() and word not in FUNCTION_WORDS and word not in ordinary_words()):
            if kept:
                origin.append(form.origin[at])
            kept.append(word)
            origin += form.origin[at:end]
            if len(origin) > _SHIFTED:
                break
        at = end + 1
    return Canonical(" ".join(kept), origin)


def _leet(source: Source, known: Known, name: str) -> Iterator[Reading]:
    """Yield `source` with digits and signs among letters read as letters; a 1 that is not known both ways."""
    if _LEET_SIGN.search(source.text) is None:
        return
    seen = ""
    settled: dict[str, str | None] = {}
    for either in "il":
        read = _LEET_RUN.sub(partial(_deleet, known=known, either=either, settled=settled), source.text)
        if read not in (source.text, seen):
            seen = read
            yield Reading(name, source.mapped(read), canonicalise(read), _LEAST_DISGUISED)


def _deleet(match: re.Match[str], *, known: Known, either: str, settled: dict[str, str | None]) -> str:
    """Return a run with letters for signs, as long as before; `settled` keeps what is sure."""
    run = match.group()
    body = run.strip(_EDGES)
    if not any(map(str.isalpha, body)) and (len(body) < 3 or _SIGNS.isdisjoint(body)):
        return run  # a number
    if body not in settled:
        settled[body] = _settled(body.translate(_LEET), known)
    at = run.index(body)
    read = settled[body] or body.translate(_LEET).translate(_AS_L if either == "l" else _AS_I)
    return run[:at] + read + run[at + len(body) :]


def _settled(body: str, known: Known) -> str | None:
    """Return `body` with i or l for every 1 so that it is a known word, or the only English one."""
    doubtful = [i for i, char in enumerate(body) if char in _EITHER]
    if not 0 < len(doubtful) <= _MAX_DOUBTFUL or len(body) > _MAX_DOUBTED:
        return None
    letters = list(body)
    english: list[str] = []
    for choice in product("il", repeat=len(doubtful)):
        for i, letter in zip(doubtful, choice, strict=True):
            letters[i] = letter
        word = "".join(filter(str.isalnum, letters)).lower()
        if known(word):
            return "".join(letters)
        if word in ordinary_words():
            english.append("".join(letters))
    return english[0] if len(english) == 1 else None
