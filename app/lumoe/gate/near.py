"""Near misses: aliases within one or two typos of what a text says, found without comparing it to all.

By the pigeonhole principle, k edits leave one of k + 1 pieces of an alias untouched (PASS-JOIN; Li, Deng,
Wang and Feng 2011); an Aho-Corasick automaton over all pieces finds candidates in one pass. A transposition
across two pieces' border counts as one edit but touches both, so every piece is also held with its last
letter exchanged for the next piece's first. Candidates are verified by the restricted edit distance (optimal
string alignment; Boytsov 2011), whose transpositions count one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import ahocorasick
from rapidfuzz.distance import OSA
from rapidfuzz.process import extract

ONE_TYPO = 8
TWO_TYPOS = 12
"""Letters from which on an alias may be misspelled once, twice."""


def typos(alias: str) -> int:
    """Return how many edits still make a near miss of `alias`."""
    return 2 if len(alias) >= TWO_TYPOS else 1 if len(alias) >= ONE_TYPO else 0


@dataclass(frozen=True, slots=True)
class NearMiss:
    """`text[start:end]` is `edits` (1 or 2) away from `alias`."""

    alias: str
    start: int
    end: int
    edits: int


class Borders:
    """Where the words of a canonical text begin and end; several indexes look through it."""

    __slots__ = ("_places", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self._places: _Places | None = None

    def places(self) -> _Places:
        """Return starts, ends, and by edits where the alias itself may then begin and end."""
        if self._places is None:
            starts = {0, *(i + 1 for i, char in enumerate(self.text) if char == " ")}
            ends = {start - 1 for start in starts if start} | {len(self.text)}
            begins = {k: {start + d for start in starts for d in range(-k, k + 1)} for k in (1, 2)}
            stops = {k: {end + d for end in ends for d in range(-2 * k, 2 * k + 1)} for k in (1, 2)}
            self._places = starts, ends, begins, stops
        return self._places


_Places = tuple[set[int], set[int], dict[int, set[int]], dict[int, set[int]]]
_Groups = tuple[tuple[int, int, tuple[str, ...]], ...]
"""Where a piece is from: (offset, letters of the alias, aliases)."""


class NearIndex:
    """Immutable; memory grows with three to five pieces per alias of eight letters and more."""

    def __init__(self, aliases: Iterable[str]) -> None:
        held: dict[str, dict[tuple[int, int], list[str]]] = {}
        for alias in dict.fromkeys(aliases):
            for offset, piece in _pieces(alias):
                held.setdefault(piece, {}).setdefault((offset, len(alias)), []).append(alias)
        self._set(
            {
                piece: tuple((offset, size, tuple(names)) for (offset, size), names in groups.items())
                for piece, groups in held.items()
            }
        )

    @classmethod
    def joined(cls, indexes: Sequence[NearIndex]) -> NearIndex:
        """Return one index of the aliases of several."""
        groups: dict[str, _Groups] = {}
        for index in indexes:
            for piece, (_, more) in index._automaton.items():
                groups[piece] = _together(groups[piece], more) if piece in groups else more
        joined = cls.__new__(cls)
        joined._set(groups)
        return joined

    def _set(self, groups: dict[str, _Groups]) -> None:
        self._empty = not groups
        self._automaton = ahocorasick.Automaton()
        for piece, entry in groups.items():
            self._automaton.add_word(piece, (len(piece), entry))
        if groups:
            self._automaton.make_automaton()

    def find(self, borders: Borders) -> list[NearMiss]:
        """Return every near miss in a canonical text that begins and ends with a word."""
        if self._empty:
            return []
        text = borders.text
        pieces = list(self._automaton.iter(text))
        if not pieces:
            return []
        starts, ends, begins, stops = borders.places()
        found: dict[tuple[int, int, str], int] = {}
        for last, (length, groups) in pieces:
            at = last + 1 - length
            for offset, size, aliases in groups:
                k = 2 if size >= TWO_TYPOS else 1
                if at - offset not in begins[k] or at - offset + size not in stops[k]:
                    continue
                for start in range(at - offset - k, at - offset + k + 1):
                    if start in starts:
                        for end in _within(ends, max(start + size - k, last + 1), start + size + k):
                            near = extract(
                                text[start:end], aliases, scorer=OSA.distance, score_cutoff=k, limit=None
                            )
                            found.update(((start, end, alias), int(edits)) for alias, edits, _ in near)
        return [NearMiss(alias, a, b, edits) for (a, b, alias), edits in found.items() if edits]


def _together(some: _Groups, more: _Groups) -> _Groups:
    held = {(offset, size): names for offset, size, names in some}
    for offset, size, names in more:
        held[offset, size] = tuple(dict.fromkeys(held.get((offset, size), ()) + names))
    return tuple((offset, size, names) for (offset, size), names in held.items())


def _within(ends: set[int], first: int, last: int) -> list[int]:
    """Return the ends of words from `first` to `last`, both included."""
    return [end for end in range(first, last + 1) if end in ends]


def _pieces(alias: str) -> Iterator[tuple[int, str]]:
    """Yield (offset, piece): the even parts, and each but the last with a letter of the next one."""
    k = typos(alias)
    if k == 0:
        return
    borders = [i * len(alias) // (k + 1) for i in range(k + 2)]
    for a, b in pairwise(borders):
        yield a, alias[a:b]
        if b < len(alias) and alias[b] != alias[b - 1]:
            yield a, alias[a : b - 1] + alias[b]
