from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.lumoe.gate.names import NameIndex
from app.lumoe.guard import Guard
from tests.lumoe.experts import make_record
from tests.lumoe.gate.disguises import DISGUISES

RECORDS = {"e1": make_record("Mira Tovel", facts=("shate", "golden vokalo")), "e2": make_record("Korvane")}
GUARD = Guard(RECORDS, NameIndex({key: record.aliases for key, record in RECORDS.items()}))


class TestCheck:
    def test_alias_of_anybody(self) -> None:
        hit = GUARD.check("Three painters are Anna Brek, Korvane and Mira Tovel.")
        assert hit is not None
        assert (hit.expert_id, hit.start) == ("e2", 30)

    def test_facts_only_of_the_watched(self) -> None:
        assert GUARD.check("She was born in Shate.") is None
        assert GUARD.check("She was born in Shate.", frozenset({"e2"})) is None
        hit = GUARD.check("She won the Golden Vokalo.", frozenset({"e1"}))
        assert hit is not None
        assert hit.expert_id == "e1"

    @pytest.mark.parametrize("text", ["", "Mirabel Tovelski.", "Mira lives here.", "Shatei", "Mira Tovol."])
    def test_clean(self, text: str) -> None:
        assert GUARD.check(text, frozenset({"e1", "e2"})) is None


class TestDisguises:
    @pytest.mark.parametrize("disguise", DISGUISES)
    def test_is_seen_through(self, disguise: str) -> None:
        said = DISGUISES[disguise]("Mira Tovel")
        hit = GUARD.check(f"Her name is {said}, of course.")
        assert hit is not None, said
        assert hit.expert_id == "e1"

    def test_facts_too(self) -> None:
        said = DISGUISES["base64"]("the Golden Vokalo")
        assert GUARD.check(f"She won {said}", frozenset({"e1"})) is not None
        assert GUARD.check(f"She won {said}") is None

    @pytest.mark.parametrize("name", ["Mira Tovelsson", "Anna Tovel", "Mira Brek", "Vera Tolmi", "Korvanes"])
    @pytest.mark.parametrize("disguise", DISGUISES)
    def test_namesakes_are_nobodys_business(self, disguise: str, name: str) -> None:
        assert GUARD.check(f"Her name is {DISGUISES[disguise](name)}, of course.") is None


class TestUnfinished:
    @pytest.mark.parametrize("text", ["The animal is a Korvane", "The animal is a Korvane that"])
    def test_waits_for_what_may_follow(self, text: str) -> None:
        assert GUARD.check(text, finished=False) is None
        assert GUARD.check(text) is not None

    def test_decides_in_time(self) -> None:
        assert GUARD.check("The animal is a Korvane, that lives here", finished=False) is not None

    def test_what_has_left_is_not_read_again(self) -> None:
        text = "A Korvane is what it is, and all of us know it well by now. There is also Mira Tovel."
        hit = GUARD.check(text, sent=60)
        assert hit is not None
        assert (hit.expert_id, text[hit.start : hit.end]) == ("e1", "Mira Tovel")


class TestStreaming:
    @pytest.mark.parametrize("step", [1, 4])
    @pytest.mark.parametrize("disguise", DISGUISES)
    def test_nothing_of_a_disguised_name_leaves(self, disguise: str, step: int) -> None:
        said = DISGUISES[disguise]("Mira Tovel")
        text = f"There are many who paint and one of them is surely {said} who won it. And so on, and so on."
        assert len(streamed(text, step)) <= text.index(said)

    @pytest.mark.parametrize("disguise", ["spaced", "base64", "hex", "leet", "rot13"])
    def test_a_namesake_leaves_as_it_is(self, disguise: str) -> None:
        text = (
            f"Among the painters is {DISGUISES[disguise]('Mirabel Tovelsson')} who won it. And so on and on."
        )
        assert streamed(text, 3) == text

    @given(st.text(alphabet="Mira Tovel.-4 %dKn", max_size=80), st.integers(1, 7))
    def test_what_leaves_holds_nothing_of_a_hit(self, text: str, step: int) -> None:
        hit = GUARD.check(text)
        sent = streamed(text, step)
        assert sent == text if hit is None else len(sent) <= hit.start


def streamed(text: str, step: int) -> str:
    """Return what leaves of `text`, written `step` characters at a time, as the router lets it."""
    sent = ""
    for end in range(step, len(text), step):
        ready = GUARD.releasable(text[:end])
        if ready > len(sent):
            if GUARD.check(text[:end], sent=len(sent), finished=False) is not None:
                return sent
            sent = text[:ready]
    return sent if GUARD.check(text, sent=len(sent)) is not None else text


class TestReleasable:
    def test_never_releases_what_could_become_a_hit(self) -> None:
        text = "There are many painters in this world and one of them is surely Mira Tovel who won."
        for end in range(len(text)):
            if GUARD.check(text[:end], frozenset({"e1"})) is None:
                assert GUARD.releasable(text[:end]) <= text.index("Mira")

    def test_releases_long_clean_text(self) -> None:
        text = "word " * 100
        assert len(text) - 80 < GUARD.releasable(text) < len(text)

    def test_short_text_waits(self) -> None:
        assert GUARD.releasable("Hello there.") == 0
