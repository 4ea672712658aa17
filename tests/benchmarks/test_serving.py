"""What the serving benchmark makes of its times; one smallest case of the engine, for real."""

from __future__ import annotations

import argparse
import asyncio
import json
import math
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from rich.console import Console

from app.lumoe.mllm import MLLM, target_linears
from benchmarks import serving, serving_engine
from benchmarks.serving_engine import BASE, OURS, OURS_BASE, PEFT, RELEASED, EnginePlan, cell_of
from benchmarks.serving_figures import in_turn, percentile, ratios, spread
from benchmarks.serving_http import overhead_of
from benchmarks.serving_jobs import PARTS, Job, jobs
from benchmarks.serving_load import Sent, closed, failed, for_seconds, paced
from benchmarks.serving_memory import figures as memory_figures
from benchmarks.serving_models import endless, random_adapter, random_experts
from benchmarks.serving_plots import draw_all
from benchmarks.serving_register import figures as register_figures
from benchmarks.serving_report import TARGETS, figures, limits, page, row, tables
from tests.lumoe.tiny import save_tiny_llava

QUIET = Console(quiet=True)


@pytest.fixture
def own(tmp_path: Path) -> MLLM:
    """A tiny random LLaVA of the test's own: it is kept from ending its answers."""
    return MLLM.load(str(save_tiny_llava(tmp_path / "tiny-llava")), "cpu")


class TestFigures:
    def test_percentiles_are_between_the_values(self) -> None:
        values = [float(i) for i in range(101)]
        assert percentile(values, 99) == 99.0
        assert percentile([1.0, 2.0], 50) == 1.5
        assert percentile([3.0], 99) == 3.0

    def test_nothing_has_no_percentile(self) -> None:
        with pytest.raises(ValueError, match="no values"):
            percentile([], 50)
        with pytest.raises(ValueError, match="no values"):
            spread([])

    def test_ratios_are_taken_within_a_run(self) -> None:
        found = ratios([2.0, 30.0, 4.0], [1.0, 10.0, 4.0])
        assert (found.median, found.n) == (2.0, 3)

    def test_everybody_is_first_once_in_so_many_runs(self) -> None:
        order: list[str] = []
        ways = {name: (lambda name=name: order.append(name)) for name in "abc"}
        times = in_turn(ways, runs=3, warm=0)
        assert order == [*"abc", *"bca", *"cab"]
        assert {name: len(values) for name, values in times.items()} == {"a": 3, "b": 3, "c": 3}

    def test_warming_up_is_not_counted(self) -> None:
        calls: list[int] = []
        times = in_turn({"a": lambda: calls.append(1)}, runs=2, warm=3)
        assert (len(calls), len(times["a"])) == (5, 2)


class TestLoad:
    def test_clients_share_the_requests(self) -> None:
        asked: list[int] = []

        async def call(i: int) -> httpx.Response:
            asked.append(i)
            await asyncio.sleep(0)
            return httpx.Response(200 if i else 503)

        sent, seconds = asyncio.run(closed(call, 7, 3))
        assert sorted(asked) == list(range(7))
        assert failed(sent) == 1
        assert seconds > 0

    def test_a_request_that_waits_for_its_turn_has_waited_since_it_was_due(self) -> None:
        async def call(_: int) -> httpx.Response:
            await asyncio.sleep(0.01)
            raise httpx.ConnectError("gone")

        sent = asyncio.run(paced(call, rate=1e6, n=5))
        assert [s.status for s in sent] == [0] * 5
        assert failed(sent) == 5
        assert all(s.seconds > 0 for s in sent)

    def test_goes_on_for_the_seconds_it_is_given(self) -> None:
        async def call(_: int) -> httpx.Response:
            await asyncio.sleep(0.001)
            return httpx.Response(200)

        sent, seconds = asyncio.run(for_seconds(call, 0.05, 2))
        assert sent
        assert seconds >= 0.05


def engine_job(model: str, ours: float = 1.05) -> dict[str, Any]:
    times = {BASE: [1.0, 2.0], OURS: [ours, 2 * ours], OURS_BASE: [1.0, 2.0], PEFT: [4.2, 8.4]}
    cells = [
        cell_of(b, e, times | ({RELEASED: [5.25, 10.5]} if b == 16 else {})).as_json()
        for b in (16, 64)
        for e in (1, 16)
    ]
    return {
        "model": model,
        "parameters": 3_000_000,
        "tokens": 10,
        "threads": 1,
        "device": "cpu",
        "checked": {
            "rows": 16,
            "same_tokens_as_peft": 16,
            "logits_apart": 1e-6,
            "rows_unlike_base": 16,
            "base_rows_as_unwrapped": 16,
        },
        "cells": cells,
        "step": {"weight_bytes": 400, "expert_bytes": 4, "element_bytes": 4},
        "machine": {"bytes_per_second": 1000.0, "multiply_adds_per_second": 1e9},
    }


