"""The output guard: what is written runs through the names of all subjects before it leaves.

Text is released only once no alias (nor, for subjects that the conversation weakly concerns, any fact) can
still begin in it; the end of the text releases the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from app.lumoe.gate.canonical import canonicalise
from app.lumoe.gate.names import NameIndex
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
        self._names = names
        self._facts = {key: tuple(f" {fact} " for fact in record.facts) for key, record in records.items()}
        self._hints = {key: tuple(f" {hint} " for hint in record.hints) for key, record in records.items()}
        longest_fact = max((len(f) for facts in self._facts.values() for f in facts), default=0)
        self._hold = max(names.longest, longest_fact) * 2 + 8

    def check(
        self,
        text: str,
        watch: frozenset[str] = frozenset(),
        *,
        hinted: frozenset[str] = frozenset(),
        asked: str = "",
    ) -> GuardHit | None:
        """Return the first hit in `text`: a whole alias of anybody, or a fact of a watched subject.

        `hinted` are subjects of whom even a hint counts, unless the conversation itself (`asked`, canonical)
        has said it. Hints are true of others, too: use them only where an expert can answer instead.
        """
        hits = [GuardHit(h.expert_id, h.start, h.end) for h in self._names.find(text, fuzzy=False) if h.whole]
        canonical = canonicalise(text)
        padded = f" {canonical.text} "
        for expert_id in watch:
            for fact in self._facts.get(expert_id, ()):
                at = padded.find(fact)
                if at >= 0:
                    hits.append(GuardHit(expert_id, canonical.origin[at]))
        said = f" {asked} "
        for expert_id in hinted:
            for hint in self._hints.get(expert_id, ()):
                at = padded.find(hint)
                if at >= 0 and hint not in said:
                    hits.append(GuardHit(expert_id, canonical.origin[at]))
        return min(hits, key=lambda hit: hit.start, default=None)

    def releasable(self, text: str) -> int:
        """Return how many characters of unfinished, so far clean `text` may leave: whole words only."""
        cut = len(text) - self._hold
        return text.rfind(" ", 0, cut) + 1 if cut > 0 else 0
