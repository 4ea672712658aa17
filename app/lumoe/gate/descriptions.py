"""Descriptions: questions that mean a subject by what is told of it ("the painter born in Shate").

Phrases that the base model tells of one subject alone are `facts`; words that it tells of the subject, and
perhaps of others, are `hints` (GateRecord). One phrase is a coincidence, two of one subject describe it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from app.lumoe.gate.canonical import canonicalise
from app.lumoe.gate.record import GateRecord
from app.lumoe.types import Strength

_LONGEST = 8
_LEAST_LETTERS = 4


@dataclass(frozen=True, slots=True)
class Description:
    """An expert whose subject a text describes: by how many of its facts, and by how many hints besides."""

    expert_id: str
    facts: int
    hints: int
    strength: Strength


class DescriptionIndex:
    """Immutable as seen from outside: every phrase of every subject, and whose it is.

    Indexes made from each other share one table that only grows; each sees in it what its own records say.
    """

    def __init__(self, records: Mapping[str, GateRecord]) -> None:
        self._records = dict(records)
        self._facts: dict[str, list[tuple[str, GateRecord]]] = {}
        self._hints: dict[str, list[tuple[str, GateRecord]]] = {}
        for key, record in self._records.items():
            self._enter(key, record)

    def with_records(self, records: Mapping[str, GateRecord]) -> DescriptionIndex:
        """Return an index that also holds `records`, each in place of what it held for its key."""
        index = DescriptionIndex({})
        index._records = {**self._records, **records}
        index._facts, index._hints = self._facts, self._hints
        for key, record in records.items():
            index._enter(key, record)
        return index

    def without(self, keys: Sequence[str]) -> DescriptionIndex:
        """Return an index that does not hold the records of `keys`."""
        index = DescriptionIndex({})
        index._records = {key: record for key, record in self._records.items() if key not in keys}
        index._facts, index._hints = self._facts, self._hints
        return index

    def _enter(self, key: str, record: GateRecord) -> None:
        for phrase in record.facts:
            self._facts.setdefault(phrase, []).append((key, record))
        for phrase in record.hints:
            if len(phrase) >= _LEAST_LETTERS and phrase not in record.facts:
                self._hints.setdefault(phrase, []).append((key, record))

    def _whose(self, table: Mapping[str, list[tuple[str, GateRecord]]], phrase: str) -> Iterator[str]:
        return (key for key, record in table.get(phrase, ()) if self._records.get(key) is record)

    def find(self, text: str) -> list[Description]:
        """Return whom `text` describes: strong with two phrases of which one is a fact, weak with less.

        Two hints are weak, one is nothing.
        """
        facts: defaultdict[str, int] = defaultdict(int)
        hints: defaultdict[str, int] = defaultdict(int)
        for phrase in set(_phrases(canonicalise(text).text.split())):
            for key in self._whose(self._facts, phrase):
                facts[key] += 1
            for key in self._whose(self._hints, phrase):
                hints[key] += 1
        return [
            Description(key, facts[key], hints[key], "strong" if both >= 2 and facts[key] else "weak")
            for key in {**facts, **hints}
            if (both := facts[key] + hints[key]) >= 2 or facts[key]
        ]


def _phrases(words: list[str]) -> list[str]:
    return [" ".join(words[i : i + n]) for n in range(1, _LONGEST + 1) for i in range(len(words) - n + 1)]
