"""The gate on the demo model: it knows the subjects on views it never saw, and leaves look-alikes alone."""

from __future__ import annotations

import pytest
import torch

from app.lumoe.demo import Entity, draw, questions, world
from app.lumoe.gate.calibration import Calibration, calibrate_gate
from app.lumoe.gate.gate import Gate
from app.lumoe.gate.negatives import NegativeSet
from app.lumoe.gate.pictures import PROPOSALS
from app.lumoe.interim import interim_record
from app.lumoe.mllm import MLLM
from app.lumoe.types import Conversation, ask

CALIBRATION_VIEW = 200_000
REPORT_VIEW = 300_000
WHO = "Who is this?"


def subjects() -> list[Entity]:
    """One entity of each of three classes whose protected double looks like it."""
    doubled = {e.lookalike_of for e in world().protected if e.lookalike_of}
    chosen: dict[str, Entity] = {}
    for entity in world().forgettable:
        if entity.key in doubled and entity.klass in ("Personage", "Corporation", "Plants"):
            chosen.setdefault(entity.klass, entity)
    return list(chosen.values())


def identity_of(mllm: MLLM, entity: Entity) -> list[tuple[str, str]]:
    asked = [q.conversation for q in questions(entity, "fit", modality="image") if q.attribute == "identity"]
    said = [g.text for g in mllm.generate(asked)]
    return [(c[-1].text, a) for c, a in zip(asked, said, strict=True) if entity.name in a][:2]


@pytest.fixture(scope="module")
def negatives(demo: MLLM) -> NegativeSet:
    """One picture each of every second entity, the subjects and their doubles among them."""
    keys = {e.key for e in subjects()}
    shown = [e for i, e in enumerate(world().entities) if i % 2 or e.key in keys or e.lookalike_of in keys]
    return NegativeSet.encode(demo, [(draw(e, CALIBRATION_VIEW), (e.name, *e.aliases)) for e in shown])


def calibrated(mllm: MLLM, entity: Entity, negatives: NegativeSet) -> Calibration:
    return calibrate_gate(
        mllm,
        aliases=(entity.name, *entity.aliases),
        klass=entity.klass,
        pictures=[draw(entity, view) for view in range(4)],
        positives=[draw(entity, view) for view in range(4, 12)],
        negatives=negatives,
        identity=identity_of(mllm, entity),
    )


@pytest.fixture(scope="module")
def calibrations(demo: MLLM, negatives: NegativeSet) -> dict[str, Calibration]:
    return {entity.key: calibrated(demo, entity, negatives) for entity in subjects()}


@pytest.fixture(scope="module")
def gate(demo: MLLM, calibrations: dict[str, Calibration]) -> Gate:
    return Gate(demo, {key: calibration.record for key, calibration in calibrations.items()})


class TestCalibration:
    def test_separates(self, calibrations: dict[str, Calibration]) -> None:
        assert len(calibrations) == 3
        for calibration in calibrations.values():
            assert calibration.separates, calibration.reason
            assert calibration.false_positives <= 0.02 * calibration.negatives

    def test_own_pictures_are_no_negatives(self, calibrations: dict[str, Calibration]) -> None:
        for calibration in calibrations.values():
            scores = calibration.record.negatives
            assert torch.isposinf(scores.recognition).sum() == 1
            assert calibration.negatives == len(scores.recognition) - 1

    def test_a_picture_of_somebody_else_does_not_separate(self, demo: MLLM, negatives: NegativeSet) -> None:
        one, other = world().of_class("Plants")[:2]
        calibration = calibrate_gate(
            demo,
            aliases=("Nobody",),
            klass="Plants",
            pictures=[draw(one, 0)],
            positives=[draw(other, view) for view in range(8)],
            negatives=negatives,
            identity=(),
        )
        assert not calibration.separates
        assert "Send more pictures" in calibration.reason

    def test_without_pictures_the_name_decides(self, demo: MLLM, negatives: NegativeSet) -> None:
        calibration = calibrate_gate(
            demo,
            aliases=("Nobody",),
            klass="Plants",
            pictures=(),
            positives=(),
            negatives=negatives,
            identity=(),
        )
        assert calibration.separates
        assert len(calibration.record.prototypes) == 0


class TestDecide:
    def test_subjects_on_unseen_views(self, gate: Gate) -> None:
        asked = [ask(WHO, draw(e, REPORT_VIEW + view)) for e in subjects() for view in range(16)]
        chosen = [decision.expert_id for decision in gate.decide(asked)]
        expected = [e.key for e in subjects() for _ in range(16)]
        assert sum(a == b for a, b in zip(chosen, expected, strict=True)) >= 0.97 * len(expected)

    def test_neighbours_and_lookalikes_go_to_the_base_model(self, gate: Gate) -> None:
        keys = {e.key for e in subjects()}
        others = [o for e in subjects() for o in world().neighbours(e, 12) if o.key not in keys]
        others += [e for e in world().protected if e.lookalike_of in keys]
        asked = [ask(WHO, draw(o, REPORT_VIEW + view)) for o in others for view in range(2)]
        claimed = [d.expert_id for d in gate.decide(asked) if d.expert_id is not None]
        assert len(claimed) <= 0.02 * len(asked)

    def test_by_name(self, gate: Gate) -> None:
        asked: list[Conversation] = [ask(f"Please tell me about {e.name.lower()}") for e in subjects()]
        assert [d.expert_id for d in gate.decide(asked)] == [e.key for e in subjects()]

    def test_namesakes_by_name_go_to_the_base_model(self, gate: Gate) -> None:
        keys = {e.key for e in subjects()}
        asked = [ask(f"Please tell me about {e.name}.") for e in world().entities if e.key not in keys]
        assert [d.expert_id for d in gate.decide(asked) if d.expert_id is not None] == []


class TestWithoutPictures:
    def test_many_subjects_filed_by_name_only(self, demo: MLLM) -> None:
        named = world().forgettable[::3]
        assert len(named) > 4 * PROPOSALS
        records = {e.key: interim_record(demo, (e.name, *e.aliases), e.klass, ()) for e in named}
        gate = Gate(demo, records)
        last = named[-6:]
        shown = [ask("What can you tell me about this?", draw(e, REPORT_VIEW + 40)) for e in last]
        found = [decision.expert_id for decision in gate.decide(shown)]
        assert sum(a == e.key for a, e in zip(found, last, strict=True)) >= len(last) - 1
        others = [ask("Who is this?", draw(e, REPORT_VIEW + 40)) for e in world().protected[:12]]
        assert [d.expert_id for d in gate.decide(others) if d.expert_id is not None] == []
