"""What the gate costs: time per decision, time and bytes per expert."""

from __future__ import annotations

import gc
import resource
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from app.lumoe.expert import LoadedExpert
from app.lumoe.mllm import MLLM
from app.lumoe.router import Router
from app.lumoe.writers import bank_of
from benchmarks.gate_traffic import Item
from workers.verification.metrics import Rate, share

_WARM = 8
_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds per decision, one conversation at a time on one thread, picture features at hand.

    A decision is inside the doubtful band when it says so, or (a gate that does not say) when the language
    model was run for it.
    """

    experts: int
    n: int
    p50: float
    p95: float
    p50_outside: float | None
    p95_outside: float | None
    p50_inside: float | None
    p95_inside: float | None
    inside: Rate
    inside_by_group: dict[str, Rate]

    def as_json(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return asdict(self)


class _Reads:
    """Counts how often the language model is run."""

    def __init__(self) -> None:
        self.n = 0


@contextmanager
def _counting(mllm: MLLM) -> Iterator[_Reads]:
    """Count forward passes of the whole model; the vision tower alone does not count."""
    reads = _Reads()

    def note(*_: object) -> None:
        reads.n += 1

    handle = mllm.model.register_forward_pre_hook(note)
    try:
        yield reads
    finally:
        handle.remove()


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one core."""
    held = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(held)


def decision_latency(router: Router, items: Sequence[Item]) -> Latency:
    """Time `Router.decide` on each conversation, after the tower has seen its pictures."""
    spent: list[float] = []
    inside: list[bool] = []
    with one_thread(), _counting(router.mllm) as reads:
        for item in (*items[:_WARM], *items):
            router.mllm.features([item.conversation])
            before = reads.n
            started = time.perf_counter()
            decision = router.decide([item.conversation])[0]
            spent.append(1_000 * (time.perf_counter() - started))
            told = getattr(decision, "doubtful", None)
            inside.append(told if isinstance(told, bool) else reads.n > before)
    spent, inside = spent[-len(items) :], inside[-len(items) :]
    within = [t for t, doubtful in zip(spent, inside, strict=True) if doubtful]
    without = [t for t, doubtful in zip(spent, inside, strict=True) if not doubtful]
    by_group: dict[str, list[bool]] = {}
    for item, doubtful in zip(items, inside, strict=True):
        by_group.setdefault(item.group, []).append(doubtful)
    return Latency(
        len(router.experts),
        len(spent),
        _percentile(spent, 50) or 0.0,
        _percentile(spent, 95) or 0.0,
        _percentile(without, 50),
        _percentile(without, 95),
        _percentile(within, 50),
        _percentile(within, 95),
        share(inside),
        {group: share(flags) for group, flags in by_group.items()},
    )


def _percentile(values: Sequence[float], q: float) -> float | None:
    return float(np.percentile(values, q)) if values else None


def adding_milliseconds(router: Router, newcomers: Sequence[LoadedExpert]) -> float:
    """Return the median time that `Router.with_expert` takes for one more expert, on one thread.

    Every newcomer must have a key of its own, so that its adapter is copied into a slot too.
    """
    spent = []
    with one_thread():
        for newcomer in newcomers:
            started = time.perf_counter()
            router.with_expert(newcomer)
            spent.append(1_000 * (time.perf_counter() - started))
    return float(np.median(spent))


def resident_bytes() -> int:
    """Return the process's resident memory now."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def adapter_bytes(expert: LoadedExpert) -> int:
    """Return the bytes of one expert's low-rank tensors as they lie in its slot."""
    return sum(a.numel() * 4 + b.numel() * 4 for a, b in expert.adapter.values())


def gate_bytes(router: Router) -> int:
    """Return the bytes per expert that a gate and guard of their own take, by the growth of the process.

    The router is built anew over the same experts: slots and records are shared, so that what grows is the
    index, the automaton and whatever else the gate makes of the records; the records' own tensors are added.
    A first one takes up what earlier work has left free in the process, the second one is measured.
    """
    experts = list(router.experts.values())
    gc.collect()
    held = [Router.build(router.mllm, experts, router.generation)]
    before = resident_bytes()
    held.append(Router.build(router.mllm, experts, router.generation))
    grown = max(0, resident_bytes() - before)
    held.clear()
    tensors = sum(t.numel() * t.element_size() for e in experts for t in e.gate.tensors().values())
    return (grown + tensors) // max(1, len(experts))


def memory(router: Router, real: LoadedExpert) -> dict[str, float]:
    """Return bytes per expert: adapter (in its slot), gate, and both; and what all slots take now."""
    adapter, gate = adapter_bytes(real), gate_bytes(router)
    return {
        "adapter": adapter,
        "gate": gate,
        "total": adapter + gate,
        "slots_mib": bank_of(router.mllm).nbytes / _MIB,
        "resident_mib": resident_bytes() / _MIB,
    }
