from __future__ import annotations

import pytest

from app.lumoe.gate.names import NameIndex
from app.lumoe.guard import Guard
from tests.lumoe.experts import make_record

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
