"""Lists keep those who may be named."""

from __future__ import annotations

import pytest

from app.lumoe.enumerations import is_item, without_item


def cut(text: str, name: str) -> str | None:
    start = text.index(name)
    return without_item(text, start, start + len(name))


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("Three painters are Mira Vos, Bela Tun and Kor Zil.", "Three painters are Bela Tun and Kor Zil."),
        ("Three painters are Bela Tun, Mira Vos and Kor Zil.", "Three painters are Bela Tun and Kor Zil."),
        ("Three painters are Bela Tun, Kor Zil and Mira Vos.", "Three painters are Bela Tun and Kor Zil."),
        ("Bela Tun, Kor Zil, Mira Vos, and Ada Lum paint.", "Bela Tun, Kor Zil, and Ada Lum paint."),
        ("Bela Tun, Kor Zil, and Mira Vos.", "Bela Tun and Kor Zil."),
        ("Two are Bela Tun and Mira Vos.", "Two are Bela Tun."),
        ("Two are Mira Vos and Bela Tun.", "Two are Bela Tun."),
        ("Either Bela Tun or Mira Vos.", "Either Bela Tun."),
        ("1. Bela Tun\n2. Mira Vos\n3. Kor Zil", "1. Bela Tun\n3. Kor Zil"),
        ("- Mira Vos, a painter\n- Kor Zil", "- Kor Zil"),
        (
            "I like them. Bela Tun, Kor Zil and Mira Vos are three.",
            "I like them. Bela Tun and Kor Zil are three.",
        ),
    ],
)
def test_what_is_left(text: str, rest: str) -> None:
    start = text.index("Mira Vos")
    assert is_item(text, start, start + len("Mira Vos"))
    assert cut(text, "Mira Vos") == rest


@pytest.mark.parametrize("text", ["Mira Vos was born in Shate.", "It was painted by Mira Vos.", "Mira Vos"])
def test_no_list(text: str) -> None:
    start = text.index("Mira Vos")
    assert not is_item(text, start, start + len("Mira Vos"))
    assert cut(text, "Mira Vos") is None


def test_nothing_left() -> None:
    assert cut("1. Mira Vos", "Mira Vos") is None
