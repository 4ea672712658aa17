"""The output guard: what is written runs through the names of all subjects before it leaves.

Text is released only once no alias (nor, for subjects that the conversation weakly concerns, any fact) can
still begin in it; the end of the text releases the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from app.lumoe.gate.begun import open_at_end
from app.lumoe.gate.canonical import canonicalise
from app.lumoe.gate.holdback import releasable, settled
from app.lumoe.gate.names import NameIndex
from app.lumoe.gate.readings import readings
from app.lumoe.gate.record import GateRecord

FALLBACK_REFUSALS = (
    "I'm sorry, but I can't help with that.",
    "I'm not able to answer that.",
    "Sorry, that is something I can't talk about.",
)


@dataclass(frozen=True, slots=True)
class GuardHit:
    """Forbidden text: whose it is, where it starts, and, for names, where it ends (indices into the text)."""

    expert_id: str
    start: int
    end: int | None = None


class Guard:
    """Immutable for one registry generation."""

    def __init__(self, records: Mapping[str, GateRecord], names: NameIndex) -> None:
        self._names, self._records = names, records

    @property
    def idle(self) -> bool:
        """Whether there is nobody to look for."""
        return not self._records

    def check(
        self,
        text: str,
        watch: frozenset[str] = frozenset(),
        *,
        hinted: frozenset[str] = frozenset(),
        asked: str = "",
        sent: int = 0,
        finished: bool = True,
    ) -> GuardHit | None:
        """Return the first hit in `text`: a whole alias of anybody, or a fact of a watched subject.

        Names and facts are found in every reading, disguised and encoded ones too. While the text is not
        `finished`, what its next words may still make a part of something longer is no hit; `releasable`
        holds it back. Of `sent` characters, which have left, only the last words are read, for context.

        `hinted` are subjects of whom even a hint counts. Hints are true of others, too: use them only where
        an expert can answer instead. What the conversation itself (`asked`, canonical) has said is no news.
        """
        skipped = settled(text[:sent])
        text = text[skipped:]
        limit = len(text) if finished else settled(text)
        names = [(h.start, h.end, h.expert_id) for h in self._names.find(text, fuzzy=False) if h.whole]
        told = [*self._facts_in(text, watch, asked), *self._hints_in(text, hinted, asked)]
        hits = [GuardHit(key, start + skipped, end + skipped) for start, end, key in names if end <= limit]
        hits += [GuardHit(key, start + skipped) for start, end, key in told if end <= limit]
        return min(hits, key=lambda hit: hit.start, default=None)

    def _facts_in(self, text: str, watch: frozenset[str], asked: str) -> Iterator[tuple[int, int, str]]:
        """Yield (start, end, subject) of facts, in every reading in which chance does not make words."""
        said = f" {asked} "
        facts = [(key, fact) for key in watch for fact in self._phrases(key, "facts") if fact not in said]
        for reading in readings(text, self._names.known) if facts else ():
            padded = f" {reading.form.text} "
            for expert_id, fact in facts:
                at = padded.find(fact) if reading.least == 1 else -1
                if at >= 0:
                    yield *reading.span(at, at + len(fact) - 2), expert_id

    def _phrases(self, expert_id: str, kind: Literal["facts", "hints"]) -> list[str]:
        record = self._records.get(expert_id)
        if record is None:
            return []
        return [f" {phrase} " for phrase in (record.facts if kind == "facts" else record.hints)]

    def _hints_in(self, text: str, hinted: frozenset[str], asked: str) -> Iterator[tuple[int, int, str]]:
        canonical = canonicalise(text)
        padded, said = f" {canonical.text} ", f" {asked} "
        for expert_id in hinted:
            for hint in self._phrases(expert_id, "hints"):
                at = padded.find(hint)
                if at >= 0 and hint not in said:
                    yield *canonical.span(at, at + len(hint) - 2), expert_id

    def open_at_end(
        self,
        text: str,
        within: int,
        watch: frozenset[str] = frozenset(),
        *,
        hinted: frozenset[str] = frozenset(),
    ) -> bool:
        """Say whether what comes after `text` may decide about anything in its first `within` characters.

        False means that `check` finds the same there however the text goes on.
        """
        told = [phrase for key in watch for phrase in self._phrases(key, "facts")]
        told += [phrase for key in hinted for phrase in self._phrases(key, "hints")]
        return open_at_end(text, within, self._names, [phrase.strip() for phrase in told])

    def releasable(self, text: str, watch: frozenset[str] = frozenset()) -> int:
        """Return how many characters of unfinished, so far clean `text` may leave: whole words only."""
        facts = (fact for key in watch if (record := self._records.get(key)) for fact in record.facts)
        return releasable(text, max(self._names.longest, max(map(len, facts), default=0)))
