"""Names: where a text, read in every way, names the subjects of all experts.

Exact hits come from an Aho-Corasick automaton (Aho and Corasick 1975), so their cost does not grow with the
number of experts. Near misses and inflected forms are only ever weak evidence: a near-namesake who is
nobody's subject differs from a mistyped subject in nothing but the answer.

An index is immutable. Adding an expert makes a new one that shares all but a small segment with the old.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from app.lumoe.gate.matching import Match, matches, stands_alone
from app.lumoe.gate.near import Borders
from app.lumoe.gate.ordinary import FUNCTION_WORDS
from app.lumoe.gate.readings import Reading, readings
from app.lumoe.gate.segment import LEAST_PART, Pattern, Segment, bases_of

SEGMENT = 128
"""A segment that has as many experts takes no more."""
RECENT = 8
"""Those added last have a segment of their own, and join the one before it when they are as many."""
_FUZZY = 4_000
_NEARBY = 200
_SMALL = re.compile(r"\b[a-z]{2,}\b")

Kind = Literal["exact", "inflected", "typo", "ordinary", "part"]
ORDINARY: Kind = "ordinary"
_ORDER: dict[Kind, int] = {"exact": 0, "ordinary": 1, "inflected": 2, "typo": 3, "part": 4}


@dataclass(frozen=True, slots=True)
class NameHit:
    """An alias found in a text: `start`, `end` are positions in the original; `edits` is 0 for exact hits.

    `whole`: surely the subject's whole name, and neither an ordinary word nor a part of somebody else's
    longer name. `cased`: written as a name, with a capital that the place in the sentence does not explain.

    `kind` says how it was found: `exact`; `inflected` (another ending); `typo` (one or two edits); `ordinary`
    (an ordinary word, or its plural: confirm it by other evidence); `part` (a word of the name, or the name
    in a longer one). `reading` says how the text was read: `plain`, `joined`, `leet`, `base64+joined` ...
    """

    expert_id: str
    alias: str
    start: int
    end: int
    edits: int
    whole: bool
    kind: Kind = "exact"
    reading: str = "plain"
    cased: bool = False


class NameIndex:
    """An immutable index over the aliases of all experts; `find` may be called from any thread."""

    def __init__(self, aliases: Mapping[str, Iterable[str]]) -> None:
        self._segments: tuple[Segment, ...] = (Segment(aliases),) if aliases else ()
        self._gone: frozenset[tuple[int, str]] = frozenset()
        self._measure()

    def _measure(self) -> None:
        self.longest = max((segment.longest for segment in self._segments), default=0)
        self._places = {id(segment): i for i, segment in enumerate(self._segments)}

    def with_experts(self, aliases: Mapping[str, Iterable[str]]) -> NameIndex:
        """Return an index that also holds these experts, each in place of what it held of it before.

        The work is that of the new experts and of those added just before, and every `RECENT` experts that
        of a segment, which is joined without reading its aliases again; both indexes stay usable.
        """
        index = self.without_experts(aliases)
        coming = list(aliases.items())
        for start in range(0, len(coming), SEGMENT):
            index = index._grown(Segment(dict(coming[start : start + SEGMENT])))
        return index

    def _grown(self, last: Segment) -> NameIndex:
        """Return an index with one more segment, joined with those before it that are small."""
        at = len(self._segments)
        while at and self._takes(self._segments[at - 1], last):
            at -= 1
            last = Segment.joined([self._clean(at), last])
        gone = frozenset(pair for pair in self._gone if pair[0] < at)
        return self._with((*self._segments[:at], last), gone)

    @staticmethod
    def _takes(segment: Segment, later: Segment) -> bool:
        held = len(segment.aliases)
        return held < RECENT or (held < SEGMENT and len(later.aliases) >= RECENT)

    def _clean(self, at: int) -> Segment:
        """Return a segment without what is gone from it."""
        segment = self._segments[at]
        gone = {expert_id for i, expert_id in self._gone if i == at}
        if not gone:
            return segment
        return Segment({key: names for key, names in segment.aliases.items() if key not in gone})

    def without_experts(self, expert_ids: Iterable[str]) -> NameIndex:
        """Return an index that holds none of `expert_ids`."""
        wanted = list(expert_ids)
        gone = {
            (i, expert_id)
            for i, segment in enumerate(self._segments)
            for expert_id in wanted
            if expert_id in segment.aliases
        }
        return self._with(self._segments, self._gone | gone) if gone - self._gone else self

    @property
    def segments(self) -> int:
        """How many segments there are; `find` looks through each."""
        return len(self._segments)

    def merged(self) -> NameIndex:
        """Return the same index in one segment: slow to make, fastest to use."""
        clean = [self._clean(i) for i in range(len(self._segments))]
        return self._with((Segment.joined(clean),) if clean else (), frozenset())

    def _with(self, segments: tuple[Segment, ...], gone: frozenset[tuple[int, str]]) -> NameIndex:
        index = NameIndex({})
        index._segments, index._gone = segments, gone
        index._measure()
        return index

    def known(self, word: str) -> bool:
        """Whether the canonical `word` is an alias, or a word of one."""
        return any(segment.known(word) for segment in self._segments)

    def begun(self, letters: str) -> bool:
        """Whether an alias, as it stands or reversed, begins with `letters` (its spaces left out)."""
        return any(segment.begun(letters) for segment in self._segments)

    def find(self, text: str, *, fuzzy: bool = True) -> list[NameHit]:
        """Return every hit in `text`: whole names first, longest first; then what is less sure.

        One hit per expert and place. `fuzzy` adds inflected forms and near misses, neither of them for
        experts whose whole name was found.
        """
        if not self._segments:
            return []
        hits: dict[tuple[str, int, int], NameHit] = {}
        for reading in readings(text, self.known):
            for hit in self._exact(reading):
                place = hit.expert_id, hit.start, hit.end
                if place not in hits or _rank(hit) < _rank(hits[place]):
                    hits[place] = hit
            if fuzzy and reading.least == 1:
                for hit in self._near(reading):
                    hits.setdefault((hit.expert_id, hit.start, hit.end), hit)
        return _without_lesser(hits.values())

    def _held(self, segment: Segment, patterns: Iterable[Pattern]) -> Iterator[Pattern]:
        if not self._gone:
            return iter(patterns)
        at = self._places[id(segment)]
        return (pattern for pattern in patterns if (at, pattern.expert_id) not in self._gone)

    def _exact(self, reading: Reading) -> Iterator[NameHit]:
        """Yield aliases; a match within a longer one is a part of that one."""
        open_: list[tuple[int, int, frozenset[str]]] = []  # matches that the place lies in
        for match in matches(reading, self._segments):
            patterns = tuple(self._held(match.segment, match.segment.patterns[match.key]))
            open_ = [held for held in open_ if held[1] > match.start]
            size = match.end - match.start
            longer = [o for a, b, o in open_ if a <= match.start and match.end <= b and b - a > size]
            around = frozenset[str]().union(*longer)
            open_.append((match.start, match.end, frozenset(p.expert_id for p in patterns)))
            for pattern in patterns:
                if pattern.letters >= reading.least and pattern.expert_id not in around:
                    yield _hit(reading, match, pattern, within=bool(longer))
        if reading.least == 1:
            yield from self._parts(reading)

    def _parts(self, reading: Reading) -> Iterator[NameHit]:
        """Yield single words of longer names."""
        text, at = reading.form.text, 0
        for word in text.split(" "):
            end = at + len(word)
            for segment in self._segments:
                if word not in segment.words:
                    continue
                for pattern in self._held(segment, segment.words[word]):
                    place = reading.span(at, end)
                    yield NameHit(pattern.expert_id, pattern.alias, *place, 0, False, "part", reading.name)
            at = end + 1

    def _near(self, reading: Reading) -> Iterator[NameHit]:
        """Yield inflected forms and near misses, of a long text in its last `_FUZZY` characters only."""
        text, cut = reading.form.text, 0
        if len(text) > _FUZZY:
            cut = text.find(" ", len(text) - _FUZZY) + 1
            text = text[cut:]
        places = _words(text)
        words = [text[a:b] for a, b in places]
        telling = [
            (i, bases_of(word))
            for i, word in enumerate(words)
            if len(word) >= LEAST_PART and word not in FUNCTION_WORDS
        ]
        borders = Borders(text)
        for segment in self._segments:
            for i, bases in telling:
                for pattern, first, last in segment.inflected(words, i, bases):
                    for held in self._held(segment, (pattern,)):
                        span = reading.span(cut + places[first][0], cut + places[last - 1][1])
                        kind = ORDINARY if held.ordinary else "inflected"
                        yield NameHit(held.expert_id, held.alias, *span, 1, False, kind, reading.name)
            for miss in segment.near.find(borders):
                for held in self._held(segment, segment.patterns[miss.alias]):
                    span = reading.span(cut + miss.start, cut + miss.end)
                    yield NameHit(held.expert_id, held.alias, *span, miss.edits, False, "typo", reading.name)


def _hit(reading: Reading, match: Match, pattern: Pattern, *, within: bool) -> NameHit:
    start, end = reading.span(match.start, match.end)
    name = reading.name if not match.spelled else f"{reading.name}+joined".removeprefix("plain+")
    whole = not within and match.surely
    if whole and pattern.partial:
        whole = match.key == pattern.alias and stands_alone(reading, match.start, match.end)
    kind: Kind = "ordinary" if pattern.ordinary else "exact" if whole else "part"
    cased = _cased(reading, match.start, match.end)
    return NameHit(
        pattern.expert_id, pattern.alias, start, end, 0, whole and not pattern.ordinary, kind, name, cased
    )


def _cased(reading: Reading, start: int, end: int) -> bool:
    """Whether the first letter is a capital for no other reason than that this is a name."""
    raw = reading.source.text
    a, b = reading.form.span(start, end)
    before = raw[max(0, a - _NEARBY) : a].rstrip(" \t\"'“”‘’«»„([*_")
    if not raw[a].isupper() or not before or before[-1] in ".!?:;\n…":
        return False
    return (
        _SMALL.search(raw, max(0, a - _NEARBY), a) is not None
        or _SMALL.search(raw, b, b + _NEARBY) is not None
    )


def _rank(hit: NameHit) -> tuple[bool, int, int, int]:
    return not hit.whole, _ORDER[hit.kind], hit.start - hit.end, hit.start


def _without_lesser(hits: Iterable[NameHit]) -> list[NameHit]:
    """Sort hits, surest first; of overlapping ones of one expert only the surest stays.

    Of an expert whose whole name was found, only exact hits stay.
    """
    kept: list[NameHit] = []
    places: dict[str, list[NameHit]] = {}
    for hit in sorted(hits, key=_rank):
        held = places.setdefault(hit.expert_id, [])
        doubtful = hit.kind in ("typo", "inflected", "part") and held and held[0].whole
        if not doubtful and not any(hit.start < other.end and other.start < hit.end for other in held):
            held.append(hit)
            kept.append(hit)
    return kept


def _words(text: str) -> list[tuple[int, int]]:
    spans, start = [], 0
    for part in text.split(" "):
        spans.append((start, start + len(part)))
        start += len(part) + 1
    return spans
