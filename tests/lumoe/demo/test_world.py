"""The demo world: its counts, its names, its look-alikes and near-namesakes; always the same."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from rapidfuzz.distance import Levenshtein

from app.lumoe.demo.seeds import seeded
from app.lumoe.demo.world import CLASS_COUNTS, World, look_distance, resemble, world
from app.lumoe.probes import CLASSES, attributes

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def the_world() -> World:
    return world()


class TestCounts:
    def test_127_forgettable_entities_as_in_mlubench(self, the_world: World) -> None:
        assert len(the_world.forgettable) == 127
        assert Counter(e.klass for e in the_world.forgettable) == CLASS_COUNTS
        assert sorted(CLASS_COUNTS.values()) == sorted((15, 5, 12, 14, 6, 18, 30, 12, 15))

    def test_at_least_64_protected_ones_some_in_every_class(self, the_world: World) -> None:
        assert len(the_world.protected) >= 64
        assert {e.klass for e in the_world.protected} == set(CLASSES)
        assert not any(e.task for e in the_world.protected)

    def test_four_tasks_share_out_the_forgettable(self, the_world: World) -> None:
        sets = [the_world.forget_set(t) for t in ("A", "B", "C", "D")]
        assert sum(map(len, sets)) == 127
        assert {e.key for s in sets for e in s} == {e.key for e in the_world.forgettable}

    def test_retain_sets_hold_same_class_neighbours_and_nobody_to_forget(self, the_world: World) -> None:
        for task in ("A", "B", "C", "D"):
            retained = the_world.retain_set(task)
            assert all(e.protected for e in retained)
            assert {e.klass for e in the_world.forget_set(task)} <= {e.klass for e in retained}


class TestEntities:
    def test_each_has_every_fact_of_its_class(self, the_world: World) -> None:
        for entity in the_world.entities:
            assert tuple(entity.facts) == attributes(entity.klass)
            assert 4 <= len(entity.facts) <= 6
            assert all(entity.facts.values())

    def test_names_and_aliases_belong_to_one_entity_only(self, the_world: World) -> None:
        names = Counter(n.casefold() for e in the_world.entities for n in (e.name, *e.aliases))
        assert max(names.values()) == 1

    def test_names_are_one_or_two_invented_words(self, the_world: World) -> None:
        for entity in the_world.entities:
            words = entity.name.split()
            assert 1 <= len(words) <= 2
            assert set(words[0].casefold()) & set("zxqvyj") or entity.namesake_of

    def test_no_fact_names_an_entity(self, the_world: World) -> None:
        names = {n.casefold() for e in the_world.entities for n in (e.name, *e.aliases)}
        for entity in the_world.entities:
            for value in entity.facts.values():
                assert not {value.casefold(), *value.casefold().split()} & names

    def test_bearded_people_are_he(self, the_world: World) -> None:
        people = the_world.of_class("Personage")
        assert {e.pronoun for e in people} == {"he", "she"}
        assert all(e.pronoun == "he" for e in people if 0.2 <= e.genome[5] < 0.8)


class TestNearOnes:
    def test_near_namesakes_are_near(self, the_world: World) -> None:
        near = [e for e in the_world.protected if e.namesake_of]
        assert len(near) >= 18
        assert {e.klass for e in near} == set(CLASSES)
        for entity in near:
            original = the_world.by_key[entity.namesake_of or ""]
            a, b = entity.name.split(), original.name.split()
            shared_surname = len(a) == 2 and a[1] == b[1]
            assert shared_surname or Levenshtein.distance(a[0], b[0]) <= 2
            assert entity.name != original.name

    def test_look_alikes_differ_in_one_or_two_genes(self, the_world: World) -> None:
        alike = [e for e in the_world.protected if e.lookalike_of]
        assert {e.klass for e in alike} == set(CLASSES)
        for entity in alike:
            original = the_world.by_key[entity.lookalike_of or ""]
            far = [abs(a - b) > 0.03 for a, b in zip(entity.genome, original.genome, strict=True)]
            assert 1 <= sum(far) <= 2
            assert look_distance(entity.genome, original.genome) < 0.12

    def test_a_shared_surname_is_nobodys_alias(self, the_world: World) -> None:
        for entity in the_world.protected:
            for word in entity.name.split():
                owners = [e for e in the_world.entities if word in e.name.split()]
                if len(owners) > 1:
                    assert not any(word in e.aliases for e in owners)

    def test_neighbours_begin_with_look_alike_and_namesake(self, the_world: World) -> None:
        for entity in the_world.protected:
            original = the_world.by_key.get(entity.lookalike_of or entity.namesake_of or "")
            if original is not None:
                near = the_world.neighbours(original, 4)
                assert entity in near
                assert all(e.klass == original.klass and e != original for e in near)

    def test_neighbours_can_be_restricted(self, the_world: World) -> None:
        entity = the_world.forgettable[0]
        assert all(e.protected for e in the_world.neighbours(entity, 5, protected=True))
        assert not any(e.protected for e in the_world.neighbours(entity, 5, protected=False))

    def test_resemble_keeps_most_of_a_look(self) -> None:
        rng = seeded("test")
        genome = tuple(rng.random() for _ in range(16))
        changed = resemble(rng, "Personage", genome)
        assert sum(abs(a - b) > 0.03 for a, b in zip(genome, changed, strict=True)) in (1, 2)


class TestStrangers:
    def test_are_in_no_set(self, the_world: World) -> None:
        strangers = the_world.strangers(90, seed=3)
        names = {n.casefold() for e in the_world.entities for n in (e.name, *e.aliases)}
        assert len({s.key for s in strangers}) == 90
        for stranger in strangers:
            assert not stranger.known
            assert stranger.task is None
            assert not {stranger.name.casefold(), *stranger.name.casefold().split()} & names

    def test_take_turns_through_the_classes_or_stay_in_one(self, the_world: World) -> None:
        assert {s.klass for s in the_world.strangers(9)} == set(CLASSES)
        assert {s.klass for s in the_world.strangers(5, klass="Movies")} == {"Movies"}

    def test_are_deterministic_per_seed(self, the_world: World) -> None:
        assert the_world.strangers(5, 1) == the_world.strangers(5, 1)
        assert the_world.strangers(5, 1) != the_world.strangers(5, 2)


def test_another_process_builds_the_same_world(the_world: World) -> None:
    script = (
        "import hashlib\nfrom app.lumoe.demo.world import world\n"
        "print(hashlib.sha256(repr([(e.key, e.name, e.aliases, dict(e.facts), e.genome)"
        " for e in world().entities]).encode()).hexdigest())"
    )
    import hashlib

    here = repr([(e.key, e.name, e.aliases, dict(e.facts), e.genome) for e in the_world.entities])
    there = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True,
        env={"PYTHONHASHSEED": "7", "PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert there.stdout.strip() == hashlib.sha256(here.encode()).hexdigest()
