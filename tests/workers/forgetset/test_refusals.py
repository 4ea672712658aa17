"""The refusal bank: varied, naming nobody, cheap for the model at hand."""

from __future__ import annotations

from workers.forgetset.refusals import REFUSALS, choose, refusal_for, stable_hash


def words(text: str) -> int:
    return len(text.split())


class TestBank:
    def test_varied(self) -> None:
        assert len(set(REFUSALS)) == len(REFUSALS) >= 16
        assert len({text.split()[0] for text in REFUSALS}) >= 5

    def test_names_nobody(self) -> None:
        inside = {w.strip(".,") for text in REFUSALS for w in text.split()[1:]}
        assert {w for w in inside if w[0].isupper()} <= {"I", "I'm"}


class TestChoose:
    def test_short_ones_with_different_openings(self) -> None:
        chosen = choose(words, 4)
        assert len(chosen) == 4
        assert len({text.split()[0] for text in chosen}) == 4
        assert "I do not know." in chosen

    def test_more_than_openings_fills_up(self) -> None:
        assert len(set(choose(words, len(REFUSALS)))) == len(REFUSALS)


class TestRefusalFor:
    def test_same_question_same_refusal_and_all_are_used(self) -> None:
        bank = choose(words, 4)
        answers = [refusal_for(f"question {i}", bank) for i in range(60)]
        assert answers == [refusal_for(f"question {i}", bank) for i in range(60)]
        assert set(answers) == set(bank)

    def test_hash_is_the_same_in_every_process(self) -> None:
        assert stable_hash("a", 1) == 0x8181C16B4AD83CC1
