"""Prompts: what is asked of whom, and the ways to build them from the probes of one entity."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from PIL.Image import Image

from app.lumoe.probes import Probe, Split, fact_probes, followup_probes, identity_probes
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
) -> list[Prompt]:
    """Return n prompts that show the entity: ``identity`` of them ask who it is, the rest for facts.

    The pictures are gone round: with ``identity`` = their number, every one of them is asked of.
    """
    if not pictures:
        return []
    who = identity_probes(klass, split)
    start = rng.randrange(len(who))
    asked = [who[(start + i) % len(who)] for i in range(min(n, identity))]
    asked += choose(fact_probes(klass, split, "image"), n - len(asked), rng)
    return [
        Prompt(ask(probe.text, pictures[i % len(pictures)]), group, probe.attribute, "image", entity)
        for i, probe in enumerate(asked)
    ]


def text_prompts(
    klass: str, split: Split, names: Sequence[str], n: int, rng: random.Random, *, group: Group, entity: str
) -> list[Prompt]:
    """Return n text-only prompts that name the entity, going round its names."""
    if not names:
        return []
    probes = choose(fact_probes(klass, split, "text"), n, rng)
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
