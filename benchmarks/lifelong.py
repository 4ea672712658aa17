"""Who degrades over a lifetime of requests: `python -m benchmarks.lifelong [--quick] [--json FILE]`.

Seven ways to edit weights, LUMoE as released, ours, and retraining, each through the same requests: the
four tasks in two orders, or single entities one after another. Finished cells are appended below
`var/benchmarks/lifelong/`; the same command goes on where it stopped. See `docs/benchmarks/lifelong.md`.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from transformers.utils.logging import disable_progress_bar

from app.kit.clock import utcnow
from benchmarks.farm import ROOT
from benchmarks.lifelong_cells import CellKey, Cells, method_figures
from benchmarks.lifelong_collection import CourseError
from benchmarks.lifelong_course import QUICK, Course, DemoCourse, SequenceName, Sizes
from benchmarks.lifelong_mlubench import MLUBenchCourse
from benchmarks.lifelong_plots import draw_all
from benchmarks.lifelong_report import PAGE, page, tables
from benchmarks.lifelong_run import BASE, METHODS, Plan, Worker, missing
from benchmarks.output import write_json
from workers.forgetset.refusals import stable_hash

VERSION = 1
"""Raised when a change makes finished cells incomparable with new ones."""
SEQUENCES: dict[str, tuple[SequenceName, ...]] = {
    "tasks": ("tasks",),
    "entities": ("entities",),
    "all": ("tasks", "entities"),
}


@dataclass(frozen=True, slots=True)
class Choice:
    """What the command line asked for, without what can be made of it; crosses to the child processes."""

    sequence: str = "tasks"
    methods: tuple[str, ...] = METHODS
    orders: tuple[str, ...] | None = None
    quick: bool = False
    data: Path | None = None
    model: str | None = None
    seed: int = 0
    root: Path = ROOT / "lifelong"
    verify: bool = False

    @property
    def sizes(self) -> Sizes:
        """How many questions of what."""
        return QUICK if self.quick else Sizes()

    def course(self) -> Course:
        """Return the course.

        Raises:
            SystemExit: The data directory holds nothing to work with; the message says what is missing.
        """
        if self.data is not None:
            try:
                return MLUBenchCourse(self.data, self.sizes, self.root, model=self.model, quick=self.quick)
            except CourseError as error:
                raise SystemExit(str(error)) from error
        return DemoCourse(self.sizes)

    def plan(self) -> Plan:
        """Return the plan; its directory is named by all that the figures depend on but the methods.

        Raises:
            SystemExit: An order is unknown; the message lists all.
        """
        course = self.course()
        unknown = [order for order in self.orders or () if order not in course.orders("tasks")]
        if unknown:
            raise SystemExit(f"no order {', '.join(unknown)}; there are {', '.join(course.orders('tasks'))}")
        what = json.dumps(
            {
                "version": VERSION,
                "sizes": asdict(self.sizes),
                "seed": self.seed,
                "model": self.model or "",
                "course": course.identity,
            },
            sort_keys=True,
        )
        folder = self.root / f"{course.name}{'-quick' if self.quick else ''}-{stable_hash(what):016x}"
        methods = tuple(name for name in self.methods if name != "gold" or course.no_gold is None)
        sequences = SEQUENCES[self.sequence]
        return Plan(course, sequences, self.orders, methods, folder, self.quick, self.seed, self.verify)


def carry_out(choice: Choice, console: Console) -> tuple[Plan, float]:
    """Work off every missing cell, each method in a process of its own; returns the plan and seconds spent.

    Raises:
        SystemExit: A method's process failed; finished cells are kept.
    """
    began = time.monotonic()
    plan = choice.plan()
    left = missing(plan, Cells(plan.cells_path))
    console.print(f"{len(left)} cells to go, below {plan.folder}")
    if plan.course.no_gold and "gold" in choice.methods:
        console.print(f"gold is left out: {plan.course.no_gold}")
    context = multiprocessing.get_context("spawn")  # memory of its own: nobody inherits another's peak
    for method in dict.fromkeys(key.method for key in left):
        process = context.Process(target=work, args=(choice, method))
        process.start()
        process.join()
        if process.exitcode:
            raise SystemExit(
                f"{method} failed (exit {process.exitcode}); finished cells are kept below {plan.folder}, "
                "and the same command goes on from there"
            )
    return plan, time.monotonic() - began


def work(choice: Choice, method: str) -> None:
    """Carry out one method (the child process's whole life)."""
    disable_progress_bar()
    console = Console(soft_wrap=True)
    began = time.monotonic()
    Worker(
        choice.plan(),
        method,
        lambda text: console.print(
            f"[{time.monotonic() - began:5.0f} s] {text}", markup=False, highlight=False
        ),
    ).run()


def figures(choice: Choice, plan: Plan, seconds: float) -> dict[str, Any]:
    """Return everything as JSON-ready values; the issue's keys under ``methods``.

    With both sequences, ``methods`` is that of the tasks and ``entities.methods`` that of single entities.
    """
    cells = Cells(plan.cells_path)
    base = cells.found[CellKey("", "", BASE, 1)]
    by_sequence = {
        sequence: {
            "methods": {
                method: method_figures(
                    {order: cells.of(sequence, order, method) for order in plan.orders_of(sequence)}
                )
                for method in plan.methods
                if cells.of(sequence, plan.orders_of(sequence)[0], method)
            },
            "orders": list(plan.orders_of(sequence)),
            "requests": [r.name for r in plan.course.requests(sequence, plan.orders_of(sequence)[0])],
            "subjects": [
                len(r.subjects) for r in plan.course.requests(sequence, plan.orders_of(sequence)[0])
            ],
        }
        for sequence in plan.sequences
    }
    first = by_sequence[plan.sequences[0]]
    return {
        "sequence": plan.sequences[0],
        **first,
        **({"entities": by_sequence["entities"]} if len(plan.sequences) > 1 else {}),
        "base": {name: base[name] for name in ("rows", "mia", "both_modalities")},
        "course": plan.course.name,
        "reasons": {"gold": plan.course.no_gold} if plan.course.no_gold else {},
        "notes": plan.course.notes(),
        "quick": choice.quick,
        "seed": choice.seed,
        "sizes": asdict(choice.sizes),
        "date": utcnow().date().isoformat(),
        "seconds": seconds,
        "cells_seconds": sum(float(cell["wall"]) for cell in cells.found.values()),
        "folder": str(plan.folder),
    }


def chosen_methods(text: str | None) -> tuple[str, ...]:
    """Return the methods named in a comma-separated list; None: all.

    Raises:
        SystemExit: One is unknown; the message lists all.
    """
    if not text:
        return METHODS
    wanted = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in wanted if name not in METHODS]
    if unknown:
        raise SystemExit(f"no method {', '.join(unknown)}; there are {', '.join(METHODS)}")
    return tuple(name for name in METHODS if name in wanted)


