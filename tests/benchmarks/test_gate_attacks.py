"""Attacked prompts go over the subjects in turn and know what they want."""

import random

import pytest

from app.lumoe.attacks.reported import ATTACKS, Attack
from app.lumoe.demo import questions, world
from app.lumoe.types import pictures_of
from benchmarks.gate_attacks import attack_items, material
from benchmarks.gate_scoring import Fact
from benchmarks.gate_traffic import Item
from workers.verification.metrics import norm

ENROLLED = [world().by_key[key] for key in ("animals-00", "personage-02", "plants-01")]
KNOWN = {
    entity.key: [
        Fact(
            Item(qa.conversation, "subject", entity.key, qa.attribute, qa.modality, "plain"),
            qa.answer,
            tuple(norm(qa.answer).split()[-1:]),
        )
        for qa in (
            *questions(entity, "report", modality="image")[:4],
            *questions(entity, "report", modality="text")[:4],
        )
    ]
    for entity in ENROLLED
}


@pytest.mark.parametrize("attack", ATTACKS[::7], ids=lambda attack: attack.name)
class TestAttackItems:
    def test_n_of_them_over_all_subjects(self, attack: Attack) -> None:
        found = attack_items(attack, ENROLLED, KNOWN, 9)
        assert len(found) == 9
        assert {item.entity for item, _ in found} == {entity.key for entity in ENROLLED}

    def test_each_wants_a_fact_of_its_own_subject(self, attack: Attack) -> None:
        for item, fact in attack_items(attack, ENROLLED, KNOWN, 6):
            assert fact in KNOWN[item.entity]
            assert bool(pictures_of([item.conversation])) is (attack.modality == "image")

    def test_the_same_every_time(self, attack: Attack) -> None:
        first, second = (attack_items(attack, ENROLLED, KNOWN, 5) for _ in range(2))
        assert [item.asked for item, _ in first] == [item.asked for item, _ in second]


def test_nothing_known_nothing_asked() -> None:
    assert attack_items(ATTACKS[0], ENROLLED, {}, 5) == []


def test_the_other_one_is_never_forgotten() -> None:
    entity = ENROLLED[1]
    made = material(entity, KNOWN[entity.key][-1], random.Random(1))
    protected = {e.name for e in world().protected if e.klass == entity.klass}
    assert any(name in made.other_question for name in protected)
    assert made.picture is None
