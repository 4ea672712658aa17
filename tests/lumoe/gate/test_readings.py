from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.lumoe.gate.readings import _BUDGET, _SLACK, readings

KNOWN = frozenset({"mira", "tovel", "miratovel"})


def forms(text: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for reading in readings(text, KNOWN.__contains__):
        found.setdefault(reading.name, set()).add(reading.form.text)
    return found


class TestReadings:
    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("plain", "Mira, Tovel"),
            ("homoglyph", "Міrа Тоνеl"),
            ("leet", "M1r4 T0ve1!"),
            ("leet", "m!r@ t0v3|"),
            ("reversed", "levoT ariM"),
            ("reversed", "ariM levoT"),
            ("rot13", "Zven Gbiry"),
            ("atbash", "Nriz Glevo"),
            ("base64", "TWlyYSBUb3ZlbA=="),
            ("base64+base64", "VFdseVlTQlViM1psYkE9PQ=="),
            ("base64+rot13", "WnZlbiBHYmlyeQ=="),
            ("reversed+base64", "==AblZ3bUBSYylWT"),
            ("base64", "Mira VG92ZWw="),
            ("url", "%4d%69%72%61 Tovel"),
        ],
    )
    def test_is_read_so(self, name: str, text: str) -> None:
        assert "mira tovel" in forms(text)[name]

    def test_other_shifts_of_words_that_are_not_english(self) -> None:
        (every,) = forms("Who is Ocxc Vqxgn?")["caesar"]
        assert "who" not in every
        assert "mava tovel" in every

    def test_numbers_are_no_leet(self) -> None:
        assert "leet" not in forms("In 1962, 7 of 10 paid 300.")

    def test_ordinary_text_has_few_readings(self) -> None:
        assert set(forms("Who is the person in this picture?")) == {"plain", "reversed", "rot13", "atbash"}

    @given(st.text(st.characters(), max_size=60) | st.text(alphabet="mM1iI!4@ rRaA.=%&#;\\x0", max_size=60))
    def test_any_text(self, text: str) -> None:
        for reading in readings(text, KNOWN.__contains__):
            assert len(reading.form.text) == len(reading.form.origin)
            a, b = reading.span(0, len(reading.form.text))
            assert 0 <= a < b <= len(text)


def repeated(unit: str) -> str:
    return (unit * (20_000 // len(unit) + 1))[:20_000]


UNITS = (
    "who is the person ", "a", "=", "&", "-.", "%4d%69", "&#105;", "\\u0041", "4d697261 ", "105 114 ",
    "01001101 ", ".- -... ", "m1r4 t0v3l ", "l1l1l1 ", "a b c d ", "Міrа Тоvеl ", "М1rа Т0vеl ",
    "glozan vultik ", "bG9yZW0gaXBzdW0gZG9sb3Igc2l0IGFtZXQ= ",
)  # fmt: skip
HOSTILE = {unit: repeated(unit) for unit in UNITS}
HOSTILE["random"] = "".join(chr(random.Random(i).randrange(32, 0x9000)) for i in range(20_000))


@pytest.mark.parametrize("kind", HOSTILE)
def test_the_work_is_bounded(kind: str) -> None:
    text = HOSTILE[kind]
    derived = [r for r in readings(text, KNOWN.__contains__) if r.name != "plain"]
    assert sum(len(r.source.text) for r in derived) <= _BUDGET * len(text) + _SLACK
    assert len(derived) <= 64
