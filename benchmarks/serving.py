"""What serving costs: `python -m benchmarks.serving [--quick] [--json FILE] [--page FILE] [--parts ...]`.

Same model, same run: unwrapped `generate`, PEFT's `adapter_names`, LUMoE as released, ours; then the service
over HTTP: what it adds to an answer, registering under load, memory, filing, status. See
`docs/benchmarks/serving.md` for what is measured and how. Every job runs in a process of its own and its
result is kept below `var/benchmarks/serving/`: an interrupted run goes on where it stopped (`--fresh` begins
anew). Load is bounded and stays on loopback. With `--device cuda` the engine part has a 7B-shaped model too.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.serving_jobs import PARTS, Job, jobs, run_job
from benchmarks.serving_report import figures, page, tables
from benchmarks.serving_stack import environment

STATE = Path("var/benchmarks/serving")
JOB_SECONDS = 4 * 3600.0


def kept(state: Path, job: Job) -> dict[str, Any] | None:
    """Return what an earlier run found for the same plan, or None. A cut-short file counts as none."""
    try:
        held = json.loads((state / f"{job.name}.json").read_text())
    except (OSError, ValueError):
        return None
    same = held.get("plan") == json.loads(json.dumps(asdict(job.plan)))
    found: dict[str, Any] | None = held.get("found") if same else None
    return found


def keep(state: Path, job: Job, found: dict[str, Any]) -> None:
    """Keep what a job found; the file appears only when it is whole."""
    state.mkdir(parents=True, exist_ok=True)
    work = state / f".{job.name}.{os.getpid()}"
    work.write_text(json.dumps({"plan": asdict(job.plan), "found": found}, indent=1))
    work.rename(state / f"{job.name}.json")


def run(wanted: Sequence[Job], state: Path, asked: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Run the jobs that have no result yet, each in a process of its own; return all results by name.

    A job that fails is reported and left out; the others are run all the same.
    """
    found: dict[str, Any] = {}
    for job in wanted:
        held = None if asked.fresh else kept(state, job)
        if held is None and not asked.report:
            began = time.monotonic()
            command = [sys.executable, "-W", "ignore", "-m", "benchmarks.serving", "--job", job.name]
            command += [
                "--state",
                str(asked.state),
                "--device",
                asked.device,
                "--threads",
                str(asked.threads),
            ]
            command += ["--quick"] if asked.quick else []
            try:
                ended = subprocess.run(  # noqa: S603 - our own interpreter
                    command, env=environment(asked.threads), timeout=JOB_SECONDS, check=False
                ).returncode
            except subprocess.TimeoutExpired:
                ended = -1
            held = kept(state, job) if ended == 0 else None
            how = "done" if held is not None else f"FAILED (exit status {ended})"
            console.print(f"{job.name}: {how}, {time.monotonic() - began:.0f} s")
        if held is not None:
            found[job.name] = held
    return found


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    made = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__)
    made.add_argument("--quick", action="store_true", help="fewer cells, rows, runs and seconds")
    made.add_argument("--parts", help=f"some of {','.join(PARTS)}; by default all")
    made.add_argument("--json", type=Path, help="write the figures here")
    made.add_argument("--page", type=Path, help="write the results page here, and its plots beside it")
    made.add_argument("--threads", type=int, default=1, help="threads of every process that computes")
    made.add_argument("--device", default="cpu", help="of the engine part, such as cuda")
    made.add_argument("--state", type=Path, default=STATE, help="where results are kept")
    made.add_argument("--fresh", action="store_true", help="measure again what has a result")
    made.add_argument("--report", action="store_true", help="measure nothing; report what is kept")
    made.add_argument("--job", help=argparse.SUPPRESS)
    made.set_defaults(command="python -m benchmarks.serving " + " ".join(sys.argv[1:]))
    return made


def parts_of(text: str | None) -> tuple[str, ...]:
    """Return the parts that a command line names. Raises SystemExit for one that there is not."""
    chosen = tuple(part.strip() for part in (text or ",".join(PARTS)).split(",") if part.strip())
    unknown = [part for part in chosen if part not in PARTS]
    if unknown or not chosen:
        raise SystemExit(f"--parts: {', '.join(unknown) or 'nothing'}; choose from {','.join(PARTS)}")
    return chosen


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is left, print, write; return 1 if a job failed or nothing has been measured."""
    asked = parser().parse_args(arguments)
    wanted = jobs(parts_of(asked.parts), quick=asked.quick, device=asked.device, threads=asked.threads)
    state = asked.state / ("quick" if asked.quick else "full")
    console = Console(soft_wrap=not sys.stdout.isatty(), width=None if sys.stdout.isatty() else 150)
    if asked.job:
        job = next(job for job in wanted if job.name == asked.job)
        keep(state, job, run_job(job, console))
        return 0
    found = run(wanted, state, asked, console)
    result = figures(found) | {
        "quick": asked.quick,
        "date": date.today().isoformat(),
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0],
    }
    for table in tables(result):
        console.print(table)
    if asked.json:
        asked.json.parent.mkdir(parents=True, exist_ok=True)
        asked.json.write_text(json.dumps(result, indent=1) + "\n")
    if asked.page:
        from benchmarks.serving_plots import draw_all

        drawn = draw_all(result, asked.page.parent)
        asked.page.write_text(page(result, asked.command, [path.name for path in drawn]))
    return int(len(found) < len(wanted))


if __name__ == "__main__":
    sys.exit(main())
