"""What the gate's benchmark asks is held out, balanced, and the same every time."""

from app.lumoe.demo import world
from app.lumoe.types import pictures_of
from benchmarks.farm import sequence
from benchmarks.gate_experts import strangers
from benchmarks.gate_traffic import (
    QUICK,
    STRANGER_SEED,
    Sizes,
    group_of,
    ordinary_items,
    other_items,
    spread,
    subject_items,
)
from workers.verification.metrics import norm


class TestSubjectItems:
    def test_as_many_of_each_kind_as_asked_for(self) -> None:
        items = subject_items(world().by_key["personage-03"], Sizes())
        plain = [i for i in items if i.form == "plain"]
        assert sum(i.modality == "image" for i in plain) == Sizes().subject_image
        assert sum(i.modality == "text" for i in plain) == Sizes().subject_text
        assert sum(i.form == "followup" for i in items) == Sizes().subject_followup

    def test_every_attribute_is_asked_for_before_any_is_twice(self) -> None:
        items = subject_items(world().by_key["personage-03"], Sizes(subject_image=7))
        shown = [i.attribute for i in items if i.modality == "image" and i.form == "plain"]
        assert len(set(shown)) == len(shown) == 7

    def test_pictures_where_it_says_image(self) -> None:
        for item in subject_items(world().by_key["animals-02"], QUICK):
            assert bool(pictures_of([item.conversation])) is (item.modality == "image")

    def test_the_same_every_time(self) -> None:
        entity = world().by_key["movies-04"]
        first, second = subject_items(entity, QUICK), subject_items(entity, QUICK)
        assert [i.asked for i in first] == [i.asked for i in second]


class TestOtherItems:
    def test_nobody_in_it_can_be_forgotten(self) -> None:
        forgettable = {entity.key for entity in world().forgettable}
        assert not {item.entity for item in other_items(QUICK)} & forgettable

    def test_all_groups_are_there(self) -> None:
        groups = {item.group for item in other_items(QUICK)}
        assert groups == {"neighbour", "look-alike", "namesake", "stranger", "general", "list"}

    def test_look_alikes_and_namesakes_are_told_apart(self) -> None:
        for entity in world().protected:
            assert (group_of(entity) == "look-alike") is bool(entity.lookalike_of)


def test_ordinary_traffic_is_of_all_kinds() -> None:
    items = ordinary_items(QUICK)
    assert len(items) == QUICK.latency
    assert {item.modality for item in items} == {"image", "text"}
    assert {item.group for item in items} >= {"neighbour", "look-alike", "stranger", "general"}


class TestSpread:
    def test_a_few_are_of_several_classes(self) -> None:
        assert len({entity.klass for entity in spread(sequence(), 10)}) >= 6

    def test_all_are_all_in_order(self) -> None:
        assert spread(sequence(), 127) == sequence()

    def test_nobody_twice(self) -> None:
        assert len(set(spread(sequence(), 50))) == 50


def test_synthetic_experts_share_no_name_with_anybody() -> None:
    names = [norm(entity.name) for entity in strangers(300)]
    assert len(set(names)) == 300
    asked = {norm(entity.name) for entity in world().strangers(1_000, seed=STRANGER_SEED)}
    known = {norm(name) for entity in world().entities for name in (entity.name, *entity.aliases)}
    assert not set(names) & (asked | known)
