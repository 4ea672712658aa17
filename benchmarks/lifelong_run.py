"""Carries out one method's requests, cell by cell, in a process of its own."""

from __future__ import annotations

import gc
import re
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from app.kit.memory import give_back
from benchmarks.lifelong_cells import CellKey, Cells, remaining_seconds
from benchmarks.lifelong_course import Course, Request, SequenceName
from benchmarks.lifelong_editing import WeightEditing
from benchmarks.lifelong_gold import Gold
from benchmarks.lifelong_lethe import Lethe
from benchmarks.lifelong_losses import LOSSES
from benchmarks.lifelong_lumoe import LumoeReleased
from benchmarks.lifelong_measure import Base, Examiner, untouched
from benchmarks.lifelong_methods import Method, Setting, Spent, Untouched

BASE = "base"
METHODS: tuple[str, ...] = (*LOSSES, "lumoe_released", "lethe", "gold")
"""Every method, by the name that the command line and the figures use."""

SEQUENCES: tuple[SequenceName, ...] = ("tasks", "entities")
_CHECKPOINTS = (1, 2, 4, 8, 16, 32, 64, 96)
_CELLS = "cells.jsonl"


@dataclass(frozen=True, slots=True)
class Plan:
    """What one run does. ``folder`` holds its cells and states; ``methods`` without the base model."""

    course: Course
    sequences: tuple[SequenceName, ...]
    orders: tuple[str, ...] | None
    methods: tuple[str, ...]
    folder: Path
    quick: bool = False
    seed: int = 0
    verify: bool = False

    @property
    def cells_path(self) -> Path:
        """Where finished cells are appended."""
        return self.folder / _CELLS

    def orders_of(self, sequence: SequenceName) -> tuple[str, ...]:
        """Return the orders of a sequence that this run goes through."""
        there = self.course.orders(sequence)
        return tuple(o for o in there if sequence != "tasks" or self.orders is None or o in self.orders)

    def keys(self, method: str) -> Iterator[CellKey]:
        """Yield the cells of a method, in the order in which they are worked off."""
        if method == BASE:
            yield CellKey("", "", BASE, 1)
            return
        for sequence in self.sequences:
            for order in self.orders_of(sequence):
                n = 1 if method == "gold" else len(self.course.requests(sequence, order))
                yield from (CellKey(sequence, order, method, k) for k in range(1, n + 1))


@dataclass(slots=True)
class Meter:
    """Seconds by the clock and of CPU time (all threads), and the peak of memory in MB.

    The peak is the process's on a CPU, the allocator's on an accelerator.
    """

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_mb: float = 0.0
    before_mb: float = 0.0


@contextmanager
def metered() -> Iterator[Meter]:
    """Measure the block."""
    meter = Meter()
    gc.collect()
    give_back()  # or what is held would come out of what others freed, and not be seen
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
        meter.before_mb = torch.cuda.memory_allocated() / 2**20
    else:
        _forget_peak()
        meter.before_mb = _resident("VmRSS")
    began, busy = time.monotonic(), time.process_time()
    try:
        yield meter
    finally:
        meter.seconds, meter.cpu_seconds = time.monotonic() - began, time.process_time() - busy
        meter.peak_mb = torch.cuda.max_memory_allocated() / 2**20 if on_gpu else _resident("VmHWM")


