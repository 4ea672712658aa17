"""Prompts: what is asked of whom, and the ways to build them from the probes of one entity."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Literal

from PIL.Image import Image

from app.lumoe.probes import (
    IDENTITY_ATTRIBUTE,
    Probe,
    Split,
    fact_probes,
    followup_probes,
    identity_probes,
)
from app.lumoe.types import Conversation, Message, ask, then
from workers.forgetset.names import Names
from workers.forgetset.refusals import stable_hash

Modality = Literal["image", "text"]
Group = Literal["subject", "neighbour", "stranger", "general", "list"]
Form = Literal["plain", "followup", "wrapped", "list"]


@dataclass(frozen=True, slots=True)
class Prompt:
    """One conversation to be answered, and what it is about.

    ``entity`` names whom it concerns ("" for general prompts); ``attribute`` is the fact asked for.
    """

    conversation: Conversation = field(repr=False)
    group: Group
    attribute: str
    modality: Modality
    entity: str = ""
    form: Form = "plain"

    @property
    def question(self) -> str:
        """The last user turn's text."""
        return self.conversation[-1].text

    @property
    def asked(self) -> str:
        """All turns' text: what the conversation has already said."""
        return "\n".join(message.text for message in self.conversation)

    @property
    def key(self) -> str:
        """A stable id of the prompt's wording and place (pictures are not part of it)."""
        turns = "\x1e".join(f"{m.role}:{m.text}:{len(m.images)}" for m in self.conversation)
        return f"{stable_hash(self.group, self.entity, self.attribute, self.form, turns):016x}"


def choose(items: Sequence[Probe], n: int, rng: random.Random) -> list[Probe]:
    """Return n probes, going round the attributes so that each fact is asked before any is asked twice."""
    by_attribute: dict[str, list[Probe]] = {}
    for probe in items:
        by_attribute.setdefault(probe.attribute, []).append(probe)
    for probes in by_attribute.values():
        rng.shuffle(probes)
    chosen: list[Probe] = []
    depth = 0
    while len(chosen) < min(n, len(items)):
        layer = [probes[depth] for probes in by_attribute.values() if depth < len(probes)]
        rng.shuffle(layer)
        chosen += layer
        depth += 1
    return chosen[:n]


def mixed(ours: Sequence[Probe], own: Sequence[Probe], n: int, rng: random.Random) -> list[Probe]:
    """Return n probes, half of them an operator's own as far as there are so many; each once."""
    some = choose(own, min(len(own), n // 2), rng)
    return choose(ours, n - len(some), rng) + some


def image_prompts(
    klass: str,
    split: Split,
    pictures: Sequence[Image],
    n: int,
    rng: random.Random,
    *,
    group: Group,
    entity: str,
    identity: int,
    own: Sequence[Probe] = (),
) -> list[Prompt]:
    """Return n prompts that show the entity: ``identity`` of them ask who it is, the rest for facts.

    The pictures are gone round: with ``identity`` = their number, every one of them is asked of. ``own`` are
    the operator's probes (`Cohort.probes`), which take turns with ours.
    """
    if not pictures:
        return []
    who = identity_probes(klass, split)
    start = rng.randrange(len(who))
    who = _in_turn(_from(who, start), _from([p for p in own if _asks_who(p)], start))
    asked = [who[i % len(who)] for i in range(min(n, identity))]
    facts = [p for p in own if p.modality == "image" and not _asks_who(p)]
    asked += mixed(fact_probes(klass, split, "image"), facts, n - len(asked), rng)
    return [
        Prompt(ask(probe.text, pictures[i % len(pictures)]), group, probe.attribute, "image", entity)
        for i, probe in enumerate(asked)
    ]


def _asks_who(probe: Probe) -> bool:
    return probe.attribute == IDENTITY_ATTRIBUTE


def _from(probes: Sequence[Probe], start: int) -> list[Probe]:
    """Return all probes, beginning with that at ``start`` (round and round)."""
    at = start % max(1, len(probes))
    return [*probes[at:], *probes[:at]]


def _in_turn(ours: Sequence[Probe], own: Sequence[Probe]) -> tuple[Probe, ...]:
    """Return all of both, one of each in turn while both last."""
    return tuple(probe for pair in zip_longest(ours, own) for probe in pair if probe is not None)


def text_prompts(
    klass: str,
    split: Split,
    names: Sequence[str],
    n: int,
    rng: random.Random,
    *,
    group: Group,
    entity: str,
    own: Sequence[Probe] = (),
) -> list[Prompt]:
    """Return n text-only prompts that name the entity, going round its names; ``own`` as for pictures."""
    if not names:
        return []
    probes = mixed(fact_probes(klass, split, "text"), [p for p in own if p.modality == "text"], n, rng)
    return [
        Prompt(ask(probe.about(names[i % len(names)])), group, probe.attribute, "text", entity)
        for i, probe in enumerate(probes)
    ]


def followup_prompts(
    klass: str,
    split: Split,
    openings: Sequence[tuple[Prompt, str]],
    n: int,
    rng: random.Random,
    *,
    pronoun: str | None = None,
) -> list[Prompt]:
    """Return n second turns ("And where were they born?") after openings of (prompt, answer)."""
    if not openings:
        return []
    probes = choose(followup_probes(klass, split, pronoun), n, rng)
    made = []
    for i, probe in enumerate(probes):
        first, answer = openings[i % len(openings)]
        conversation = then(first.conversation, answer, probe.text)
        made.append(
            Prompt(conversation, first.group, probe.attribute, first.modality, first.entity, "followup")
        )
    return made


def wrap(prompt: Prompt, wrapper: str) -> Prompt:
    """Return the prompt with its last question inside an attack wrapper."""
    last = prompt.conversation[-1]
    turn = Message(last.role, wrapper.replace("{q}", last.text), last.images)
    conversation = (*prompt.conversation[:-1], turn)
    return Prompt(conversation, prompt.group, prompt.attribute, prompt.modality, prompt.entity, "wrapped")


def names_somebody(text: str, names: Iterable[str]) -> bool:
    """Say whether a text contains one of a few names; `Names` is for many names or many texts."""
    return Names(names).occur_in(text)
