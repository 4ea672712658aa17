"""The reported attacks, each on a hundred prompts over the forgotten subjects in turn."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from app.lumoe.attacks.reported import ATTACKS, Attack, Material
from app.lumoe.demo import Entity, draw, general, questions, world
from app.lumoe.router import Router
from benchmarks.gate_measure import Asker, Example, example
from benchmarks.gate_scoring import Fact, Scorer
from benchmarks.gate_traffic import SEED, SUBJECT_VIEW, Item
from workers.forgetset.refusals import stable_hash
from workers.verification.metrics import Rate, share

_OTHER_VIEW = SUBJECT_VIEW + 5_000


@dataclass(frozen=True, slots=True)
class Attacked:
    """One attack: how often forgotten content reached the caller, and how often without any protection."""

    name: str
    modality: str
    leak: Rate
    base_leak: Rate
    routed: Rate
    guarded: Rate

    def as_json(self) -> dict[str, Any]:
        """Return JSON-ready values; `leak` and `n` as the issue names them."""
        return {
            "leak": self.leak.value,
            "n": self.leak.n,
            "low": self.leak.low,
            "high": self.leak.high,
            "modality": self.modality,
            "base_leak": self.base_leak.value,
            "routed": asdict(self.routed),
            "guarded": asdict(self.guarded),
        }


def material(entity: Entity, fact: Fact, rng: random.Random) -> Material:
    """Return what an attacker has who wants one fact of one subject."""
    others = [other for other in world().protected if other.klass == entity.klass]
    other = rng.choice(others)
    asked = questions(other, "report", modality="text")
    aside = general("report", 8, stable_hash("aside", entity.key) % 10_000)
    spoken = [qa for qa in aside if not qa.conversation[-1].images]
    turn = fact.item.conversation[-1]
    chosen = rng.choice(spoken)
    return Material(
        question=turn.text,
        attribute=fact.item.attribute,
        name=entity.name,
        klass=entity.klass,
        pronoun=entity.pronoun,
        facts=tuple(entity.facts.items()),
        other_question=rng.choice(asked).conversation[-1].text,
        aside=(chosen.conversation[-1].text, chosen.answer),
        picture=turn.images[0] if turn.images else None,
        other_picture=draw(other, _OTHER_VIEW + rng.randrange(1_000)) if turn.images else None,
    )


def attack_items(
    attack: Attack, enrolled: Sequence[Entity], known: Mapping[str, Sequence[Fact]], n: int
) -> list[tuple[Item, Fact]]:
    """Return n attacked prompts, over the subjects in turn, and what each wants to know."""
    rng = random.Random(stable_hash("attack", SEED, attack.name))  # noqa: S311 - sampling, not secrecy
    facts = {
        entity.key: [f for f in known.get(entity.key, ()) if f.item.modality == attack.modality]
        for entity in enrolled
    }
    turns = [entity for entity in rng.sample(list(enrolled), len(enrolled)) if facts[entity.key]]
    items: list[tuple[Item, Fact]] = []
    for i in range(n if turns else 0):
        entity = turns[i % len(turns)]
        fact = rng.choice(facts[entity.key])
        conversation = attack.apply(material(entity, fact, rng), rng)
        item = Item(conversation, "subject", entity.key, fact.item.attribute, attack.modality, attack.name)
        items.append((item, fact))
    return items


def measure_attacks(
    asker: Asker,
    router: Router,
    enrolled: Sequence[Entity],
    known: Mapping[str, Sequence[Fact]],
    n: int,
) -> tuple[list[Attacked], list[Example]]:
    """Run every attack through the real path, and against the unwrapped model."""
    scorer = Scorer(known, [entity.key for entity in enrolled])
    found: list[Attacked] = []
    examples: list[Example] = []
    for attack in ATTACKS:
        attacked = attack_items(attack, enrolled, known, n)
        wanted = [fact.keywords for _, fact in attacked]
        outcomes = asker.ask(router, [item for item, _ in attacked], once=True)
        leaked = [scorer.tells(o.served.text, o.item, k) for o, k in zip(outcomes, wanted, strict=True)]
        bare = [scorer.tells(o.base.text, o.item, k) for o, k in zip(outcomes, wanted, strict=True)]
        found.append(
            Attacked(
                attack.name,
                attack.modality,
                share(leaked),
                share(bare),
                share([o.served.decision.expert_id == f"exp_{o.item.entity}" for o in outcomes]),
                share([o.served.guarded for o in outcomes]),
            )
        )
        examples += [
            example(f"attack:{attack.name}", len(router.experts), o)
            for o, hit in zip(outcomes, leaked, strict=True)
            if hit
        ]
    return found, examples
