"""The jobs of the serving benchmark: what a full and a quick run measure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console

from benchmarks import serving_engine, serving_http, serving_memory, serving_post, serving_register
from benchmarks.serving_engine import EnginePlan
from benchmarks.serving_http import HttpPlan
from benchmarks.serving_memory import MemoryPlan
from benchmarks.serving_models import ModelName
from benchmarks.serving_post import PostPlan
from benchmarks.serving_register import RegisterPlan

PARTS = ("engine", "http", "register", "memory", "post")
Plan = EnginePlan | HttpPlan | RegisterPlan | MemoryPlan | PostPlan
_EXPERTS = 127


@dataclass(frozen=True, slots=True)
class Job:
    """One process's work: its result is kept under its name."""

    name: str
    plan: Plan


def jobs(parts: Sequence[str], *, quick: bool, device: str = "cpu", threads: int = 1) -> list[Job]:
    """Return the jobs of these parts, in order. The 7B-shaped model is measured on a GPU alone."""
    made: list[Job] = []
    if "engine" in parts:
        models: tuple[ModelName, ...] = ("demo", "mid") if device == "cpu" else ("demo", "mid", "7b")
        made += [Job(f"engine-{m}", _engine(m, quick=quick, device=device)) for m in models]
    served: tuple[ModelName, ...] = ("demo", "mid")
    if "http" in parts:
        made += [Job(f"http-{m}", _http(m, quick=quick, threads=threads)) for m in served]
    if "register" in parts:
        plan = (
            RegisterPlan(3, 16, 12, 4.0, 2, 3.0, threads)
            if quick
            else RegisterPlan(3, _EXPERTS, 100, 20.0, 5, 6.0, threads)
        )
        made.append(Job("register", plan))
    if "memory" in parts:
        runs = 1 if quick else 3
        measured = served[:1] if quick else served
        made += [Job(f"memory-{m}", MemoryPlan(m, _EXPERTS, runs, threads)) for m in measured]
    if "post" in parts:
        filing = PostPlan(150, 1.0, 3, 500, threads) if quick else PostPlan(1000, 4.0, 9, 2000, threads)
        made.append(Job("post", filing))
    return made


def _engine(model: ModelName, *, quick: bool, device: str) -> EnginePlan:
    if quick and model == "demo":
        return EnginePlan(model, (1, 16), (1, 16), 16, 5, 16, copies=4, device=device)
    if quick:
        return EnginePlan(model, (16,), (16,), 4, 2, 16, copies=2, device=device)
    released = 64 if model == "demo" else 16
    copies = {"demo": 16, "mid": 4, "7b": 1}[model]
    tokens, runs = (16, 3) if (model, device) == ("mid", "cpu") else (32, 9)  # 20 minutes, not two hours
    return EnginePlan(
        model, (1, 4, 16, 64), (1, 4, 16, _EXPERTS), tokens, runs, released, copies=copies, device=device
    )


def _http(model: ModelName, *, quick: bool, threads: int) -> HttpPlan:
    if quick and model == "demo":
        return HttpPlan(model, 32, 24, 64, 1, threads=threads)
    if quick:
        return HttpPlan(model, 8, 4, 32, 1, many=False, threads=threads)
    if model == "demo":
        return HttpPlan(model, 64, 48, 96, 3, threads=threads)
    return HttpPlan(model, 64, 24, 64, 2, threads=threads)


def run_job(job: Job, console: Console) -> dict[str, Any]:
    """Run one job in this process and return what it found."""
    plan = job.plan
    if isinstance(plan, EnginePlan):
        return serving_engine.measure(plan, console)
    if isinstance(plan, HttpPlan):
        return serving_http.measure(plan, console)
    if isinstance(plan, RegisterPlan):
        return serving_register.measure(plan, console)
    if isinstance(plan, MemoryPlan):
        return serving_memory.measure(plan, console)
    torch.set_num_threads(plan.threads)
    return serving_post.measure(plan, console)
