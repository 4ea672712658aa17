"""Probes from an operator's own questions: each wording in one split, none with a name of its own."""

from __future__ import annotations

import pytest

from app.lumoe.probes import IDENTITY_ATTRIBUTE, SPLITS, Probe, Split, fact_probes
from workers.forgetset.wordings import Asked, divide, of_anybody, own_probes, tells_more_than


def asked(question: str, answer: str = "In 1869, by two brothers.", name: str = "Apple") -> Asked:
    return Asked("Corporation", (name,), question, answer)


class TestDivide:
    def test_shares_are_those_of_our_own_wordings(self) -> None:
        found = list(divide("Corporation", (f"Question {i}?" for i in range(22))).values())
        assert {split: found.count(split) for split in ("fit", "calibrate", "report")} == {
            "fit": 12,
            "calibrate": 4,
            "report": 6,
        }

    def test_does_not_depend_on_the_order(self) -> None:
        texts = [f"Question {i}?" for i in range(9)]
        assert divide("Corporation", texts) == divide("Corporation", reversed(texts))

    def test_what_differs_in_punctuation_alone_stays_together(self) -> None:
        for i in range(12):
            found = divide("Corporation", [*(f"Question {k}?" for k in range(12)), f"**question {i}"])
            assert found[f"**question {i}"] == found[f"Question {i}?"]

    def test_two_are_for_training_and_for_measuring(self) -> None:
        assert sorted(divide("Corporation", ["When?", "Where?"]).values()) == ["fit", "report"]

    @pytest.mark.parametrize("split", SPLITS)
    def test_what_we_ask_ourselves_stays_where_we_ask_it(self, split: Split) -> None:
        asked_too = [probe.text for probe in fact_probes("Corporation", split, "image")]
        found = divide("Corporation", [*asked_too, *(f"Question {i}?" for i in range(9))])
        assert {found[text] for text in asked_too} == {split}

    def test_a_single_one_is_for_training(self) -> None:
        assert divide("Corporation", ["When?"]) == {"When?": "fit"}
        assert divide("Corporation", []) == {}


class TestOfAnybody:
    def test_the_place_of_the_picture_is_left_out(self) -> None:
        assert of_anybody("<image>\nWhat is it? ", ("Apple",)) == "What is it?"

    def test_the_longest_name_is_replaced_first(self) -> None:
        assert of_anybody("Who founded apple inc?", ("Apple", "Apple Inc")) == "Who founded {name}?"

    def test_a_part_of_a_word_is_no_name(self) -> None:
        assert of_anybody("Do they sell pineapple?", ("Apple",)) == "Do they sell pineapple?"

    def test_a_name_in_another_spelling_spoils_the_question(self) -> None:
        assert of_anybody("Was it Citroen?", ("Citroën",)) == ""


class TestOwnProbes:
    def test_a_fact_is_asked_with_a_picture_and_by_name(self) -> None:
        assert own_probes([asked("When was it founded?")]) == {
            ("Corporation", "fit"): (
                Probe("When was it founded?", "When was it founded?", "image"),
                Probe("When was it founded?", "{name}: When was it founded?", "text"),
            )
        }

    def test_a_question_with_a_name_is_asked_by_name_alone(self) -> None:
        (probe,) = own_probes([asked("Who founded Apple?")])["Corporation", "fit"]
        assert (probe.modality, probe.about("Nokia")) == ("text", "Who founded Nokia?")

    def test_what_most_answer_with_a_name_asks_who_it_is(self) -> None:
        named = [asked("Whose logo is this?", f"This is {n}.", n) for n in ("Apple", "Nokia")]
        told = asked("Whose logo is this?", "Of a company that sells telephones.", "Ericsson")
        assert own_probes([*named, told])["Corporation", "fit"] == (
            Probe(IDENTITY_ATTRIBUTE, "Whose logo is this?", "image"),
        )

    def test_a_yes_is_a_fact(self) -> None:
        probes = own_probes([asked("Is it open?", "Yes.")])["Corporation", "fit"]
        assert [p.modality for p in probes] == ["image", "text"]

    def test_no_wording_is_in_two_splits(self) -> None:
        found = own_probes([asked(f"Question number {i}?", name=f"Firm {i % 3}") for i in range(30)])
        texts = [probe.text for probes in found.values() for probe in probes]
        assert len(texts) == len(set(texts)) == 60


def test_an_answer_of_the_name_alone_tells_nothing() -> None:
    assert not tells_more_than("Dog", "What is the common name of this animal?", ("Dog",))
    assert tells_more_than("Dogs eat acorns.", "What does this animal eat?", ("Dog",))
