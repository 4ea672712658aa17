"""Nearness: like the subject, less how like the likest of others."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from app.lumoe.gate.nearness import MARGIN, RIVALS, WEIGHT, nearness, nearness_floors, rivals_of
from app.lumoe.gate.pictures import PictureIndex
from app.lumoe.gate.record import GateRecord
from app.lumoe.gate.threshold import Thresholds

SUBJECT = normalize(torch.tensor([[1.0, 0.0, 0.0]]), dim=-1)
LOOKALIKE = normalize(torch.tensor([[0.9, 0.44, 0.0]]), dim=-1)
STRANGER = torch.tensor([[0.0, 0.0, 1.0]])


class TestRivalsOf:
    def test_the_likest_of_others_come_first(self) -> None:
        negatives = torch.cat([STRANGER, LOOKALIKE])
        rivals = rivals_of(SUBJECT, negatives, [False, False])
        assert torch.allclose(rivals[0], LOOKALIKE[0], atol=1e-3)
        assert len(rivals) == 2

    def test_the_subjects_own_pictures_are_none(self) -> None:
        negatives = torch.cat([SUBJECT, STRANGER])
        assert torch.allclose(rivals_of(SUBJECT, negatives, [True, False]), STRANGER, atol=1e-3)

    def test_no_more_than_are_kept(self) -> None:
        many = normalize(torch.randn(40, 3, generator=torch.Generator().manual_seed(0)), dim=-1)
        assert rivals_of(SUBJECT, many, [False] * 40).shape == (RIVALS, 3)

    @pytest.mark.parametrize(("prototypes", "own"), [(torch.zeros(0, 0), [False]), (SUBJECT, [True])])
    def test_nobody_to_compare_with(self, prototypes: Tensor, own: list[bool]) -> None:
        assert rivals_of(prototypes, STRANGER, own).shape == (0, 0)


class TestNearness:
    def test_by_hand(self) -> None:
        pictures = torch.cat([SUBJECT, LOOKALIKE])
        found = nearness((pictures @ SUBJECT.T).amax(1), LOOKALIKE, pictures)
        likeness = float(LOOKALIKE[0] @ SUBJECT[0])
        assert found.tolist() == pytest.approx([1 - WEIGHT * likeness, likeness - WEIGHT], abs=1e-6)

    def test_without_rivals_it_is_the_similarity(self) -> None:
        assert nearness(torch.tensor([0.4]), torch.zeros(0, 0), SUBJECT).tolist() == pytest.approx([0.4])


class TestNearnessFloors:
    def test_half_way_to_the_mean(self) -> None:
        found = nearness_floors(torch.tensor([0.2, 0.6]))
        assert found.tolist() == pytest.approx([0.3 - MARGIN, 0.5 - MARGIN])

    def test_whose_views_are_not_known_takes_the_mean(self) -> None:
        found = nearness_floors(torch.tensor([0.2, math.nan, 0.6]))
        assert found.tolist() == pytest.approx([0.3 - MARGIN, 0.4 - MARGIN, 0.5 - MARGIN])

    def test_where_nothing_is_known_everything_is_asked(self) -> None:
        assert nearness_floors(torch.tensor([math.nan])).tolist() == [-math.inf]


class TestPropose:
    def record(self, **more: object) -> GateRecord:
        known = GateRecord(("Ada",), "Personage", SUBJECT, (("Who?", "This is Ada"),), picture_floor=0.5)
        return GateRecord(**{name: getattr(known, name) for name in known.__slots__} | more)

    def proposed(self, record: GateRecord, pictures: Tensor) -> list[list[str]]:
        index = PictureIndex({"ada": record}, Thresholds())
        return index.propose(pictures, index.similarities(pictures))

    def test_a_look_alike_is_asked_about_only_without_rivals(self) -> None:
        pictures = torch.cat([SUBJECT, LOOKALIKE, STRANGER])
        assert self.proposed(self.record(), pictures) == [["ada"], ["ada"], []]
        told_apart = self.record(rivals=LOOKALIKE, nearness=1 - WEIGHT * 0.9)
        assert self.proposed(told_apart, pictures) == [["ada"], [], []]

    def test_nothing_is_asked_about_whom_the_model_does_not_know(self) -> None:
        assert self.proposed(self.record(identity=()), SUBJECT) == [[]]

    def test_restored_as_it_was_written(self) -> None:
        record = self.record(rivals=LOOKALIKE.half().float(), nearness=0.6)
        again = GateRecord.restore(record.tensors(), record.private_json())
        assert torch.equal(again.rivals, record.rivals)
        assert again.nearness == 0.6
