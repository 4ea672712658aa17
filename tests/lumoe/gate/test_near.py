from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from rapidfuzz.distance import OSA

from app.lumoe.gate.near import Borders, NearIndex, typos

ALIASES = ("korvane gate", "mira tovel", "banabanana", "the engineer of shate", "vokalo")
INDEX = NearIndex(ALIASES)
EDITS = st.lists(
    st.tuples(
        st.sampled_from(["swap", "drop", "put", "change"]), st.integers(0, 40), st.sampled_from("abnkz")
    ),
    max_size=2,
)


def edited(alias: str, edits: list[tuple[str, int, str]]) -> str:
    letters = list(alias)
    for kind, at, letter in edits:
        at %= max(len(letters) - 1, 1)
        if kind == "swap":
            letters[at], letters[at + 1] = letters[at + 1], letters[at]
        elif kind == "drop":
            del letters[at]
        elif kind == "put":
            letters.insert(at, letter)
        else:
            letters[at] = letter
    return "".join(letters)


class TestFind:
    @given(
        st.sampled_from(ALIASES),
        EDITS,
        st.sampled_from(["", "who is ", "a b "]),
        st.sampled_from(["", " s", " or so"]),
    )
    def test_finds_what_a_comparison_with_all_finds(
        self, alias: str, edits: list[tuple[str, int, str]], before: str, after: str
    ) -> None:
        said = " ".join(edited(alias, edits).split())
        distance = OSA.distance(said, alias)
        found = {
            m.alias: m
            for m in INDEX.find(Borders(before + said + after))
            if (m.start, m.end) == (len(before), len(before + said))
        }
        if 0 < distance <= typos(alias):
            assert found[alias].edits == distance
        else:
            assert alias not in found

    def test_only_whole_words(self) -> None:
        assert [miss.alias for miss in INDEX.find(Borders("xmira tovel"))] == ["mira tovel"]
        assert INDEX.find(Borders("mira tovolsson")) == []

    def test_short_aliases_have_none(self) -> None:
        assert INDEX.find(Borders("vokala")) == []

    def test_nothing(self) -> None:
        assert NearIndex(()).find(Borders("mira tovel")) == []
        assert INDEX.find(Borders("")) == []