def choice_of(arguments: argparse.Namespace) -> Choice:
    """Return what the command line asks for.

    Raises:
        SystemExit: The options do not fit together; the message says what to do.
    """
    if arguments.model and arguments.data is None:
        raise SystemExit("--model needs --data DIR: MLUBench's JSON files and the pictures they name")
    return Choice(
        arguments.sequence,
        chosen_methods(arguments.methods),
        tuple(arguments.orders.split(",")) if arguments.orders else None,
        arguments.quick,
        arguments.data,
        arguments.model,
        arguments.seed,
        arguments.root,
        arguments.verify,
    )


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    made.add_argument("--sequence", choices=tuple(SEQUENCES), default="tasks", help="default: tasks")
    made.add_argument("--methods", help=f"some of {','.join(METHODS)}; default: all")
    made.add_argument("--orders", help="some orders of the tasks, such as ABCD; default: all")
    made.add_argument(
        "--data", type=Path, help="directory with MLUBench's JSON, and its pictures if you have them"
    )
    made.add_argument("--model", help="with --data: a Hugging Face id or directory, instead of training one")
    made.add_argument("--json", type=Path, help="write the figures to this file")
    made.add_argument(
        "--verify",
        action="store_true",
        help="ours is verified and, where it falls short, trained once more, as the worker does",
    )
    made.add_argument("--quick", action="store_true", help="two subjects per task, fewer prompts")
    made.add_argument(
        "--page", type=Path, help=f"write the results page; a full run of all methods writes {PAGE}"
    )
    made.add_argument("--remark", default="", help="a sentence for the results page, such as what else ran")
    made.add_argument("--plots", type=Path, help="write the plots into this directory")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--root", type=Path, default=ROOT / "lifelong", help="where cells and states are kept")
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, measure, print, write."""
    parsed = parser().parse_args(arguments)
    choice = choice_of(parsed)
    console = Console(soft_wrap=not sys.stdout.isatty(), width=None if sys.stdout.isatty() else 150)
    plan, seconds = carry_out(choice, console)
    found = figures(choice, plan, seconds) | {"remark": parsed.remark}
    for table in tables(found):
        console.print(table)
    console.print(f"{seconds:.0f} s now, {found['cells_seconds']:.0f} s in all; cells below {plan.folder}")
    if parsed.json:
        write_json(parsed.json, found)
    full = not choice.quick and choice.methods == METHODS and choice.data is None and choice.orders is None
    target = parsed.page or (PAGE if full else None)
    plots = parsed.plots or (target.parent if target else None)
    drawn = draw_all(found, plots) if plots else []
    if target:
        target.parent.mkdir(parents=True, exist_ok=True)
        given = list(arguments or sys.argv[1:])
        if "--remark" in given:  # it stands on the page anyway
            del given[given.index("--remark") : given.index("--remark") + 2]
        command = shlex.join(["python", "-m", "benchmarks.lifelong", *given])
        target.write_text(page(found, command, [path.name for path in drawn]))


if __name__ == "__main__":
    main()
