from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.lumoe.gate.canonical import by_look, canonicalise, looks_otherwise

ANY = st.text(st.characters(), max_size=200)  # surrogates too


class TestCanonicalise:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("Mira Tovel", "mira tovel"),
            ("  MIRA\n\tTóvel's ", "mira tovel s"),
            ("M\u200bi\u200dra T\u00advel", "mira tvel"),
            ("\uff2d\uff49\uff52\uff41", "mira"),
            ("Мира", "mira"),
            ("Альберт", "albert"),
            ("Straße", "strasse"),
            ("王小明是谁", "wang xiao ming shi shei"),
            ("ターナー", "tana"),
            ("ミラは", "mira ha"),
            ("🅼🅸🆁🅰", "mira"),
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

    @given(ANY)
    def test_any_text(self, text: str) -> None:
        for fold in (None, by_look):
            canonical = canonicalise(text, fold)
            assert len(canonical.text) == len(canonical.origin)
            assert canonicalise(canonical.text).text == canonical.text
            assert set(canonical.text) <= set("abcdefghijklmnopqrstuvwxyz0123456789 ")
            assert "  " not in f" {canonical.text} " or not canonical.text
            assert list(canonical.origin) == sorted(canonical.origin)
            assert all(0 <= i < len(text) for i in canonical.origin)

    @given(st.text(st.characters(max_codepoint=127), max_size=200))
    def test_the_quick_way_for_ascii_is_the_same(self, text: str) -> None:
        slow = canonicalise(text + "\u200b")
        assert (canonicalise(text).text, list(canonicalise(text).origin)) == (slow.text, list(slow.origin))


class TestByLook:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("Міrа Тоvеl", "mira tovel"),
            ("ΜΙRΑ", "mira"),
            ("ВК-427", "bk 427"),
            ("Ꮇіrа", "mira"),
            ("𝐌𝐢𝐫𝐚", "mira"),
            ("Mira", "mira"),
        ],
    )
    def test_look_alikes(self, text: str, expected: str) -> None:
        assert canonicalise(text, by_look).text == expected

    def test_only_where_it_differs_from_the_sound(self) -> None:
        assert looks_otherwise("ВК-427")
        assert not looks_otherwise("Mira Tóvel")
        assert not looks_otherwise("BK-427")
