"""The benchmark's counting, on a tiny random model: what the router does shows in the rates."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console

from app.lumoe.demo import draw, world
from app.lumoe.interim import interim_record
from app.lumoe.mllm import MLLM
from app.lumoe.router import Router
from app.lumoe.writers import bank_of
from benchmarks.gate_experts import (
    SharedAdapter,
    keep_records,
    kept_records,
    newcomers,
    strangers,
    synthetic_experts,
)
from benchmarks.gate_measure import Asker, measure
from benchmarks.gate_scoring import Fact
from benchmarks.gate_speed import adapter_bytes, adding_milliseconds, decision_latency, memory
from benchmarks.gate_traffic import Item, Sizes, other_items, subject_items
from tests.lumoe.experts import make_expert

SIZES = Sizes(
    subject_image=1,
    subject_text=3,
    subject_followup=0,
    other_image=0,
    other_text=1,
    other_followup=0,
    strangers=2,
    general=4,
    forced=2,
)
SUBJECT = world().by_key["personage-00"]
NAMES = (SUBJECT.name, *SUBJECT.aliases)


@pytest.fixture(scope="module")
def router(tiny: MLLM, tmp_path_factory: pytest.TempPathFactory) -> Router:
    record = interim_record(tiny, NAMES, SUBJECT.klass, [])
    folder = tmp_path_factory.mktemp("expert")
    return Router.build(tiny, [make_expert(tiny, folder, f"exp_{SUBJECT.key}", record)])


def known() -> dict[str, list[Fact]]:
    item: Item = subject_items(SUBJECT, SIZES)[-1]
    return {SUBJECT.key: [Fact(item, "", (SUBJECT.facts["birthplace"].casefold(),))]}


class TestMeasure:
    def test_nobody_enrolled_nothing_changes(self, tiny: MLLM) -> None:
        level = measure(Asker(tiny), Router.build(tiny, []), [], {}, SIZES)
        assert level.rates["changed_answers"].value == 0.0
        assert level.rates["base_identity"].value == 1.0
        assert level.rates["fpr_name"].value == 0.0
        assert level.rates["tpr_name"].value is None
        assert level.examples == ()

    def test_a_named_subject_is_found_and_others_are_left_alone(self, tiny: MLLM, router: Router) -> None:
        level = measure(Asker(tiny), router, [SUBJECT], known(), SIZES)
        assert level.experts == 1
        assert level.rates["tpr_name"].value == 1.0
        assert level.rates["fpr_name"].value == 0.0
        assert level.rates["misroute"].value == 0.0
        assert level.rates["expert_over_refusal"].n == SIZES.forced
        assert set(level.changed_by_group) == {item.group for item in other_items(SIZES)}


class TestSpeed:
    def test_latency_of_text_is_outside_the_band(self, router: Router) -> None:
        items = [item for item in other_items(SIZES) if item.modality == "text"][:12]
        speed = decision_latency(router, items)
        assert (speed.n, speed.inside.value, speed.p95_inside) == (12, 0.0, None)
        assert 0 < speed.p50 <= speed.p95
        assert sum(rate.n for rate in speed.inside_by_group.values()) == 12
        assert torch.get_num_threads() >= 1

    def test_bytes_hold_at_least_the_adapter(self, router: Router) -> None:
        expert = next(iter(router.experts.values()))
        assert memory(router, expert)["total"] >= adapter_bytes(expert) > 0


class TestSynthetic:
    def synthetic(self, router: Router) -> SharedAdapter:
        donor = next(iter(router.experts.values()))
        record = interim_record(router.mllm, ("Ploron",), "Animals", [])
        return SharedAdapter(
            expert_id="exp_drawn",
            version=1,
            request_id="req_drawn",
            model_fingerprint=donor.model_fingerprint,
            adapter=donor.adapter,
            scale=donor.scale,
            gate=record,
            donor=donor.key,
        )

    def test_takes_no_slot_of_its_own_and_answers_to_its_own_name(self, router: Router) -> None:
        before = len(bank_of(router.mllm))
        both = router.with_expert(self.synthetic(router))
        assert len(bank_of(router.mllm)) == before
        items = [item for item in other_items(SIZES) if item.modality == "text"][:3]
        assert {d.expert_id for d in both.decide([item.conversation for item in items])} == {None}
        assert set(both.experts) == {f"exp_{SUBJECT.key}", "exp_drawn"}

    def test_without_time_to_calibrate_they_get_interim_records(self, router: Router, tmp_path: Path) -> None:
        runtime: Any = SimpleNamespace(mllm=router.mllm)
        donors = list(router.experts.values())
        made = synthetic_experts(runtime, 3, donors, tmp_path, -1.0, Console(quiet=True))
        again = synthetic_experts(runtime, 2, donors, tmp_path, -1.0, Console(quiet=True))
        names = [expert.gate.aliases for expert in made.experts]
        assert names == [(entity.name,) for entity in strangers(3)]
        assert [expert.gate.aliases for expert in again.experts] == names[:2]
        assert {expert.key for expert in made.experts} == {donors[0].key}
        assert "0 of them calibrated" in made.note

    def test_a_newcomer_takes_a_slot(self, router: Router) -> None:
        before = len(bank_of(router.mllm))
        again = newcomers(self.synthetic(router), 2)
        assert adding_milliseconds(router, again) > 0
        held = router.with_expert(again[0])
        assert len(bank_of(router.mllm)) == before + 1
        assert held.experts["exp_drawn"].key == again[0].key

    def test_a_real_expert_cannot_be_enrolled_twice(self, router: Router) -> None:
        with pytest.raises(TypeError):
            newcomers(next(iter(router.experts.values())), 1)


def test_records_are_kept(tiny: MLLM, tmp_path: Path) -> None:
    records = [
        interim_record(tiny, NAMES, SUBJECT.klass, [draw(SUBJECT, 1), draw(SUBJECT, 2)]),
        interim_record(tiny, ("Ploron",), "Animals", []),
    ]
    keep_records(tmp_path, "interim", records)
    read = kept_records(tmp_path, "interim")
    assert [record.aliases for record in read] == [NAMES, ("Ploron",)]
    for given, found in zip(records, read, strict=True):
        assert given.private_json() == found.private_json()
        assert all(torch.equal(t, found.tensors()[name]) for name, t in given.tensors().items())


def test_nothing_kept_nothing_found(tmp_path: Path) -> None:
    assert kept_records(tmp_path, "calibrated") == []
