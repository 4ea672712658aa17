"""Names: one automaton over all aliases of all experts, and near misses by edit distance.

Exact hits come from an Aho-Corasick automaton (Aho and Corasick 1975), so their cost does not grow with the
number of experts. Near misses (one typo from eight letters on, two from twelve) are only ever weak evidence:
a near-namesake who is nobody's subject differs from a mistyped subject in nothing but the answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import ahocorasick
import numpy as np
from rapidfuzz.distance import OSA
from rapidfuzz.process import cdist

from app.lumoe.gate.canonical import Canonical, canonicalise, joined_letters

_MIN_PART = 4
_FUNCTION_WORDS = frozenset(
    "a about an and are as at be been born by called can could describe did do does from had has "
    "have her him his how i if in is it its know like made me mean much my named not of on or please "
    "s say see she show so tell than that the their them then there they this to up us was we were "
    "what when where which who whom whose why will with would you your explain mr mrs ms dr sir "
    "madam professor".split()
)


@dataclass(frozen=True, slots=True)
class NameHit:
    """An alias found in a text: `start`, `end` are positions in the original; `edits` is 0 for exact hits.

    `whole` is false where the hit may be a part of somebody else's longer name.
    """

    expert_id: str
    alias: str
    start: int
    end: int
    edits: int
    whole: bool


@dataclass(frozen=True, slots=True)
class _Pattern:
    expert_id: str
    alias: str
    partial: bool


class NameIndex:
    """An immutable index over the aliases of all experts."""

    def __init__(self, aliases: Mapping[str, Iterable[str]]) -> None:
        self._patterns: dict[str, list[_Pattern]] = {}
        for expert_id, names in aliases.items():
            self._add(expert_id, [canonicalise(name).text for name in names])
        self._automaton = ahocorasick.Automaton()
        for key in self._patterns:
            self._automaton.add_word(key, key)
        if self._patterns:
            self._automaton.make_automaton()
        whole = [(k, p.expert_id) for k, ps in self._patterns.items() for p in ps if not p.partial]
        self._fuzzy = {
            words: ([k for k, _ in entries], [e for _, e in entries])
            for words in {k.count(" ") + 1 for k, _ in whole}
            if (entries := [(k, e) for k, e in whole if len(k) >= 8 and k.count(" ") + 1 == words])
        }
        self.longest = max((len(key) for key in self._patterns), default=0)

    def _add(self, expert_id: str, names: list[str]) -> None:
        """Add full aliases, their form without spaces, and parts of longer names (always `partial`)."""
        full = [name for name in names if name]
        longer = " ".join(f" {name} " for name in full if " " in name)
        for name in full:
            partial = " " not in name and f" {name} " in longer
            self._put(name, _Pattern(expert_id, name, partial))
            if " " in name:
                self._put(name.replace(" ", ""), _Pattern(expert_id, name, False))
                for part in name.split(" "):
                    if len(part) >= _MIN_PART and part not in full and part not in _FUNCTION_WORDS:
                        self._put(part, _Pattern(expert_id, name, True))

    def _put(self, key: str, pattern: _Pattern) -> None:
        held = self._patterns.setdefault(key, [])
        if pattern not in held:
            held.append(pattern)

    def find(self, text: str, *, fuzzy: bool = True) -> list[NameHit]:
        """Return every hit in `text`: exact ones first, longest first; then near misses."""
        if not self._patterns:
            return []
        canonical = canonicalise(text)
        hits: dict[tuple[str, int], NameHit] = {}
        for form in (canonical, joined_letters(canonical)):
            for hit in self._exact(form):
                hits.setdefault((hit.expert_id, hit.start), hit)
        found = sorted(hits.values(), key=lambda hit: (hit.start - hit.end, hit.start))
        if fuzzy:
            exact = {hit.expert_id for hit in found if hit.whole}
            found += [hit for hit in self._near(canonical) if hit.expert_id not in exact]
        return found

    def _exact(self, form: Canonical) -> Iterable[NameHit]:
        text = form.text
        matches = [
            (end - len(key) + 1, end + 1, key)
            for end, key in self._automaton.iter(text)
            if (end - len(key) < 0 or text[end - len(key)] == " ")
            and (end + 1 == len(text) or text[end + 1] == " ")
        ]
        for start, end, key in sorted(matches, key=lambda match: match[0] - match[1]):
            inside = any(s <= start and end <= e and (e - s) > (end - start) for s, e, _ in matches)
            for pattern in self._patterns[key]:
                alone = not inside and _stands_alone(text, start, end)
                whole = (not pattern.partial) or (key == pattern.alias and alone)
                if inside and pattern.partial:
                    continue
                yield NameHit(pattern.expert_id, pattern.alias, *form.span(start, end), 0, whole)

    def _near(self, form: Canonical) -> list[NameHit]:
        """Compare every window of as many words as an alias has; OSA distance (transpositions count one)."""
        words = _words(form.text)
        found: list[NameHit] = []
        for size, (aliases, owners) in self._fuzzy.items():
            spans = [(words[i][0], words[i + size - 1][1]) for i in range(len(words) - size + 1)]
            spans = [(a, b) for a, b in spans if b - a >= 7]
            if not spans:
                continue
            windows = [form.text[a:b] for a, b in spans]
            distances = cdist(windows, aliases, scorer=OSA.distance, score_cutoff=2, dtype=np.uint8)
            for row, column in zip(*np.nonzero(distances <= 2), strict=True):
                edits = int(distances[row, column])
                if 0 < edits <= (2 if len(aliases[column]) >= 12 else 1):
                    start, end = form.span(*spans[row])
                    found.append(NameHit(owners[column], aliases[column], start, end, edits, False))
        return found


def _words(text: str) -> list[tuple[int, int]]:
    spans, start = [], 0
    for part in text.split(" "):
        if part:
            spans.append((start, start + len(part)))
        start += len(part) + 1
    return spans


def _stands_alone(text: str, start: int, end: int) -> bool:
    """Whether the words beside [start, end) cannot belong to the same name: function words or text ends."""
    before = text[:start].split()
    after = text[end:].split()
    return (not before or before[-1] in _FUNCTION_WORDS) and (not after or after[0] in _FUNCTION_WORDS)
