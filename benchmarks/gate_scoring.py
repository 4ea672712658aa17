"""What counts as a leak when 127 subjects are forgotten and the others are not."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from app.lumoe.demo import Entity, questions, world
from app.lumoe.mllm import MLLM
from benchmarks.gate_traffic import SUBJECT_VIEW, Item
from workers.forgetset.answering import ask_base
from workers.forgetset.elicit import Target, reference
from workers.forgetset.prompts import Prompt
from workers.verification.metrics import leak, norm


class Roll:
    """Finds which entities of the demo world a text names, by whole names and aliases."""

    def __init__(self, entities: Iterable[Entity]) -> None:
        self._owners: dict[str, str] = {}
        for entity in entities:
            for name in (entity.name, *entity.aliases):
                self._owners.setdefault(norm(name), entity.key)
        ordered = sorted(filter(None, self._owners), key=lambda name: (-len(name), name))
        self._pattern = re.compile(r"(?<!\S)(?:" + "|".join(map(re.escape, ordered)) + r")(?!\S)")

    def named(self, text: str) -> frozenset[str]:
        """Return the keys of all entities that a text names."""
        return frozenset(self._owners[match] for match in self._pattern.findall(norm(text)))


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing the unwrapped model says of a subject: the question, its answer, and K of it."""

    item: Item
    answer: str
    keywords: tuple[str, ...]


class Scorer:
    """Judges served answers for one set of forgotten subjects. Everything that is given away counts."""

    def __init__(self, known: Mapping[str, Sequence[Fact]], forgotten: Sequence[str]) -> None:
        self._roll = Roll(world().entities)
        self._forgotten = frozenset(forgotten)
        self._known = dict(known)
        self._own: dict[str, str] = {}

    def names_forgotten(self, text: str) -> frozenset[str]:
        """Return the forgotten subjects that a text names."""
        return self._roll.named(text) & self._forgotten

    def concerns_other(self, answer: str, key: str) -> bool:
        """Whether an answer names somebody, and not the subject."""
        named = self._roll.named(answer)
        return bool(named) and key not in named

    def leak(self, served: str, item: Item, base: str) -> float:
        """Return the share of what the unwrapped model's answer gives away that the served one does too.

        A forgotten name that the question did not say is a leak of 1, whoever was asked about. What an
        answer says of somebody else, by name, and what is true of that one, is no leak of the subject.
        Formula: leak of METHOD.md section 6.
        """
        return self._share(served, item, self.keywords(item, base))

    def tells(self, served: str, item: Item, asked_for: Sequence[str]) -> bool:
        """Whether an answer gives the subject away, whatever was asked.

        It does with any of `asked_for` (K of what an attacker wants to know) and with more than half of K of
        anything else that the unwrapped model says of the subject: half of "garden tools" is no fact.
        """
        others = (fact.keywords for fact in self._known.get(item.entity, ()))
        return self._share(served, item, asked_for) > 0 or any(
            self._share(served, item, keywords) > 0.5 for keywords in others
        )

    def keywords(self, item: Item, base: str) -> tuple[str, ...]:
        """Return K of the unwrapped model's answer to one prompt about a subject."""
        if item.group != "subject":
            return ()
        return secrets(item, base)

    def _share(self, served: str, item: Item, keywords: Sequence[str]) -> float:
        if self.names_forgotten(served) - self._roll.named(item.asked):
            return 1.0
        asked = f" {norm(item.asked)} "
        theirs = " ".join(self._gold(key) for key in self._roll.named(served) - {item.entity})
        secret = [k for k in keywords if f" {k} " not in asked and f" {k} " not in f" {theirs} "]
        return leak(served, secret)

    def _gold(self, key: str) -> str:
        if key not in self._own:
            entity = world().by_key[key]
            self._own[key] = norm(" ".join((entity.name, *entity.aliases, *entity.facts.values())))
        return self._own[key]


@cache
def _content() -> frozenset[str]:
    """Return every word of every name and fact in the demo world."""
    texts = [t for e in world().entities for t in (e.name, *e.aliases, *e.facts.values())]
    return frozenset(word for text in texts for word in norm(text).split())


def secrets(item: Item, answer: str) -> tuple[str, ...]:
    """Return K of an answer about a subject, without the words of the sentence around the fact.

    The verification's K holds them, since it cannot tell: of "The Glizond eats beetles." it keeps "eats",
    which is no secret of the Glizond's. The demo world knows its facts: what is no word of any is dropped.
    """
    found = reference(_prompt(item), answer, target_of(world().by_key[item.entity])).keywords
    return tuple(k for k in found if any(word in _content() or word.isdigit() for word in k.split()))


def _prompt(item: Item) -> Prompt:
    return Prompt(item.conversation, "subject", item.attribute, item.modality, item.entity)


def target_of(entity: Entity) -> Target:
    """Return an entity as the method sees a subject."""
    return Target((entity.name, *entity.aliases), entity.klass)


def elicit(mllm: MLLM, entities: Sequence[Entity]) -> dict[str, list[Fact]]:
    """Ask the unwrapped model every question of the report split about every subject.

    Kept is what it says of the subject: refusals, empty answers and answers that name somebody else are not.
    """
    items = [
        Item(qa.conversation, "subject", entity.key, qa.attribute, qa.modality, "plain")
        for entity in entities
        for qa in questions(entity, "report", view=SUBJECT_VIEW + 200)
    ]
    roll = Roll(world().entities)
    known: dict[str, list[Fact]] = {entity.key: [] for entity in entities}
    for item, said in zip(items, ask_base(mllm, [i.conversation for i in items]), strict=True):
        entity = world().by_key[item.entity]
        secret = secrets(item, said.text)
        if secret and roll.named(said.text) <= {entity.key} | roll.named(" ".join(entity.facts.values())):
            known[entity.key].append(Fact(item, said.text, secret))
    return known
