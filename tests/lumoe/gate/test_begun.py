"""What an answer that a limit cuts would have gone on with decides about nothing once nothing is open."""

from __future__ import annotations

import base64
import codecs

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from app.lumoe.gate.begun import open_at_end
from app.lumoe.gate.decode import may_be_encoded
from app.lumoe.gate.names import NameIndex

NAMES = NameIndex(
    {
        "mira": ("Mira Tovel", "Mira Tovel Brakkin", "Tovel"),
        "hall": ("Lulvast Hall",),
        "sozzin": ("Sozzinor",),
    }
)
_SHIFT = {ord(a): chr((ord(a) - 97 + 3) % 26 + 97) for a in "abcdefghijklmnopqrstuvwxyz"}
_SPELLED = [
    text
    for name in ("Mira Tovel", "Tovel", "Lulvast Hall", "Sozzinor", "Mira Tovel Brakkin")
    for text in (
        name,
        name[::-1],
        " ".join(word[::-1] for word in name.split()),
        codecs.encode(name, "rot13"),
        name.lower().translate(_SHIFT),
        "-".join(name.replace(" ", "")),
        " ".join(name.replace(" ", "")),
        name.replace(" ", ""),
        name.replace("i", "1"),
        name.upper(),
        name.encode().hex(),
        name.replace("o", "\u00f6").replace("a", "\u00e1"),
        name.replace("o", "\u043e").replace("a", "\u0430"),  # Cyrillic letters that look like these
        base64.b64encode(f"so it is {name}, who".encode()).decode(),
    )
]
_WORDS = [
    "a painter",
    "and",
    "of the town",
    "so it is",
    ",",
    ". ",
    "Anna",
    "born",
    "in 1962",
    "who",
    "\n",
    "gr\u00fc\u00dfe",
    "internationalisation",
]
_TEXTS = st.lists(
    st.tuples(st.sampled_from([*_SPELLED, *_WORDS, *_WORDS]), st.sampled_from([" ", " ", " ", "", ", "])),
    max_size=7,
).map(lambda parts: "".join(word + gap for word, gap in parts))


def found(text: str, within: int) -> set[str]:
    """Return whose whole names begin within the limit; which of several is told may depend on the rest."""
    return {hit.expert_id for hit in NAMES.find(text, fuzzy=False) if hit.whole and hit.start < within}


class TestOpenAtEnd:
    @pytest.mark.parametrize(
        "text",
        [
            "Somebody painted this: Mi",
            "Somebody painted this: Mira",
            "Somebody painted this: Mira Tovel",
            "Somebody painted this: Mira Tovel, An",
            "They call it lul",
            "They call it lulv ast ha",
            "They call it M i r",
            "They call it levot a",
            "They call it arim lev",
            "They call it zven gbi",
            "They call it pluda w",
            "They call it TWlyYSBUb3ZlbA",
            "They call it M1r",
            "They call it M\u00edra",
            "They call it t\u043ev",
        ],
    )
    def test_what_may_become_a_name_is_open(self, text: str) -> None:
        assert open_at_end(text, len(text), NAMES)

    @pytest.mark.parametrize(
        "text",
        ["", "Nobody", "It is a painter who lives in the town", "Mira Tovel lives there and paints the sea"],
    )
    def test_what_may_not_is_settled(self, text: str) -> None:
        assert not open_at_end(text, len(text), NAMES)

    def test_what_begins_beyond_the_limit_is_nobody_s_business(self) -> None:
        text = "It is a painter who lives in the town of Mi"
        assert open_at_end(text, len(text), NAMES)
        assert not open_at_end(text, text.index("Mi"), NAMES)

    @pytest.mark.parametrize("text", ["It won the gol", "It won the golden", "It won the Golden Quill"])
    def test_a_phrase_that_has_begun_is_open(self, text: str) -> None:
        assert open_at_end(text, len(text), NAMES, ["golden quill"])
        assert not open_at_end(text, len(text), NAMES, ["silver quill"])

    def test_a_phrase_is_looked_for_as_it_stands(self) -> None:
        assert not open_at_end("It won the golden-ish", 21, NAMES, ["golden quill"])
        assert not open_at_end("It won the nedlog", 17, NAMES, ["golden quill"])

    def test_a_character_that_is_cut_in_two_may_be_any_letter(self) -> None:
        assert open_at_end("It is Mir\ufffd", 10, NAMES)
        assert open_at_end("It is \ufffd", 7, NAMES)
        assert not open_at_end("It is \ufffd", 6, NAMES)
        assert not open_at_end("It is gr\ufffd", 9, NAMES)
        assert not open_at_end("It is \ufffd\ufffd\ufffd there", 15, NAMES)

    def test_nobody_to_look_for(self) -> None:
        assert not open_at_end("Somebody painted this: Mira", 27, NameIndex({}))

    @settings(max_examples=400)
    @given(_TEXTS, st.integers(0, 80), _TEXTS)
    def test_no_continuation_adds_a_name_to_what_is_settled(self, text: str, cut: int, more: str) -> None:
        assume(not may_be_encoded(more))  # then the whole text is read in more ways
        seen = text[:cut].rstrip()
        for within in {len(seen), max(0, len(seen) - 5)}:
            if not open_at_end(seen, within, NAMES):
                assert found(seen, within) >= found(seen + more, within)
                assert found(seen, within) >= found(f"{seen} {more}", within)
