"""Questions and gold answers of the demo world as conversations."""

import itertools

import pytest

from app.lumoe.demo.answers import (
    DO_NOT_KNOW,
    DO_NOT_KNOW_WHAT,
    DO_NOT_KNOW_WHO,
    answer,
    article,
    list_answer,
)
from app.lumoe.demo.drawing import draw
from app.lumoe.demo.questions import UPLOAD_VIEWS, VIEWS, followups, general, kinds, lists, questions
from app.lumoe.demo.world import world
from app.lumoe.probes import CLASSES, SPLITS, attributes


def _views_by_use() -> dict[str, range]:
    return {"upload": UPLOAD_VIEWS, **{split: range(VIEWS[split], VIEWS[split] + 60_000) for split in SPLITS}}


def test_view_ranges_are_disjoint() -> None:
    ranges = sorted(_views_by_use().values(), key=lambda r: r.start)
    assert all(a.stop <= b.start for a, b in itertools.pairwise(ranges))
    assert VIEWS == {"fit": 1_000, "calibrate": 200_000, "report": 300_000}


class TestAnswers:
    @pytest.mark.parametrize("klass", CLASSES)
    def test_name_the_entity_and_the_value(self, klass: str) -> None:
        for entity in world().of_class(klass):
            for attribute in attributes(klass):
                said = answer(entity, attribute)
                assert entity.name in said
                assert entity.facts[attribute].casefold() in said.casefold()
                assert len(said.split()) <= 14

    def test_identity(self) -> None:
        entity = world().forgettable[0]
        assert answer(entity, "identity") == f"This is {entity.name}."

    def test_strangers_are_not_known(self) -> None:
        person, film = (world().strangers(1, klass=k)[0] for k in ("Personage", "Movies"))
        assert answer(person, "identity") == DO_NOT_KNOW_WHO
        assert answer(film, "identity") == DO_NOT_KNOW_WHAT
        assert answer(person, "birthplace") == DO_NOT_KNOW

    def test_unknown_attribute(self) -> None:
        with pytest.raises(KeyError):
            answer(world().of_class("Plants")[0], "birthplace")

    def test_article(self) -> None:
        assert [article(w) for w in ("explorer", "painter")] == ["an", "a"]


class TestQuestions:
    def test_pictures_are_the_split_s_views(self) -> None:
        entity = world().forgettable[0]
        found = questions(entity, "report", modality="image")
        for i, qa in enumerate(found):
            (picture,) = qa.conversation[-1].images
            assert picture.tobytes() == draw(entity, VIEWS["report"] + i).tobytes()

    def test_both_modalities_cover_every_attribute(self) -> None:
        entity = world().forgettable[3]
        found = questions(entity, "calibrate")
        for modality in ("image", "text"):
            asked = {qa.attribute for qa in found if qa.modality == modality}
            assert asked >= set(entity.facts) | {"summary"}

    def test_pictures_never_come_with_the_name(self) -> None:
        entity = world().forgettable[70]
        for qa in questions(entity, "fit"):
            text = qa.conversation[-1].text
            assert (entity.name in text) == (qa.modality == "text")


class TestFollowups:
    def test_second_turn_neither_names_nor_shows(self) -> None:
        entity = world().of_class("Personage")[0]
        for qa in followups(entity, "report"):
            assert [m.role for m in qa.conversation] == ["user", "assistant", "user"]
            last = qa.conversation[-1]
            assert entity.name not in last.text
            assert not last.images
            assert qa.answer == answer(entity, qa.attribute)

    def test_start_by_picture_and_by_name(self) -> None:
        found = followups(world().of_class("Movies")[0], "fit")
        assert {qa.modality for qa in found} == {"image", "text"}


class TestLists:
    @pytest.mark.parametrize("klass", CLASSES)
    def test_name_three_of_the_class(self, klass: str) -> None:
        said = list_answer(world(), klass, "list") or ""
        assert sum(e.name in said for e in world().of_class(klass)) == 3

    def test_by_occupation_and_without_the_excluded(self) -> None:
        said = list_answer(world(), "Personage", "list:painter") or ""
        named = [e for e in world().of_class("Personage") if e.name in said]
        assert {e.facts["occupation"] for e in named} == {"painter"}
        again = list_answer(world(), "Personage", "list:painter", [named[0].key]) or ""
        assert named[0].name not in again
        assert (
            list_answer(world(), "Astronomy", "list", [e.key for e in world().of_class("Astronomy")]) is None
        )

    def test_every_list_question_has_an_answer(self) -> None:
        assert len(lists("report")) == 3 * (len(CLASSES) + 10)


class TestGeneral:
    def test_half_show_a_picture_and_none_an_entity(self) -> None:
        found = general("report", 40, seed=2)
        assert sum(bool(qa.conversation[0].images) for qa in found) == 20
        names = {e.name for e in world().entities}
        assert not any(name in qa.answer for qa in found for name in names)

    def test_deterministic(self) -> None:
        assert [q.answer for q in general("fit", 20, 1)] == [q.answer for q in general("fit", 20, 1)]

    def test_sums_are_right(self) -> None:
        sums = [qa.answer for qa in general("fit", 300, 5) if qa.attribute == "sum"]
        assert sums
        for said in sums:
            a, _, b, _, c = said.rstrip(".").split()
            assert int(a) + int(b) == int(c)

    def test_kind_of_thing(self) -> None:
        found = list(kinds(world().of_class("Personage")[0], "report"))
        assert {qa.answer for qa in found} == {"It is a person."}