def _forget_peak() -> None:
    """Reset the kernel's high-water mark; where that is not allowed it stays that of the whole process."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def _resident(field_name: str) -> float:
    status = Path("/proc/self/status")
    found = re.search(rf"{field_name}:\s+(\d+) kB", status.read_text()) if status.is_file() else None
    if found is None:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return int(found[1]) / 1024


def make(name: str, setting: Setting) -> Method:
    """Return a method by its name.

    Raises:
        ValueError: There is no such method; the message lists all.
    """
    if name in LOSSES:
        return WeightEditing(setting, name)
    others: dict[str, Callable[[Setting], Method]] = {
        "lumoe_released": LumoeReleased,
        "lethe": Lethe,
        "gold": Gold,
        BASE: Untouched,
    }
    if name not in others:
        raise ValueError(f"no method {name!r}; there are {', '.join(METHODS)}")
    return others[name](setting)


@dataclass(slots=True)
class Worker:
    """One method's run through all sequences and orders of a plan."""

    plan: Plan
    method: str
    say: Callable[[str], None]
    cells: Cells = field(init=False)

    def __post_init__(self) -> None:
        self.cells = Cells(self.plan.cells_path)

    def run(self) -> None:
        """Carry out every cell that is missing."""
        if self.method == BASE:
            self._base()
            return
        base = Base(self.cells.found[CellKey("", "", BASE, 1)]["points"])
        for sequence in self.plan.sequences:
            for order in self.plan.orders_of(sequence):
                self._order(sequence, order, Examiner(self.plan.course, base))

    def _base(self) -> None:
        began = time.monotonic()
        course = self.plan.course
        # Of both sequences: a later run of the other one goes on with the same cells.
        requests = [r for s in SEQUENCES for o in course.orders(s) for r in course.requests(s, o)]
        method = make(BASE, self._setting("", ""))
        base = untouched(method, course, requests)
        rows = Examiner(course, base).column(method, list({r.name: r for r in requests}.values()), [])
        self.cells.append(
            CellKey("", "", BASE, 1),
            {"points": dict(base.points), "wall": time.monotonic() - began, **rows},
        )

    def _setting(self, sequence: str, order: str) -> Setting:
        place = self.plan.folder / "state" / f"{sequence}-{order}"
        plan = self.plan
        return Setting(plan.course, plan.course.load(), place, plan.seed, plan.quick, plan.verify)

    def _order(self, sequence: SequenceName, order: str, examiner: Examiner) -> None:
        requests = self.plan.course.requests(sequence, order)
        if self.method == "gold":
            self._gold(sequence, order, requests, examiner)
            return
        done = self.cells.done(sequence, order, self.method)
        if done >= len(requests):
            return
        method = make(self.method, self._setting(sequence, order))
        if done and not method.restore(requests[:done]):
            self.say(f"{self.method} {order}: the state after {done} requests is gone; starting over")
            done = 0
        for k in range(done + 1, len(requests) + 1):
            self._cell(CellKey(sequence, order, self.method, k), method, requests, examiner)

    def _cell(self, key: CellKey, method: Method, requests: Sequence[Request], examiner: Examiner) -> None:
        began = time.monotonic()
        done, request = requests[: key.k], requests[key.k - 1]
        with metered() as meter:
            spent = method.unlearn(request)
        method.keep(done)
        own_only = not is_column(key, len(requests))
        values = examiner.column(method, [request] if own_only else done, done)
        self._append(key, request.name, len(request.subjects), meter, spent, began, own_only, values)

    def _gold(self, sequence: str, order: str, requests: Sequence[Request], examiner: Examiner) -> None:
        key = CellKey(sequence, order, self.method, 1)
        if key in self.cells.found:
            return
        began = time.monotonic()
        method = Gold(self._setting(sequence, order))
        with metered() as meter:
            for request in requests:
                method.unlearn(request)
            spent = method.finish()
        values = examiner.column(method, requests, requests)
        self._append(key, requests[-1].name, 1, meter, spent, began, False, {**values, "all_rows": True})

    def _append(
        self,
        key: CellKey,
        request: str,
        subjects: int,
        meter: Meter,
        spent: Spent,
        began: float,
        own_only: bool,
        values: dict[str, Any],
    ) -> None:
        seconds = meter.seconds if spent.seconds is None else spent.seconds
        cpu_seconds = meter.cpu_seconds if spent.seconds is None else spent.cpu_seconds
        cell = {
            "request": request,
            "subjects": subjects,
            "seconds": seconds,
            "cpu_seconds": cpu_seconds,
            "peak_mb": meter.peak_mb,
            "before_mb": meter.before_mb,
            "wall": time.monotonic() - began,
            "own_only": own_only,
            "notes": spent.notes,
            **values,
        }
        self.cells.append(key, cell)
        row = cell["rows"][request]
        first = next(iter(cell["rows"].values()))
        left = remaining_seconds(self.cells.found.values(), missing(self.plan, self.cells))
        self.say(
            f"{key.method} {key.sequence} {key.order} {key.k} {request}: "
            f"fq {_shown(row['fq'])}, mu {_shown(row['mu'])}; first request now fq {_shown(first['fq'])}, "
            f"mu {_shown(first['mu'])}; {seconds:.1f} s, {meter.peak_mb:.0f} MB; "
            f"about {left / 60:.1f} min left"
        )


def is_column(key: CellKey, requests: int) -> bool:
    """Whether all earlier requests are measured again after this one: after every task, and now and then."""
    return key.sequence == "tasks" or key.k == requests or key.k in _CHECKPOINTS


def missing(plan: Plan, cells: Cells) -> list[CellKey]:
    """Return the cells that have still to be worked off."""
    return [key for method in (BASE, *plan.methods) for key in plan.keys(method) if key not in cells.found]


def _shown(rate: dict[str, Any]) -> str:
    return "–" if rate["value"] is None else f"{rate['value']:.3f}"
