"""Exact matches in one reading: whole words, or letters that spell a name out with anything between them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from app.lumoe.gate.ordinary import FUNCTION_WORDS, goes_on, leads_to
from app.lumoe.gate.readings import Reading
from app.lumoe.gate.segment import Segment

_LEAST_SPLIT = 8
"""Letters from which on a name may be found in words cut anywhere ("mirat ovel")."""
_LEAST_INSIDE = 5
"""Letters from which on a name may be spelled out among other spelled-out words without a gap."""
_LONGEST_ASIDE = 40
_OCCURRENCES = 32
"""Occurrences of one alias in one reading that are looked at."""
_LONE = re.compile(r"(?<![^ ])[a-z0-9] [a-z0-9] [a-z0-9](?![^ ])")
_BREAK = re.compile(r"[;:!?()\[\]{}\"“”„«»…|/\n]|\.(?:\s|$)")
_PARTICLES = frozenset(
    "van von der den de da di du del la le el al bin ibn ben st af zu y e mac mc o".split()
)
_AND = re.compile(r"\s+(?:and|or|&|und|et|y|e|i|oder|ou|o)\s")


@dataclass(frozen=True, slots=True)
class Match:
    """`key` of `segment` is what canonical [start, end) of a reading says.

    `spelled`: letter by letter, or in words that are cut otherwise; `surely`: not a part of something longer.
    """

    segment: Segment
    key: str
    start: int
    end: int
    spelled: bool = False
    surely: bool = True


def matches(reading: Reading, segments: Iterable[Segment]) -> list[Match]:
    """Return every match of an alias in `reading`, from the left; the longest first where several begin."""
    text = reading.form.text
    found: list[Match] = []
    often: Counter[str] = Counter()
    lone = _LONE.search(text) is not None
    squeezed = text.replace(" ", "") if lone or (reading.least == 1 and " " in text) else ""
    for segment in segments:
        if not segment.patterns:
            continue
        for last, key in segment.automaton.iter(text):
            end = last + 1
            start = end - len(key)
            if (start == 0 or text[start - 1] == " ") and (end == len(text) or text[end] == " "):
                often[key] += 1
                if often[key] <= _OCCURRENCES:
                    found.append(Match(segment, key, start, end))
        if squeezed:
            found += _across_words(reading, segment, squeezed)
    return sorted(found, key=lambda match: (match.start, -match.end))


def _across_words(reading: Reading, segment: Segment, squeezed: str) -> Iterator[Match]:
    """Yield aliases that are found once the spaces are gone, and begin and end with a word."""
    text = reading.form.text
    places: list[int] = []
    for last, key in segment.automaton.iter(squeezed):
        if len(key) < 3:
            continue
        places = places or [i for i, char in enumerate(text) if char != " "]
        start, end = places[last + 1 - len(key)], places[last] + 1
        if end - start == len(key):
            continue  # one word
        if (start and text[start - 1] != " ") or (end < len(text) and text[end] != " "):
            continue
        words = text[start:end].split(" ")
        if all(len(word) == 1 for word in words):
            yield Match(segment, key, start, end, True, _spelled_apart(reading, key, start, end))
        elif len(key) >= _LEAST_SPLIT or _cut_as(words, segment, key):
            yield Match(segment, key, start, end, True)


def _cut_as(words: list[str], segment: Segment, key: str) -> bool:
    """Whether the words begin where words of an alias begin ("xi jinping" for "xi jin ping")."""
    cuts = {sum(map(len, words[:i])) for i in range(1, len(words))}
    for pattern in segment.patterns[key]:
        parts = pattern.alias.split(" ")
        if cuts <= {sum(map(len, parts[:i])) for i in range(1, len(parts))}:
            return len(key) >= _LEAST_INSIDE
    return False


def _spelled_apart(reading: Reading, key: str, start: int, end: int) -> bool:
    """Whether a wider gap or their sense tells spelled-out words beside a spelled-out name from it."""
    text = reading.form.text
    left = right = ""
    i, j = start, end
    while i >= 2 and (i == 2 or text[i - 3] == " ") and len(left) < _LONGEST_ASIDE:
        i -= 2
        left = text[i] + left
    while j + 2 <= len(text) and (j + 2 == len(text) or text[j + 2] == " ") and len(right) < _LONGEST_ASIDE:
        j += 2
        right += text[j - 1]
    if not left and not right:
        return True
    places = [reading.form.origin[k] for k in range(start, end, 2)]
    gap = min(abs(b - a) for a, b in pairwise(places))
    wide_left = not left or abs(places[0] - reading.form.origin[start - 2]) > gap
    wide_right = not right or abs(reading.form.origin[end + 1] - places[-1]) > gap
    if wide_left and wide_right:
        return True
    if len(key) < _LEAST_INSIDE:
        return False
    apart_left = wide_left or len(left) >= _LONGEST_ASIDE or leads_to(left)
    apart_right = wide_right or len(right) >= _LONGEST_ASIDE or goes_on(right)
    return apart_left and apart_right


def stands_alone(reading: Reading, start: int, end: int) -> bool:
    """Whether the words beside canonical [start, end) cannot belong to the same name.

    Function words and the text's ends cannot, nor what punctuation parts from it, nor small letters beside a
    name in capitals ("Tovel paints").
    """
    text, raw = reading.form.text, reading.source.text
    a, b = reading.form.span(start, end)
    capital = raw[a].isupper() and not raw[a:b].isupper()
    before = text[text.rfind(" ", 0, max(start - 1, 0)) + 1 : max(start - 1, 0)]
    if before and before not in FUNCTION_WORDS:
        p, q = reading.form.span(start - 1 - len(before), start - 1)
        parted = q <= a and ((_BREAK.search(raw, q, a) is not None and len(before) > 1) or "," in raw[q:a])
        if not parted and not _small(raw[p:q], capital):
            return False
    stop = text.find(" ", end + 1)
    after = text[end + 1 : stop if stop >= 0 else len(text)]
    if after and after not in FUNCTION_WORDS:
        p, q = reading.form.span(end + 1, end + 1 + len(after))
        listed = raw[max(0, a - 8) : a].rstrip().endswith(",") and "," in raw[b:p]
        parted = b <= p and (listed or _BREAK.search(raw, b, p) is not None or _listed(raw, b, p, q))
        if not parted and not _small(raw[p:q], capital):
            return False
    return True


def _small(word: str, beside_capital: bool) -> bool:
    """Whether `word`, as written, is no part of the name beside it."""
    lower = word.lower()
    return lower in FUNCTION_WORDS or (beside_capital and word[:1].islower() and lower not in _PARTICLES)


def _listed(raw: str, end: int, start: int, stop: int) -> bool:
    """Whether a comma before raw[start:stop] goes on with a list, and not with a first name ("Tovel, Anna").

    A list goes on with another comma, or with a word that is no name: small beside a capital.
    """
    if "," not in raw[end:start]:
        return False
    return raw[stop : stop + 1] == "," or _AND.match(raw, stop) is not None