def http_job(model: str) -> dict[str, Any]:
    overhead = overhead_of([1.1, 2.2, 3.3], [1.0, 2.0, 3.0], [0.8, 1.6, 2.4], ["words", "picture", "words"])
    concurrent = {
        "per_second": {"1": spread([1.0]).as_json(), "32": spread([5.0]).as_json()},
        "ratio": ratios([5.0], [1.0]).as_json(),
        "failed": 0,
    }
    whole = overhead | {"same_answers": 3}
    return {
        "model": model, "tokens": 8, "threads": 1, "concurrent": concurrent,
        "overhead": {"127": whole, "10000": whole},
    }  # fmt: skip


def all_jobs() -> dict[str, Any]:
    calm = [[Sent(0.0, 0.1, 200)] * 50]
    post = {"milliseconds": spread([10.0]).as_json(), "p99_ms": 80.0, "computed_ms": 9.0, "failed": 0, "n": 9}
    status = {
        "per_second": {"status": spread([50.0]).as_json(), "empty": spread([100.0]).as_json()},
        "ratio": ratios([50.0], [100.0]).as_json(),
        "computed_ms": {"status": 3.0, "empty": 1.0},
        "failed": 0,
    }
    base = [{"pss": 100.0, "uss": 90.0, "slots": 5.0}]
    grown = [{"pss": 115.5, "uss": 100.0, "slots": 9.0}]
    return {
        "engine-demo": engine_job("demo", 1.2),
        "engine-mid": engine_job("mid"),
        "http-mid": http_job("mid"),
        "memory-mid": {"model": "mid", "experts": 127, **memory_figures(base, grown, 10 * 1024 * 1024)},
        "register": register_figures(calm, calm, [0.1] * 100, 100)
        | {"replicas": 3, "live_before": 127, "rate": 6.0},
        "post": {
            "posts": {"auto": post, "manual": post}, "status": status, "rate": 50.0, "clients": 16,
            "requests": 1000,
        },
    }  # fmt: skip


class TestReport:
    def test_every_key_is_there_even_if_nothing_was_measured(self) -> None:
        found = figures({})
        assert [found[target.key] for target in TARGETS] == [None] * len(TARGETS)
        assert row(TARGETS[0], found)[-1] == "–"

    def test_the_keys_are_the_mid_size_models_where_there_are_several(self) -> None:
        found = figures(all_jobs())
        assert found["mixed16_vs_base"] == pytest.approx(1.05)
        assert found["by_model"]["demo"]["mixed16_vs_base"]["median"] == pytest.approx(1.2)
        assert found["mixed16_vs_peft"] == pytest.approx(4.0)
        assert found["mixed16_vs_released"] == pytest.approx(5.0)
        assert found["chat_overhead_127"] == pytest.approx(1.1)
        assert found["memory_127_experts_ratio"] == pytest.approx(1.05)
        assert found["register_failed"] == 0
        assert found["status_rps_vs_empty"] == 0.5

    def test_verdicts_are_by_the_target(self) -> None:
        found = figures(all_jobs())
        assert found["met"]["mixed16_vs_base"] is True
        assert found["met"]["chat_overhead_127"] is False
        assert row(next(t for t in TARGETS if t.key == "post_p99_ms"), found)[-1] == "FALLS SHORT"

    def test_the_page_has_every_target_with_its_verdict(self, tmp_path: Path) -> None:
        found = figures(all_jobs()) | {
            "quick": True, "date": "2026-01-01", "cores": 2, "load_average": 0.5,
        }  # fmt: skip
        drawn = draw_all(found, tmp_path)
        text = page(found, "python -m benchmarks.serving --quick", [path.name for path in drawn])
        for target in TARGETS:
            assert target.label in text
        assert "FALLS SHORT" in text
        assert "| pass |" in text
        assert "python -m benchmarks.serving --quick" in text
        assert [path.name for path in drawn] == ["serving_demo.png", "serving_mid.png", "serving_chat.png"]
        assert all(f"({path.name})" in text and path.stat().st_size > 1000 for path in drawn)
        assert len(tables(found)) == 3

    def test_the_limit_counts_weights_once_and_every_distinct_expert(self) -> None:
        mixed = next(s for s in limits(engine_job("demo")) if (s["batch"], s["experts"]) == (16, 16))
        assert mixed["megabytes"] == pytest.approx((400 + 16 * 4) / 1e6)
        assert mixed["million_multiply_adds"] == pytest.approx(16 * 101 / 1e6)
        assert mixed["least_ratio"] == pytest.approx(1.16)
        assert mixed["least_ms"] == pytest.approx(464.0)


