"""Nothing lost, nothing doubled, whatever breaks: `python -m benchmarks.faults --json FILE [--kills 500]`.

Injects every fault of `tests/faults` `--n` times, and kills workers at random moments until `--kills` of them
were killed, each time against real Postgres, Valkey, worker and (where it matters) API processes around a
tiny model. After each it looks whether every request reached its right final state with one live expert,
whether the audit trail is unbroken, and what `lethe doctor` finds.

What was done is kept line by line in `--state`, and not done again: run it as often as you like.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

from rich.console import Console

from app.kit.logging import configure_logging
from tests.faults.catalogue import FAULTS, RANDOM, run
from tests.faults.house import OwnHouse

STATE = Path("var/benchmarks/faults")
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Record:
    """One injection: fault and seed, how often it struck, and what became of the requests."""

    fault: str
    seed: int
    injected: int
    requests: int
    lost: int
    doubled: int
    unsound: list[str]
    seconds: float

    @property
    def clean(self) -> bool:
        """Whether everything was as it must be."""
        return not (self.lost or self.doubled or self.unsound)


def read(path: Path) -> list[Record]:
    """Return what was done before. A last line that was cut short by a kill counts as not done."""
    records = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            records.append(Record(**json.loads(line)))
        except ValueError:
            continue
    return records


def append(path: Path, record: Record) -> None:
    """Keep one injection."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torn = path.exists() and not path.read_bytes().endswith(b"\n")
    with path.open("a") as file:
        file.write(("\n" if torn else "") + json.dumps(asdict(record)) + "\n")


def due(done: Sequence[Record], names: Sequence[str], n: int, kills: int) -> Iterator[tuple[str, int]]:
    """Yield what is left to do: (fault, seed), every fault once before any of them twice.

    Random kills come last; how many injections they take is seen as they are done, so `done` may grow.
    """
    seen = {(record.fault, record.seed) for record in done}
    for seed in range(1, n + 1):
        yield from ((name, seed) for name in names if name != RANDOM and (name, seed) not in seen)
    seed = 0
    while RANDOM in names and sum(r.injected for r in done if r.fault == RANDOM) < kills:
        seed += 1
        if (RANDOM, seed) not in seen:
            yield RANDOM, seed


