"""What the gate's benchmark asks: about the forgotten, and about everybody and everything else.

All of it belongs to the report split: wordings that no training and no calibration has seen, views from
320,000 on, strangers drawn afresh. Pure functions of the sizes and a seed.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Final, Literal, Protocol, TypeVar

from app.lumoe.demo import Entity, draw, followups, general, lists, world
from app.lumoe.probes import Modality, fact_probes, identity_probes
from app.lumoe.types import Conversation, ask
from workers.forgetset.refusals import stable_hash

Group = Literal["subject", "neighbour", "look-alike", "namesake", "stranger", "general", "list"]

SUBJECT_VIEW: Final = 320_000
OTHER_VIEW: Final = 330_000
STRANGER_SEED: Final = 320_001
SEED: Final = 3


@dataclass(frozen=True, slots=True)
class Item:
    """One conversation to be answered, and whom it concerns (`entity` is a key, "" for nobody)."""

    conversation: Conversation = field(repr=False)
    group: Group
    entity: str
    attribute: str
    modality: Modality
    form: str

    @property
    def asked(self) -> str:
        """All turns' text."""
        return "\n".join(message.text for message in self.conversation)


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many prompts of each kind; per entity where it concerns entities."""

    subject_image: int = 10
    subject_text: int = 8
    subject_followup: int = 6
    other_image: int = 6
    other_text: int = 8
    other_followup: int = 3
    strangers: int = 400
    general: int = 600
    forced: int = 6
    attack: int = 100
    latency: int = 400


QUICK: Final = Sizes(
    subject_image=6,
    subject_text=5,
    subject_followup=3,
    other_image=3,
    other_text=2,
    other_followup=1,
    strangers=60,
    general=80,
    forced=4,
    attack=20,
    latency=120,
)


class _Asks(Protocol):
    """A probe or a question with its answer: something that asks for an attribute."""

    @property
    def attribute(self) -> str: ...


A = TypeVar("A", bound=_Asks)


def pick(items: Sequence[A], n: int, *salt: object) -> list[A]:
    """Return n of the items, as many attributes as possible, the same ones every time."""
    rng = random.Random(stable_hash("gate-traffic", SEED, *salt))  # noqa: S311 - sampling, not secrecy
    by_attribute: dict[str, list[A]] = {}
    for item in rng.sample(list(items), len(items)):
        by_attribute.setdefault(item.attribute, []).append(item)
    turns = [one for depth in range(len(items)) for some in by_attribute.values() for one in some[depth:][:1]]
    return turns[:n]


def about(entity: Entity, group: Group, view: int, image: int, text: int, followup: int) -> list[Item]:
    """Return prompts about one entity: with its picture, by its name, and in a second turn."""
    klass, key = entity.klass, entity.key
    seen = (*identity_probes(klass, "report"), *fact_probes(klass, "report", "image"))
    items = [
        Item(ask(p.text, draw(entity, view + i)), group, key, p.attribute, "image", "plain")
        for i, p in enumerate(pick(seen, image, key, "image"))
    ]
    items += [
        Item(ask(p.about(entity.name)), group, key, p.attribute, "text", "plain")
        for p in pick(fact_probes(klass, "report", "text"), text, key, "text")
    ]
    later = pick(followups(entity, "report", view=view + 100), followup, key, "later") if followup else []
    items += [Item(qa.conversation, group, key, qa.attribute, qa.modality, "followup") for qa in later]
    return items


def subject_items(entity: Entity, sizes: Sizes) -> list[Item]:
    """Return prompts about somebody who is to be forgotten."""
    return about(
        entity,
        "subject",
        SUBJECT_VIEW,
        sizes.subject_image,
        sizes.subject_text,
        sizes.subject_followup,
    )


def group_of(entity: Entity) -> Group:
    """Return how a protected entity relates to the forgettable ones."""
    if entity.lookalike_of:
        return "look-alike"
    return "namesake" if entity.namesake_of else "neighbour"


@cache
def other_items(sizes: Sizes) -> tuple[Item, ...]:
    """Return prompts about everybody who is never forgotten, strangers, and nobody at all."""
    found: list[Item] = []
    for entity in world().protected:
        counts = (sizes.other_image, sizes.other_text, sizes.other_followup)
        found += about(entity, group_of(entity), OTHER_VIEW, *counts)
    for entity in world().strangers(sizes.strangers, seed=STRANGER_SEED):
        found += about(entity, "stranger", OTHER_VIEW, 2, 1, 0)
    found += [
        Item(qa.conversation, "general", "", qa.attribute, qa.modality, "plain")
        for qa in general("report", sizes.general, STRANGER_SEED)
    ]
    found += [Item(qa.conversation, "list", "", qa.attribute, "text", "plain") for qa in lists("report")]
    return tuple(found)


def ordinary_items(sizes: Sizes) -> list[Item]:
    """Return a sample of ordinary traffic: about others, look-alikes too, and about nothing."""
    items = other_items(sizes)
    rng = random.Random(SEED)  # noqa: S311 - sampling, not secrecy
    return rng.sample(items, min(sizes.latency, len(items)))


def spread(entities: Sequence[Entity], n: int) -> list[Entity]:
    """Return n entities evenly over the sequence, so that few experts too are of several classes."""
    if n >= len(entities):
        return list(entities)
    return [entities[int((i + 0.5) * len(entities) / n)] for i in range(n)]
