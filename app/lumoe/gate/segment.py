"""A segment of the name index: the aliases of some experts, immutable once made."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import ahocorasick

from app.lumoe.gate.canonical import canonicalise
from app.lumoe.gate.near import NearIndex, typos
from app.lumoe.gate.ordinary import is_ordinary

LEAST_PART = 4
_LEAST_INFLECTED = 6
_LONGEST_ENDING = 3
_VOWELS = "aeo"
"""Final vowels of a base form that other cases drop (Mira, of Miry)."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """An alias of an expert, canonical. `partial`: it is a word of a longer alias of the same expert, too."""

    expert_id: str
    alias: str
    partial: bool
    ordinary: bool

    @property
    def letters(self) -> int:
        """Letters and digits of the alias."""
        return len(self.alias) - self.alias.count(" ")


class Segment:
    """Exact lookup (an automaton over all aliases), words of aliases, and near misses."""

    def __init__(self, aliases: Mapping[str, Iterable[str]]) -> None:
        self.aliases = {expert_id: tuple(names) for expert_id, names in aliases.items()}
        self.patterns: dict[str, tuple[Pattern, ...]] = {}
        self.words: dict[str, tuple[Pattern, ...]] = {}
        for expert_id, names in self.aliases.items():
            self._add(expert_id, list(dict.fromkeys(filter(None, (canonicalise(n).text for n in names)))))
        self.near = NearIndex(
            key for key, held in self.patterns.items() if held[0].alias == key and typos(key)
        )
        self.longest = max(map(len, self.patterns), default=0)
        self._written = sorted({form for key in self.patterns for form in _without_spaces(key)})
        self.automaton = _automaton_of(self.patterns)

    @classmethod
    def joined(cls, segments: Sequence[Segment]) -> Segment:
        """Return one segment of several that have no expert in common; no alias is read again."""
        first, *others = segments
        if not others:
            return first
        segment = cls.__new__(cls)
        segment.aliases, segment.patterns, segment.words = {}, dict(first.patterns), dict(first.words)
        for held in segments:
            segment.aliases |= held.aliases
        for other in others:
            _put_all(segment.patterns, other.patterns)
            _put_all(segment.words, other.words)
        segment.near = NearIndex.joined([held.near for held in segments])
        segment.longest = max(held.longest for held in segments)
        segment._written = sorted(form for held in segments for form in held._written)
        segment.automaton = _automaton_of(segment.patterns)
        return segment

    def _add(self, expert_id: str, names: list[str]) -> None:
        """Add aliases, their forms without spaces, and the words of longer names."""
        longer = " ".join(f" {name} " for name in names if " " in name)
        for name in names:
            several = " " in name
            pattern = Pattern(expert_id, name, not several and f" {name} " in longer, is_ordinary(name))
            _put(self.patterns, name, pattern)
            if several:
                _put(self.patterns, name.replace(" ", ""), pattern)
                for word in name.split(" "):
                    if len(word) >= LEAST_PART and not is_ordinary(word):
                        _put(self.words, word, pattern)

    def known(self, word: str) -> bool:
        """Whether `word` is an alias, or a word of one."""
        return word in self.patterns or word in self.words

    def begun(self, letters: str) -> bool:
        """Whether an alias, as it stands or reversed, begins with `letters` (its spaces left out)."""
        at = bisect_left(self._written, letters)
        return at < len(self._written) and self._written[at].startswith(letters)

    def inflected(self, words: list[str], i: int, bases: Iterable[str]) -> Iterator[tuple[Pattern, int, int]]:
        """Yield (pattern, first word, last word + 1) of aliases that word `i` is an inflected form of.

        Every word of the alias must be there, each as it is or with another ending. `bases` are those of
        word `i` (`bases_of`).
        """
        for base in bases:
            for pattern in self.words.get(base, ()):
                parts = pattern.alias.split(" ")
                first = i - parts.index(base)
                last = first + len(parts)
                if first >= 0 and last <= len(words) and all(map(_inflects, words[first:last], parts)):
                    yield pattern, first, last
            if len(base) >= _LEAST_INFLECTED:
                for pattern in self.patterns.get(base, ()):
                    if pattern.alias == base:
                        yield pattern, i, i + 1


def _without_spaces(alias: str) -> set[str]:
    """Return the letters of an alias: forwards, backwards, and backwards word by word."""
    words = alias.split(" ")
    return {"".join(words), alias.replace(" ", "")[::-1], "".join(word[::-1] for word in words)}


def _automaton_of(patterns: Iterable[str]) -> ahocorasick.Automaton:
    automaton = ahocorasick.Automaton()
    for key in patterns:
        automaton.add_word(key, key)
    if len(automaton):
        automaton.make_automaton()
    return automaton


def _put_all(held: dict[str, tuple[Pattern, ...]], more: Mapping[str, tuple[Pattern, ...]]) -> None:
    for key, patterns in more.items():
        held[key] = held[key] + patterns if key in held else patterns


def _put(held: dict[str, tuple[Pattern, ...]], key: str, pattern: Pattern) -> None:
    if pattern not in (before := held.get(key, ())):
        held[key] = (*before, pattern)


def bases_of(word: str) -> Iterable[str]:
    """Return what `word` may be a case form of: up to three letters less, with another final vowel."""
    return dict.fromkeys(_bases(word))


def _bases(word: str) -> Iterator[str]:
    for cut in range(min(_LONGEST_ENDING, len(word) - LEAST_PART + 1) + 1):
        stem = word[: len(word) - cut]
        if cut and len(stem) >= LEAST_PART:
            yield stem
        if len(stem) >= LEAST_PART - 1:
            yield from (stem + vowel for vowel in _VOWELS if stem + vowel != word)


def _inflects(word: str, base: str) -> bool:
    if word == base:
        return True
    stem = base[:-1] if base[-1] in _VOWELS else base
    return len(stem) >= LEAST_PART - 1 and word.startswith(stem) and len(word) - len(stem) <= _LONGEST_ENDING