def summary(records: Sequence[Record]) -> Json:
    """Return the figures, per fault and in all."""

    def figures(chosen: Sequence[Record]) -> Json:
        seconds = sorted(record.seconds for record in chosen)
        return {
            "runs": len(chosen),
            "injected": sum(record.injected for record in chosen),
            "requests": sum(record.requests for record in chosen),
            "lost": sum(record.lost for record in chosen),
            "doubled": sum(record.doubled for record in chosen),
            "unsound": sum(len(record.unsound) for record in chosen),
            "seconds_median": round(seconds[len(seconds) // 2], 2) if seconds else None,
        }

    names = [name for name in FAULTS if any(record.fault == name for record in records)]
    return {
        **figures(records),
        "faults": {name: figures([r for r in records if r.fault == name]) for name in names},
        "not_clean": [asdict(record) for record in records if not record.clean],
    }


def page(found: Json, command: str) -> str:
    """Return the figures as a page."""
    lines = [
        "# Nothing lost, nothing doubled",
        "",
        f"Written by `{command}`, {date.today().isoformat()}.",
        "Real Postgres, Valkey, worker and API processes around a tiny model that knows nothing; the stages",
        "run for real, on small sets, and only the verdict of the verification is given. A lease of 4 s,",
        "redelivery after 2 s. Random moments are drawn from 0.02 to 1.5 s after the worker was started.",
        "",
        f"**{found['injected']} faults injected into {found['requests']} requests: {found['lost']} lost,"
        f" {found['doubled']} doubled, {found['unsound']} findings.**",
        "",
        "*Lost*: not in its right final state, or active without a live expert. *Doubled*: activated twice,",
        "two live experts, a live expert of a request that is not active, or one version published twice.",
        "*Findings*: whatever `lethe doctor` reports (it reads every expert's files and recomputes the audit",
        "chain), an activation without its audit event, or a fault that did not work as it should.",
        "",
        "| fault | | runs | injected | requests | lost | doubled | findings | s, median |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in found["faults"].items():
        what = (FAULTS[name].__doc__ or "").strip().splitlines()[0]
        lines.append(
            f"| `{name}` | {what} | {row['runs']} | {row['injected']} | {row['requests']} | {row['lost']} "
            f"| {row['doubled']} | {row['unsound']} | {row['seconds_median']} |"
        )
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None, out: Callable[[str], None] | None = None) -> int:
    """Run what is left, write the figures, and return 0 if nothing was lost, doubled or found."""
    asked = parser().parse_args(arguments)
    say = out or Console(stderr=True, highlight=False).print
    state = asked.state / "injections.jsonl"
    names = asked.only or list(FAULTS)
    done = read(state)
    if not asked.report:
        try:
            _inject(state, done, names, asked, say)
        finally:
            _write(done, asked)
    found = _write(done, asked)
    say(
        f"{found['injected']} faults, {found['requests']} requests: {found['lost']} lost, "
        f"{found['doubled']} doubled, {found['unsound']} findings"
    )
    return int(any(not record.clean for record in done))


def _write(done: Sequence[Record], asked: argparse.Namespace) -> Json:
    found = summary(done)
    if asked.json is not None:
        asked.json.parent.mkdir(parents=True, exist_ok=True)
        asked.json.write_text(json.dumps(found, indent=1) + "\n")
    if asked.page is not None:
        asked.page.write_text(page(found, asked.command))
    return found


def _inject(
    state: Path,
    done: list[Record],
    names: Sequence[str],
    asked: argparse.Namespace,
    say: Callable[[str], None],
) -> None:
    configure_logging(json=False, level=logging.CRITICAL)  # progress alone; the processes' logs are in files
    directory = Path(tempfile.mkdtemp(prefix="lethe-faults-"))
    house = OwnHouse.build(directory)
    try:
        for name, seed in due(done, names, asked.n, asked.kills):
            record = _once(house, name, seed)
            append(state, record)
            done.append(record)
            verdict = "clean" if record.clean else f"NOT CLEAN: {record.unsound}"
            left = _left(done, names, asked)
            say(f"{name} {seed}: {record.injected} injected, {verdict}, {record.seconds:.1f} s; {left}")
    finally:
        house.close()
        if asked.keep:
            say(f"logs and database: {directory}")
        else:
            shutil.rmtree(directory, ignore_errors=True)


def _once(house: OwnHouse, name: str, seed: int) -> Record:
    started = time.monotonic()
    try:
        outcome = run(house, name, seed)
    except AssertionError as error:  # the fault itself did not go as it must
        said = [f"{name}: {str(error)[:2000]}"]
        house.nursery.end_all()
        return Record(name, seed, 0, 0, 0, 0, said, round(time.monotonic() - started, 3))
    found, seconds = outcome.judgement, round(time.monotonic() - started, 3)
    return Record(
        name, seed, outcome.injected, found.requests, found.lost, found.doubled, found.unsound, seconds
    )


def _left(done: Sequence[Record], names: Sequence[str], asked: argparse.Namespace) -> str:
    """Return how long the rest will take, at the pace so far of each fault (of all, if one has none yet)."""
    pace = summary(done)
    mean = sum(record.seconds for record in done) / len(done)
    seconds = 0.0
    for name in names:
        row = pace["faults"].get(name)
        each = mean if row is None else row["seconds_median"]
        if name == RANDOM:
            per_kill = each / max(1.0, row["injected"] / row["runs"]) if row else mean / 8
            seconds += per_kill * max(0, asked.kills - (row["injected"] if row else 0))
        else:
            seconds += each * max(0, asked.n - (row["runs"] if row else 0))
    return f"{seconds / 60:.0f} min left"


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    made = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__)
    made.add_argument("--json", type=Path, help="write the figures here")
    made.add_argument("--page", type=Path, help="write a page here")
    made.add_argument("--n", type=int, default=3, help="how often each fault is injected")
    made.add_argument("--kills", type=int, default=500, help="how many workers are killed at random moments")
    made.add_argument("--only", action="append", choices=sorted(FAULTS), help="this fault alone; repeatable")
    made.add_argument("--state", type=Path, default=STATE, help="where what was done is kept")
    made.add_argument("--report", action="store_true", help="inject nothing; figures of what was done so far")
    made.add_argument("--keep", action="store_true", help="keep database and logs of the last run")
    made.set_defaults(command="python -m benchmarks.faults " + " ".join(sys.argv[1:]))
    return made


if __name__ == "__main__":
    sys.exit(main())
