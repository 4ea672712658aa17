"""Seconds at equal forget quality: `python -m benchmarks.equal_quality [--n 9] [--task A] [--json FILE]`.

LUMoE as released stops after five epochs, whatever it has reached by then. Here it gets twice as many, and
twice as many again, each time from the start, until a request is forgotten as well as by ours, on the same
held-out questions, or `--most` epochs are not enough. Ours is the worker's stages prepare, train and
calibrate. Both go on one after the other in one process, request by request; what is compared is CPU time,
which a busy machine disturbs least. Its time is that of the run that sufficed, not of the search.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.lifelong_course import DemoCourse, Question, Request, Sizes
from benchmarks.lifelong_lethe import Lethe
from benchmarks.lifelong_lumoe import RECIPE, LumoeReleased
from benchmarks.lifelong_measure import Examiner, secrets, untouched
from benchmarks.lifelong_methods import Method, Setting, Untouched
from benchmarks.output import write_json
from workers.verification.metrics import forget_points, forget_quality


@dataclass(frozen=True, slots=True)
class Run:
    """One method on one request: CPU seconds of all threads, seconds, and forget quality on n questions."""

    cpu_seconds: float
    seconds: float
    forget_quality: float
    n: int
    epochs: int | None = None


@dataclass(frozen=True, slots=True)
class Pair:
    """Ours, and LUMoE's runs of more and more epochs; the last is as good as ours if ``reached``."""

    request: str
    subjects: int
    ours: Run
    released: tuple[Run, ...]

    @property
    def reached(self) -> bool:
        """Whether LUMoE's last run forgets as well as ours."""
        return self.released[-1].forget_quality >= self.ours.forget_quality

    @property
    def times(self) -> float:
        """How many times our CPU time its last run took: a lower bound where it did not reach ours."""
        return self.released[-1].cpu_seconds / self.ours.cpu_seconds


def doubled(first: int, most: int) -> Iterator[int]:
    """Yield first, 2 first, 4 first, ... up to ``most``."""
    return itertools.takewhile(lambda n: n <= most, (first * 2**k for k in itertools.count()))


def timed(method: Method, request: Request, asked: Sequence[Question], epochs: int | None = None) -> Run:
    """Carry a request out and ask the held-out questions."""
    began, busy = time.monotonic(), time.process_time()
    method.unlearn(request)
    cpu, seconds = time.process_time() - busy, time.monotonic() - began
    said = method.answer(asked)
    rate = forget_quality([forget_points(text, secrets(q)) for q, text in zip(asked, said, strict=True)])
    return Run(cpu, seconds, rate.value or 0.0, rate.n, epochs)


def compare(
    request: Request,
    asked: Sequence[Question],
    ours: Callable[[], Method],
    released: Callable[[int], Method],
    most: int,
) -> Pair:
    """Measure ours, then LUMoE with more and more epochs until it is as good."""
    mine = timed(ours(), request, asked)
    runs: list[Run] = []
    for epochs in doubled(RECIPE.epochs, most):
        runs.append(timed(released(epochs), request, asked, epochs))
        if runs[-1].forget_quality >= mine.forget_quality:
            break
    return Pair(request.name, len(request.subjects), mine, tuple(runs))


def fresh_lethe(setting: Setting) -> Lethe:
    """Return our method with nothing trained before: a farm's experts are not taken."""
    method = Lethe(setting)
    method.farm = setting.folder / "grown"
    return method


def run(n: int, task: str | None, most: int, console: Console) -> list[Pair]:
    """Measure n single entities spread over the tasks, and one task if asked."""
    course = DemoCourse(Sizes(requests=n))
    requests = course.requests("entities", "ABCD") if n else []
    requests += [r for r in course.requests("tasks", "ABCD") if r.name == f"Task {task}"]
    mllm = course.load()
    made = []
    for i, request in enumerate(requests):
        with tempfile.TemporaryDirectory(prefix="lethe-equal-") as folder:
            setting = Setting(course, mllm, Path(folder))
            examiner = Examiner(course, untouched(Untouched(setting), course, [request]))
            pair = compare(
                request,
                examiner.exam(request)[0],
                lambda s=setting: fresh_lethe(s),  # type: ignore[misc]
                lambda epochs, s=setting: LumoeReleased(s, replace(RECIPE, epochs=epochs)),  # type: ignore[misc]
                most,
            )
        made.append(pair)
        console.print(f"{i + 1}/{len(requests)} {told(pair)}")
    return made


def told(pair: Pair) -> str:
    """Return a pair in one line."""
    runs = ", ".join(
        f"{r.epochs} epochs {r.cpu_seconds:.1f} s fq {r.forget_quality:.3f}" for r in pair.released
    )
    return (
        f"{pair.request} ({pair.subjects}): ours {pair.ours.cpu_seconds:.1f} s fq "
        f"{pair.ours.forget_quality:.3f} (n={pair.ours.n}); released {runs}; "
        f"{'' if pair.reached else 'over '}{pair.times:.1f} times"
    )


def figures(pairs: Sequence[Pair]) -> dict[str, Any]:
    """Summarise; where LUMoE never was as good, its longest run counts, so that ratios are lower bounds."""
    return {
        "requests": len(pairs),
        "reached": sum(pair.reached for pair in pairs),
        "ours_cpu_seconds": statistics.median(pair.ours.cpu_seconds for pair in pairs),
        "ours_forget_quality": statistics.mean(pair.ours.forget_quality for pair in pairs),
        "released_cpu_seconds": statistics.median(pair.released[0].cpu_seconds for pair in pairs),
        "released_forget_quality": statistics.mean(pair.released[0].forget_quality for pair in pairs),
        "equal_cpu_seconds": statistics.median(pair.released[-1].cpu_seconds for pair in pairs),
        "equal_forget_quality": statistics.mean(pair.released[-1].forget_quality for pair in pairs),
        "times": statistics.median(pair.times for pair in pairs),
        "pairs": [asdict(pair) for pair in pairs],
    }


def show(found: dict[str, Any], console: Console) -> None:
    """Print the medians."""
    table = Table("", "CPU seconds, median", "forget quality, mean", title=f"{found['requests']} requests")
    for key, label in (
        ("ours", "ours"),
        ("released", "LUMoE as released, 5 epochs"),
        ("equal", "LUMoE, seconds at equal forget quality"),
    ):
        quality = found[f"{key}_forget_quality"]
        table.add_row(label, f"{found[f'{key}_cpu_seconds']:.2f}", f"{quality:.4f}")
    console.print(table)
    console.print(
        f"LUMoE reached ours in {found['reached']} of {found['requests']} requests; it takes "
        f"{found['times']:.1f} times as long in the median (a lower bound where it did not reach it)"
    )


def main() -> None:
    """Parse the command line, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--n", type=int, default=9, help="single entities, spread over the tasks")
    parser.add_argument("--task", help="one task as well: A, B, C or D")
    parser.add_argument("--most", type=int, default=80, help="epochs that LUMoE gets at most")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    console = Console()
    found = figures(run(arguments.n, arguments.task, arguments.most, console))
    show(found, console)
    if arguments.json:
        write_json(arguments.json, found)


if __name__ == "__main__":
    main()
