"""The gate: from pictures and the whole conversation to the one who answers.

Strong evidence in the last turn routes. A follow-up is held by the last turn that concerned a subject, until
a picture or a name of somebody else releases it. Weak evidence never routes: the base model answers, and the
guard watches its answer for what it knows of the subject.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Literal

from app.lumoe.gate.descriptions import DescriptionIndex
from app.lumoe.gate.names import NameIndex
from app.lumoe.gate.pictures import PictureIndex
from app.lumoe.gate.record import GateRecord
from app.lumoe.gate.threshold import Thresholds
from app.lumoe.mllm import MLLM
from app.lumoe.parts import depends_on_before
from app.lumoe.types import Conversation, Decision, Evidence, Message, Strength, pictures_of

_CAPITALISED = re.compile(r"(?<![.!?:]\s)(?<!^)\b[A-Z][a-z]{2,}")


@dataclass(slots=True)
class _Turn:
    """What one message says: strong and weak evidence, and whether it shows a picture."""

    strong: list[Evidence] = field(default_factory=list)
    weak: list[Evidence] = field(default_factory=list)
    shows: bool = False
    doubtful: bool = False

    def add(self, evidence: Evidence) -> None:
        (self.strong if evidence.strength == "strong" else self.weak).append(evidence)


class Gate:
    """Immutable for one registry generation; `decide` may be called from any thread."""

    def __init__(self, mllm: MLLM, records: Mapping[str, GateRecord]) -> None:
        self._mllm = mllm
        self.records = dict(records)
        self.thresholds = Thresholds.over(list(self.records.values()))
        self.names = NameIndex({key: record.aliases for key, record in self.records.items()})
        self.descriptions = DescriptionIndex(self.records)
        self.pictures = PictureIndex(self.records, self.thresholds)

    def evolved(self, records: Mapping[str, GateRecord]) -> Gate:
        """Return the gate of `records`; the work is that of what differs, if that is little."""
        gone = [key for key, record in self.records.items() if records.get(key) is not record]
        fresh = {key: record for key, record in records.items() if self.records.get(key) is not record}
        if len(gone) + len(fresh) > max(8, len(self.records) // 4):
            return Gate(self._mllm, records)
        gate = copy(self)
        gate.records = dict(records)
        judged = any(len(self.records[key].negatives.recognition) for key in gone)
        if judged:  # a maximum cannot be taken back
            gate.thresholds = Thresholds.over(list(records.values()))
        names = {key: record.aliases for key, record in fresh.items()}
        gate.names = self.names.without_experts(gone).with_experts(names)
        gate.descriptions = self.descriptions.without(gone).with_records(fresh)
        if not judged:
            for record in fresh.values():
                gate.thresholds = gate.thresholds.with_record(record)
        gate.pictures = self.pictures.without(gone).with_records(fresh).under(gate.thresholds)
        return gate

    def compacted(self) -> Gate:
        """Return the same gate with its names in one index again: slow to make, faster to use."""
        gate = copy(self)
        gate.names = self.names.merged()
        return gate

    def decide(self, conversations: Sequence[Conversation]) -> list[Decision]:
        """Return who answers each conversation, with the evidence."""
        if not self.records:
            return [Decision() for _ in conversations]
        turns = [[self._read(message, i) for i, message in enumerate(c)] for c in conversations]
        self._look(conversations, turns)
        return [_fuse(c, t) for c, t in zip(conversations, turns, strict=True)]

    def _read(self, message: Message, turn: int) -> _Turn:
        found = _Turn()
        for hit in self.names.find(message.text):
            strength: Strength = "strong" if hit.whole and hit.edits == 0 else "weak"
            score = 1.0 - hit.edits / len(hit.alias)
            how = hit.kind if hit.reading == "plain" else f"{hit.kind}, {hit.reading}"
            found.add(Evidence(hit.expert_id, "name", strength, score, 1.0, turn, how))
        told = message.role == "assistant"  # an answer tells of somebody, it does not ask whom that fits
        for described in () if told else self.descriptions.find(message.text):
            phrases = float(described.facts + described.hints)
            found.add(Evidence(described.expert_id, "description", described.strength, phrases, 2.0, turn))
        return found

    def _look(self, conversations: Sequence[Conversation], turns: Sequence[Sequence[_Turn]]) -> None:
        """Add the pictures' evidence of all conversations in one pass."""
        where: list[tuple[_Turn, int]] = []
        for conversation, found in zip(conversations, turns, strict=True):
            for i, message in enumerate(conversation):
                found[i].shows = bool(message.images)
                where += [(found[i], i)] * len(message.images)
        hits, doubtful = self.pictures.find(self._mllm, pictures_of(conversations))
        for picture in doubtful:
            where[picture][0].doubtful = True
        for hit in hits:
            turn, index = where[hit.picture]
            kind: Literal["likeness", "picture"] = "likeness" if hit.by_likeness else "picture"
            turn.add(Evidence(hit.expert_id, kind, hit.strength, hit.score, hit.threshold, index))


def _fuse(conversation: Conversation, turns: Sequence[_Turn]) -> Decision:
    """Walk through the turns: who is being talked about now, who was, who might be."""
    focus: list[Evidence] = []
    lapsed: list[Evidence] = []
    weak: list[Evidence] = []
    last = len(turns) - 1
    doubtful = any(turn.doubtful for turn in turns)
    for i, (message, turn) in enumerate(zip(conversation, turns, strict=True)):
        weak += turn.weak
        if turn.strong:
            lapsed += [e for e in focus if e not in turn.strong]
            focus = turn.strong
        elif (
            turn.shows
            or (message.role == "user" and focus and not depends_on_before(message.text))
            or (i == last and focus and _names_somebody(message.text))
        ):
            lapsed, focus = lapsed + focus, []
    if focus:
        chosen = max(focus, key=lambda e: (e.turn, e.kind == "picture", e.score / e.threshold))
        if chosen.turn != last:
            held = _held(chosen, "strong")
            focus = [held, *[e for e in focus if e is not chosen]]
        others = frozenset(e.expert_id for e in (*focus, *weak, *lapsed)) - {chosen.expert_id}
        return Decision(chosen.expert_id, (*focus, *weak), others, doubtful)
    watched = [_held(e, "weak") for e in lapsed]
    return Decision(None, (*weak, *watched), frozenset(e.expert_id for e in (*weak, *watched)), doubtful)


def _held(evidence: Evidence, strength: Strength) -> Evidence:
    how = evidence.how if evidence.kind == "held" else evidence.kind
    return replace(evidence, kind="held", strength=strength, how=how)


def _names_somebody(text: str) -> bool:
    """Whether a capitalised word beyond a sentence's first suggests that somebody is named here."""
    return _CAPITALISED.search(text) is not None
