"""A gate made step by step is the gate made at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from app.lumoe.gate.gate import Gate
from app.lumoe.gate.pictures import PictureIndex, centres
from app.lumoe.gate.record import GateRecord, NegativeScores
from app.lumoe.gate.threshold import Thresholds
from app.lumoe.mllm import MLLM
from app.lumoe.types import Conversation, Decision, ask, then
from tests.lumoe.tiny import picture

NAMES = ("Mira Tovel", "Korvane", "Bela Tun", "Zadok Works", "Ilmar Quell")


def record(mllm: MLLM, i: int) -> GateRecord:
    """Claims its own picture by likeness, and by name and description."""
    pooled = mllm.encode([picture(i)]).pooled.float()
    generator = torch.Generator().manual_seed(i)
    scores = NegativeScores(
        "set", -9 * torch.rand(99, generator=generator), torch.rand(99, generator=generator)
    )
    return GateRecord(
        (NAMES[i],),
        "Personage",
        pooled,
        facts=(f"golden prize {i}",),
        hints=("painter", f"town{i}"),
        alike=0.999,
        negatives=scores,
    )


@pytest.fixture(scope="module")
def records(tiny: MLLM) -> dict[str, GateRecord]:
    return {f"e{i}": record(tiny, i) for i in range(len(NAMES))}


def asked() -> list[Conversation]:
    found = [ask(f"Where was {name} born?") for name in NAMES]
    found += [ask("Who is this?", picture(i)) for i in range(6)]
    found += [ask(f"Which painter won the golden prize {i}?") for i in range(3)]
    found.append(then(ask("Tell me of Korvane."), "No.", "And where is it?"))
    return [*found, ask("What is 3 plus 4?")]


def same(found: Sequence[Decision], wanted: Sequence[Decision]) -> bool:
    """Whether two gates decide alike: on the same evidence, its scores equal but for rounding.

    One gate's prototypes are multiplied in another order than the other's.
    """
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert [e.score for e in one.evidence] == pytest.approx([e.score for e in other.evidence], rel=1e-5)
        assert rounded(one) == rounded(other)
    return True


def rounded(decision: Decision) -> Decision:
    return replace(decision, evidence=tuple(replace(e, score=0.0) for e in decision.evidence))


class TestEvolved:
    def test_step_by_step_is_at_once(self, tiny: MLLM, records: dict[str, GateRecord]) -> None:
        whole = Gate(tiny, records)
        step = Gate(tiny, {})
        for i in range(1, len(records) + 1):
            step = step.evolved(dict(list(records.items())[:i]))
        assert same(step.decide(asked()), whole.decide(asked()))
        assert step.thresholds.recognition == whole.thresholds.recognition
        assert step.thresholds.likeness == whole.thresholds.likeness
        routed = [d.expert_id for d in whole.decide(asked())]
        assert routed[:5] == list(records)
        assert routed[-2:] == ["e1", None]

    def test_several_at_once_are_as_one_after_another(
        self, tiny: MLLM, records: dict[str, GateRecord], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = dict(list(records.items())[:2])
        gate, whole = Gate(tiny, first), Gate(tiny, records)
        assert len(records) - len(first) <= 8, "more of them would make it from the beginning"
        evolved = gate.evolved(records)
        assert same(evolved.decide(asked()), whole.decide(asked()))
        assert evolved.thresholds.recognition == whole.thresholds.recognition
        assert evolved.names.segments == 1

    def test_the_older_gate_stays_as_it_was(self, tiny: MLLM, records: dict[str, GateRecord]) -> None:
        first = dict(list(records.items())[:4])
        gate = Gate(tiny, first)
        before = gate.decide(asked())
        gate.evolved(records)
        assert same(gate.decide(asked()), before)

    def test_removed_and_replaced(self, tiny: MLLM, records: dict[str, GateRecord]) -> None:
        gate = Gate(tiny, records)
        fewer = {key: r for key, r in records.items() if key != "e1"}
        assert same(gate.evolved(fewer).decide(asked()), Gate(tiny, fewer).decide(asked()))
        renamed = {**records, "e1": replace(records["e1"], aliases=("Lume",), facts=("silver cup",))}
        evolved = gate.evolved(renamed)
        assert same(evolved.decide(asked()), Gate(tiny, renamed).decide(asked()))
        assert evolved.thresholds.recognition == Gate(tiny, renamed).thresholds.recognition
        assert evolved.decide([ask("Tell me of Lume.")])[0].expert_id == "e1"
        assert evolved.decide([ask("Tell me of Korvane.")])[0].expert_id is None

    def test_names_in_one_index_again(self, tiny: MLLM, records: dict[str, GateRecord]) -> None:
        step = Gate(tiny, {})
        for i in range(1, len(records) + 1):
            step = step.evolved(dict(list(records.items())[:i]))
        assert same(step.compacted().decide(asked()), step.decide(asked()))
        assert step.compacted().names.segments == 1


class TestPictureIndex:
    def test_nobody_twice(self, records: dict[str, GateRecord]) -> None:
        index = PictureIndex(records, Thresholds())
        with pytest.raises(ValueError, match="e1"):
            index.with_records({"e1": records["e1"]})
        assert index.with_records({}) is index

    def test_best_of_several_prototypes(self) -> None:
        two = torch.nn.functional.normalize(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), dim=-1)
        one = torch.tensor([[-1.0, 0.0]])
        plain = GateRecord(("A",), "Plants", two, alike=0.9)
        index = PictureIndex({"a": plain, "b": replace(plain, prototypes=one)}, Thresholds())
        assert index.similarities(torch.tensor([[0.0, 1.0], [-1.0, 0.0]])).tolist() == [
            [1.0, 0.0],
            [0.0, 1.0],
        ]


class TestCentres:
    def test_like_pictures_are_one_group(self) -> None:
        rows = torch.nn.functional.normalize(torch.tensor([[1.0, 0.1], [1.0, -0.1], [0.0, 1.0]]), dim=-1)
        found = centres(rows)
        assert len(found) == 2
        assert found.norm(dim=-1).tolist() == pytest.approx([1.0, 1.0])
        assert found[0].tolist() == pytest.approx([1.0, 0.0], abs=1e-6)

    def test_never_more_than_most(self) -> None:
        assert len(centres(torch.eye(9), most=4)) == 4

    def test_none(self) -> None:
        assert centres(torch.zeros(0, 8)).shape == (0, 0)
