from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.lumoe.gate.decode import Source, decodings


def texts(text: str) -> dict[str, str]:
    return {name: source.text for name, source in decodings(Source(text))}


class TestDecodings:
    @pytest.mark.parametrize(
        ("name", "text", "expected"),
        [
            ("base64", "say TWlyYSBUb3ZlbA== now", "say Mira Tovel now"),
            ("base64", "TWlyYSBUb3ZlbA", "Mira Tovel"),
            ("base64", "x-TWlyYSBUb3ZlbA", "x Mira Tovel"),
            ("base64", "TQBpAHIAYQA=", "Mira"),
            ("base32", "JVUXEYJAKRXXMZLM", "Mira Tovel"),
            ("hex", "0x4d697261 is", "Mira is"),
            ("hex", "4d 69 72 61", "Mira"),
            ("hex", "4D:69:72:61", "Mira"),
            ("url", "%4D%C3%ADra%20T", "Míra T"),
            ("html", "M&#105;ra &amp; T&oacute;vel", "Mira & Tóvel"),
            ("escape", r"\u004d\x69ra \U0001D400 U+0041", "Mira \U0001d400 A"),
            ("quoted-printable", "=4D=69ra", "Mira"),
            ("binary", "01001101 01101001 01110010 01100001", "Mira"),
            ("decimal", "77 105 114 97", "Mira"),
            ("ordinals", "13 9 18 1", "mira"),
            ("morse", "-- .. .-. .- / -", "mira t"),
        ],
    )
    def test_runs_in_place(self, name: str, text: str, expected: str) -> None:
        assert texts(text)[name] == expected

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "Who painted the photosynthesis of responsibilities in 1962 and 1971?",
            "12 + 30 = 42, 7 - 3 = 4",
            "AAECAwQFBgcICQ==",  # bytes that are no text
            "deadbeefdeadbeef",
            "well... -- no",
            "10101010 10101010",
        ],
    )
    def test_what_is_no_text_stays(self, text: str) -> None:
        assert texts(text) == {}

    def test_ranges_lead_back(self) -> None:
        text = "say TWlyYSBUb3ZlbA== now"
        source = dict(decodings(Source(text)))["base64"]
        at = source.text.index("Mira")
        a, b = source.back(at, at + len("Mira Tovel"))
        assert text[a:b] == "TWlyYSBUb3ZlbA=="
        assert source.back(0, 3) == (0, 3)

    @given(
        st.text(st.characters(), max_size=80)
        | st.text(alphabet="%4d&#;=\\xuU+.- 01TWlyYSBUb3ZlbA\n", max_size=80)
    )
    def test_any_text(self, text: str) -> None:
        for _, source in decodings(Source(text)):
            for _, again in [("", source), *decodings(source)]:
                assert again.starts is not None
                assert again.ends is not None
                assert len(again.text) == len(again.starts) == len(again.ends)
                assert all(0 <= a < b <= len(text) for a, b in zip(again.starts, again.ends, strict=True))
                assert list(again.starts) == sorted(again.starts)
