from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.lumoe.gate.canonical import canonicalise, joined_letters


class TestCanonicalise:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("Mira Tovel", "mira tovel"),
            ("  MIRA\n\tTóvel's ", "mira tovel s"),
            ("M\u200bi\u200dra T\u00advel", "mira tvel"),
            ("\uff2d\uff49\uff52\uff41", "mira"),
            ("Мира", "mira"),
            ("Straße", "strasse"),
            ("…!?", ""),
            ("", ""),
        ],
    )
    def test_forms(self, text: str, expected: str) -> None:
        assert canonicalise(text).text == expected

    def test_span_leads_back(self) -> None:
        text = "Is «Míra Tovel» here?"
        canonical = canonicalise(text)
        start = canonical.text.index("mira")
        a, b = canonical.span(start, start + len("mira tovel"))
        assert text[a:b] == "Míra Tovel"

    @given(st.text(max_size=200))
    def test_any_text(self, text: str) -> None:
        canonical = canonicalise(text)
        assert len(canonical.text) == len(canonical.origin)
        assert canonicalise(canonical.text).text == canonical.text
        assert set(canonical.text) <= set("abcdefghijklmnopqrstuvwxyz0123456789 ")
        assert list(canonical.origin) == sorted(canonical.origin)
        assert all(0 <= i < len(text) for i in canonical.origin)


class TestJoinedLetters:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("who is m i r a now", "who is mira now"),
            ("m-i-r-a t.o.v.e.l", "miratovel"),
            ("a b", "a b"),
            ("it is I", "it is i"),
        ],
    )
    def test_forms(self, text: str, expected: str) -> None:
        assert joined_letters(canonicalise(text)).text == expected

    @given(st.text(alphabet="ab c.", max_size=60))
    def test_positions(self, text: str) -> None:
        joined = joined_letters(canonicalise(text))
        assert len(joined.text) == len(joined.origin)
        assert all(
            text[i].casefold() == c for i, c in zip(joined.origin, joined.text, strict=True) if c != " "
        )
