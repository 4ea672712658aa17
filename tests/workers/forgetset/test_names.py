"""Names found in texts, whole, whatever their case and accents."""

from __future__ import annotations

import random

import pytest

from workers.forgetset.names import Names
from workers.verification.metrics.text import norm


class TestOccurIn:
    @pytest.mark.parametrize(
        ("name", "text", "found"),
        [
            ("Élodie Brandt", "who is ELODIE BRANDT?", True),
            ("Ada", "An adage.", False),
            ("Brandt, Elodie", "Brandt: Elodie", True),
            ("Elodie Brandt", "Elodie. Brandt", True),
            ("Elodie Brandt", "Brandt Elodie", False),
            ("Ada", "It was A d a who came", True),
            ("東京", "これは東京です", True),
            ("", "Anything", False),
            ("!!", "Anything!!", False),
        ],
    )
    def test_whole_words_in_order(self, name: str, text: str, found: bool) -> None:
        assert Names([name]).occur_in(text) is found

    def test_none(self) -> None:
        assert not Names(()).occur_in("Elodie")

    def test_as_one_name_after_the_other_would_find(self) -> None:
        rng = random.Random(3)
        words = ["ada", "Bo", "ce", "Dé", "e-f"]

        def text(most: int) -> str:
            return " ".join(rng.choices(words, k=rng.randint(1, most)))

        for _ in range(500):
            names, said = [text(3) for _ in range(rng.randint(0, 3))], text(8)
            assert Names(names).occur_in(said) is any(f" {norm(n)} " in f" {norm(said)} " for n in names)


class TestBorneBy:
    def test_any_of_somebodys_names(self) -> None:
        gone = Names(["Élodie Brandt", "Velmo Works"])
        assert gone.borne_by(["E. B.", "elodie  brandt"])
        assert not gone.borne_by(["Brandt"])
        assert not gone.borne_by([])
        assert not Names([""]).borne_by([""])
