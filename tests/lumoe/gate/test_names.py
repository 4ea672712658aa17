from __future__ import annotations

import pytest

from app.lumoe.gate.names import NameHit, NameIndex

INDEX = NameIndex({"exp_m": ("Mira Tovel", "Tovel", "The Engineer of Shate"), "exp_k": ("Korvane",)})


def best(text: str) -> NameHit | None:
    return next(iter(INDEX.find(text)), None)


class TestExact:
    @pytest.mark.parametrize(
        "text",
        [
            "Who is Mira Tovel?",
            "who is MIRA  TOVEL",
            "Mira Tovel's birthplace",
            "tell me about Míra-Tovel",
            "M i r a T o v e l, where was she born?",
            "where was miratovel born",
            "Who is Tovel?",
            "tell me about the engineer of Shate",
        ],
    )
    def test_found_whole(self, text: str) -> None:
        hit = best(text)
        assert hit is not None
        assert (hit.expert_id, hit.whole, hit.edits) == ("exp_m", True, 0)

    @pytest.mark.parametrize("text", ["", "Who is this?", "Korvanesque things", "a tovelry", "3 plus 4?"])
    def test_nothing(self, text: str) -> None:
        assert INDEX.find(text) == []

    def test_position_in_the_original(self) -> None:
        text = "Is it «Míra Tovel»?"
        hit = best(text)
        assert hit is not None
        assert text[hit.start : hit.end] == "Míra Tovel"

    def test_somebody_elses_longer_name_is_not_whole(self) -> None:
        for text in ("Who is Anna Tovel?", "who is anna tovel", "Tovel Brakkin"):
            hits = INDEX.find(text)
            assert hits, text
            assert not any(hit.whole for hit in hits), text

    def test_part_of_a_name_is_never_whole(self) -> None:
        assert [hit.whole for hit in INDEX.find("Who is Mira?")] == [False]


class TestNear:
    @pytest.mark.parametrize("text", ["Who is Mira Tovol?", "who is Mria Tovel", "Mira Tovell was here"])
    def test_near_misses_are_weak(self, text: str) -> None:
        hits = INDEX.find(text)
        assert any(hit.edits > 0 and hit.expert_id == "exp_m" for hit in hits)
        assert not any(hit.whole for hit in hits)

    def test_switched_off(self) -> None:
        assert [hit for hit in INDEX.find("Who is Mira Tovol?", fuzzy=False) if hit.edits] == []

    def test_short_names_have_no_near_misses(self) -> None:
        assert INDEX.find("Korvine") == []


class TestMany:
    def test_every_alias_of_ten_thousand(self) -> None:
        names = {f"e{i}": (f"Person{i} Family{i % 97}",) for i in range(10_000)}
        index = NameIndex(names)
        for i in (0, 777, 9_999):
            hits = [
                hit for hit in index.find(f"Do you know Person{i} Family{i % 97}?", fuzzy=False) if hit.whole
            ]
            assert [hit.expert_id for hit in hits] == [f"e{i}"]

    def test_no_experts(self) -> None:
        assert NameIndex({}).find("Who is Mira Tovel?") == []

    def test_shared_alias_names_both(self) -> None:
        index = NameIndex({"a": ("Vokalo",), "b": ("Vokalo",)})
        assert {hit.expert_id for hit in index.find("What is Vokalo?")} == {"a", "b"}
