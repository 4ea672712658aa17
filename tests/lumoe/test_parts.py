"""Which questions of a turn stand alone."""

from __future__ import annotations

import pytest

from app.lumoe.parts import MOST, parts_of


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("Who is Mira Tovel?", ["Who is Mira Tovel?"]),
        ("Who is Mira? What is 3 plus 4?", ["Who is Mira?", "What is 3 plus 4?"]),
        ("Who is Mira Tovel? And what is 3 plus 4?", ["Who is Mira Tovel?", "And what is 3 plus 4?"]),
        ("Who is Mira Tovel? And where was she born?", ["Who is Mira Tovel? And where was she born?"]),
        ("Who is Mira Tovel? What about the prize?", ["Who is Mira Tovel? What about the prize?"]),
        ("What is 3 plus 4? Tell me of Anna.", ["What is 3 plus 4?", "Tell me of Anna."]),
        (
            "Tell me about Mira Tovel. What day follows Monday?",
            ["Tell me about Mira Tovel.", "What day follows Monday?"],
        ),
        ("Who is Dr. Tovel and what does she do?", ["Who is Dr. Tovel and what does she do?"]),
        (
            "Who is Prof. Tovel of Shate? Which day follows Monday?",
            ["Who is Prof. Tovel of Shate?", "Which day follows Monday?"],
        ),
        ("Who is Mira? Why?", ["Who is Mira? Why?"]),
        ("First line here\nSecond line here", ["First line here", "Second line here"]),
        ("", []),
    ],
)
def test_parts(text: str, parts: list[str]) -> None:
    assert parts_of(text) == parts


def test_too_many_are_one() -> None:
    text = " ".join(f"What is {i} plus 4?" for i in range(MOST + 1))
    assert parts_of(text) == [text]
