"""Probe questions: complete, natural, and disjoint between the splits."""

import itertools

import pytest

from app.lumoe.generalities import TOPICS
from app.lumoe.probes import (
    CLASSES,
    IDENTITY_ATTRIBUTE,
    SPLITS,
    Probe,
    Split,
    attributes,
    fact_probes,
    followup_probes,
    general_probes,
    identity_probes,
    list_probes,
    take,
    with_pronoun,
)

LEAST = {"fit": 6, "calibrate": 2, "report": 3}


def _all(klass: str, split: Split) -> list[Probe]:
    return [
        *identity_probes(klass, split),
        *fact_probes(klass, split, "image"),
        *fact_probes(klass, split, "text"),
        *followup_probes(klass, split),
        *list_probes(klass, split),
    ]


def test_the_nine_classes_are_spelled_as_in_mlubench() -> None:
    assert sorted(CLASSES) == sorted(
        "Animals,Astronomy,Buildings,Cartoon,Corporation,Movies,Personage,Plants,TV series".split(",")
    )


@pytest.mark.parametrize("klass", CLASSES)
class TestEveryClass:
    def test_has_at_least_four_attributes(self, klass: str) -> None:
        assert len(attributes(klass)) >= 4

    @pytest.mark.parametrize("split", SPLITS)
    def test_every_attribute_has_enough_wordings(self, klass: str, split: Split) -> None:
        assert len(identity_probes(klass, split)) == LEAST[split]
        for modality in ("image", "text"):
            found = fact_probes(klass, split, modality)
            for attribute in (*attributes(klass), "summary"):
                wordings = {p.text for p in found if p.attribute == attribute}
                assert len(wordings) >= LEAST[split], (attribute, modality)

    def test_splits_are_disjoint(self, klass: str) -> None:
        texts = {split: {(p.modality, p.text.casefold()) for p in _all(klass, split)} for split in SPLITS}
        for a, b in itertools.combinations(SPLITS, 2):
            assert not texts[a] & texts[b]

    def test_text_questions_name_the_subject_and_picture_questions_do_not(self, klass: str) -> None:
        for split in SPLITS:
            assert all("{name}" in p.text for p in fact_probes(klass, split, "text"))
            shown = (*identity_probes(klass, split), *fact_probes(klass, split, "image"))
            assert all("{" not in p.text and p.modality == "image" for p in shown)

    def test_follow_ups_are_ready_to_be_asked(self, klass: str) -> None:
        for split in SPLITS:
            found = followup_probes(klass, split)
            assert {p.attribute for p in found} == set(attributes(klass))
            assert all("{" not in p.text and p.text[0].isupper() and p.text.endswith("?") for p in found)

    def test_questions_are_sentences(self, klass: str) -> None:
        for split in SPLITS:
            for probe in _all(klass, split):
                assert probe.text[-1] in "?.", probe
                assert "  " not in probe.text


class TestPronouns:
    def test_object_and_genitive(self) -> None:
        assert with_pronoun("What is {s}'s job?", "she") == "What is her job?"
        assert with_pronoun("What made {s} famous?", "he") == "What made him famous?"

    def test_plural_agreement(self) -> None:
        assert with_pronoun("Where was {s} born?", "they") == "Where were they born?"
        assert with_pronoun("Where does {s} live?", "they") == "Where do they live?"

    def test_people_are_they_by_default_and_things_it(self) -> None:
        assert any("they" in p.text for p in followup_probes("Personage", "fit"))
        assert any(" it" in p.text for p in followup_probes("Movies", "fit"))
        assert any("she born" in p.text for p in followup_probes("Personage", "fit", "she"))


class TestLists:
    def test_people_are_also_listed_by_occupation(self) -> None:
        assert Probe("list:painter", "Name three painters.", "text") in list_probes("Personage", "fit")

    def test_other_classes_only_as_such(self) -> None:
        assert {p.attribute for p in list_probes("Plants", "report")} == {"list"}


class TestGeneral:
    def test_every_topic_is_asked_in_every_split(self) -> None:
        for split in SPLITS:
            assert {p.attribute for p in general_probes(split)} == {t.name for t in TOPICS}

    def test_no_placeholder_is_left(self) -> None:
        assert all("{" not in p.text for split in SPLITS for p in general_probes(split))

    def test_splits_are_disjoint(self) -> None:
        texts = [{p.text for p in general_probes(split)} for split in SPLITS]
        assert not texts[0] & texts[1] | texts[0] & texts[2] | texts[1] & texts[2]


def test_take_shares_out_eleven_wordings() -> None:
    wordings = tuple("abcdefghijk")
    assert [len(take(wordings, split)) for split in SPLITS] == [6, 2, 3]
    assert sorted(w for split in SPLITS for w in take(wordings, split)) == sorted(wordings)


def test_about_fills_in_the_name() -> None:
    probe = next(p for p in fact_probes("Personage", "fit", "text") if p.attribute == "birthplace")
    assert probe.about("Mira Tovel") == "Where was Mira Tovel born?"


def test_identity_attribute() -> None:
    assert {p.attribute for p in identity_probes("Personage", "fit")} == {IDENTITY_ATTRIBUTE}
