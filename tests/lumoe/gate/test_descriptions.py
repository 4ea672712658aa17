"""Descriptions: two phrases of one subject mean it, one is a coincidence."""

from __future__ import annotations

import pytest
import torch

from app.lumoe.gate.descriptions import DescriptionIndex
from app.lumoe.gate.record import GateRecord


def record(facts: tuple[str, ...], hints: tuple[str, ...]) -> GateRecord:
    return GateRecord(("Mira Tovel",), "Personage", torch.zeros(0, 0), facts=facts, hints=hints)


INDEX = DescriptionIndex(
    {
        "mira": record(("golden quill", "lume delta"), ("painter", "shate", "1931", "oil")),
        "bela": record(("silver brush",), ("painter", "pernow")),
    }
)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Where was the painter who won the Golden Quill born?", {"mira": "strong", "bela": None}),
        ("Who was born in the Lume delta and won the golden quill?", {"mira": "strong"}),
        ("Who won the Golden Quill?", {"mira": "weak"}),
        ("Name a painter from Shate.", {"mira": "weak"}),
        ("Name a painter.", {}),
        ("Which painter won the Silver-Brush?", {"bela": "strong"}),
        ("I like oil.", {}),
        ("goldenquill", {}),
        ("", {}),
    ],
)
def test_who_is_meant(text: str, found: dict[str, str | None]) -> None:
    expected = {key: strength for key, strength in found.items() if strength}
    assert {d.expert_id: d.strength for d in INDEX.find(text)} == expected


def test_a_phrase_said_twice_is_one_phrase() -> None:
    assert [d.strength for d in INDEX.find("Golden Quill, golden quill!")] == ["weak"]