class TestRegister:
    def test_what_never_was_acknowledged_has_failed(self) -> None:
        calm = [[Sent(0.0, 0.1, 200)] * 10]
        busy = [[Sent(0.0, 0.2, 200)] * 9 + [Sent(0.0, 0.2, 503)]]
        found = register_figures(calm, busy, [0.1, math.inf], 3)
        assert found["failed"] == 1 + 2
        assert found["registered"] == 1
        assert found["p99_ratio"] == pytest.approx(2.0)


class TestRun:
    def test_a_result_is_taken_for_the_same_plan_alone(self, tmp_path: Path) -> None:
        quick = next(job for job in jobs(PARTS, quick=True) if job.name == "register")
        full = next(job for job in jobs(PARTS, quick=False) if job.name == "register")
        serving.keep(tmp_path, quick, {"failed": 0})
        assert serving.kept(tmp_path, quick) == {"failed": 0}
        assert serving.kept(tmp_path, full) is None

    def test_a_result_that_was_cut_short_is_none(self, tmp_path: Path) -> None:
        job = jobs(("post",), quick=True)[0]
        (tmp_path / "post.json").write_text('{"plan": ')
        assert serving.kept(tmp_path, job) is None

    def test_reports_what_is_kept(self, tmp_path: Path) -> None:
        for job in jobs(("engine",), quick=True):
            serving.keep(tmp_path / "quick", job, engine_job(str(job.name).removeprefix("engine-")))
        wanted = ["--quick", "--report", "--parts", "engine", "--state", str(tmp_path)]
        assert serving.main([*wanted, "--json", str(tmp_path / "x.json")]) == 0
        assert json.loads((tmp_path / "x.json").read_text())["mixed16_vs_base"] == pytest.approx(1.05)

    def test_a_part_that_is_not_there_is_named(self) -> None:
        assert serving.parts_of(None) == PARTS
        with pytest.raises(SystemExit, match="speed; choose from engine"):
            serving.parts_of("engine,speed")

    def test_a_job_that_fails_does_not_stop_the_others(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        register, post = jobs(("register", "post"), quick=True)

        def ends(command: list[str], **_: object) -> argparse.Namespace:
            name = command[command.index("--job") + 1]
            if name == post.name:
                serving.keep(tmp_path, Job(name, post.plan), {"n": 1})
            return argparse.Namespace(returncode=int(name != post.name))

        monkeypatch.setattr("benchmarks.serving.subprocess.run", ends)
        asked = serving.parser().parse_args(["--quick"])
        assert serving.run([register, post], tmp_path, asked, QUIET) == {"post": {"n": 1}}


class TestEngine:
    def test_the_smallest_case(self, own: MLLM, monkeypatch: pytest.MonkeyPatch) -> None:
        """Ours writes PEFT's tokens in a mixed batch, as many as asked for; every way is timed."""
        monkeypatch.setattr(serving_engine, "load", lambda *_: own)
        monkeypatch.setattr(
            serving_engine, "machine", lambda _: {"bytes_per_second": 1e9, "multiply_adds_per_second": 1e9}
        )
        plan = EnginePlan("demo", (1, 3), (1, 2), tokens=3, runs=1, released_rows=3, copies=2)
        found = serving_engine.measure(plan, QUIET)
        checked = found["checked"]
        assert checked["same_tokens_as_peft"] == checked["rows"] == 3
        assert checked["rows_unlike_base"] == 3
        assert checked["base_rows_as_unwrapped"] == 3
        assert checked["logits_apart"] <= serving_engine.LOGITS_TOLERANCE
        assert [(c["batch"], c["experts"]) for c in found["cells"]] == [(1, 1), (3, 1), (1, 2), (3, 2)]
        assert all(set(c["seconds"]) == {BASE, OURS, OURS_BASE, PEFT, RELEASED} for c in found["cells"])

    def test_a_row_in_the_wrong_slot_is_found(self, own: MLLM, tmp_path: Path) -> None:
        experts = random_experts(own, 2, tmp_path)
        ways = serving_engine.Ways(own, experts, tokens=3, copies=1)
        ways.enrol(2)
        ways.held.reverse()
        with pytest.raises(RuntimeError, match="differ: 2 of 2 rows"):
            serving_engine.check(ways, 2)


class TestModels:
    def test_adapters_are_the_same_for_the_same_seed(self, own: MLLM) -> None:
        layers = target_linears(own.network)
        one, same, other = (random_adapter(layers, seed) for seed in (1, 1, 2))
        name = next(iter(layers))
        assert one[name][0].equal(same[name][0])
        assert not one[name][0].equal(other[name][0])

    def test_an_endless_model_never_chooses_its_end(self, own: MLLM) -> None:
        endless(own)
        head: Any = own.network.get_output_embeddings()
        logits = head(own.network.get_input_embeddings()(torch.tensor([[5, 6]])))
        assert all(logits[..., token].max() == -math.inf for token in own.eos_ids)
