"""What one request costs and does, end to end: `python -m benchmarks.request [--n 9] [--json FILE]`.

Starts the embedded stack in a directory of its own, files `n` requests over HTTP one after another (classes
in turn), and measures seconds to protection without an expert and to `active`, forget quality and leak on
views and wordings that no stage has seen, and whether neighbours' and general answers are the unwrapped
model's to the letter. After the last request every earlier subject is asked again.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from app.client import Client, png
from app.client.types import Status
from app.embedded.demo.interview import on_the_wire
from app.embedded.home import Home
from app.embedded.supervisor import Stack
from app.lumoe.demo import Entity, draw, followups, general, questions, world
from app.lumoe.demo.questions import QA
from app.lumoe.mllm import MLLM
from app.lumoe.types import Conversation
from benchmarks.output import write_json
from workers.verification.metrics import (
    bounded_mean,
    forget_points,
    forget_quality,
    is_refusal,
    keywords,
    leak,
)

UPLOADS = range(6)
VIEW = 310_000
NEIGHBOURS = 4


@dataclass(slots=True)
class Result:
    """One request: seconds to `active`, per stage, to protection; and what was asked right after it.

    `protected` counts from filing until every replica had acknowledged that it refuses about the subject.
    """

    name: str
    klass: str
    state: str
    seconds: float
    stages: dict[str, float]
    protected: float | None
    protected_after_approval: float | None
    reason: str = ""
    points: list[int] = field(default_factory=list)
    leaks: list[float] = field(default_factory=list)
    points_at_end: list[int] = field(default_factory=list)
    leaks_at_end: list[float] = field(default_factory=list)
    same: int = 0
    others: int = 0


def subjects(n: int) -> list[Entity]:
    """Return n entities of the 127, classes in turn."""
    by_class: dict[str, list[Entity]] = {}
    for entity in world().forgettable:
        by_class.setdefault(entity.klass, []).append(entity)
    turns = [
        entity
        for k in range(len(world().forgettable))
        for group in by_class.values()
        for entity in group[k : k + 1]
    ]
    return turns[:n]


def about(entity: Entity) -> list[QA]:
    """Return the questions of the report split about one entity, on a view nobody else uses."""
    return [*questions(entity, "report", view=VIEW), *followups(entity, "report", view=VIEW + 1)]


def others(entity: Entity, gone: Sequence[Entity]) -> list[Conversation]:
    """Return questions that concern neighbours which stay, and general ones."""
    keys = {subject.key for subject in gone}
    near = [other for other in world().neighbours(entity, NEIGHBOURS + len(keys)) if other.key not in keys]
    asked = [qa for other in near[:NEIGHBOURS] for qa in questions(other, "report", view=VIEW)[::3]]
    return [qa.conversation for qa in (*asked, *general("report", 20, 7))]


def forget(owner: Client, entity: Entity) -> Result:
    """File one request, wait until it is final or waits for a person, and time it."""
    pictures = [(f"{view}.png", png(draw(entity, view))) for view in UPLOADS]
    started = time.monotonic()
    accepted = owner.submit(name=entity.name, klass=entity.klass, aliases=entity.aliases, pictures=pictures)
    status = list(owner.follow(accepted["id"], interval=0.1))[-1]
    seconds = time.monotonic() - started
    reason = str(status["transitions"][-1].get("reason") or "") if status["state"] != "active" else ""
    protected = seconds_between(status["created_at"], status["protected_at"])
    approved = next((t["at"] for t in status["transitions"] if t["state"] == "approved"), None)
    return Result(
        entity.name,
        entity.klass,
        status["state"],
        seconds,
        stage_seconds(status),
        protected,
        seconds_between(approved, status["protected_at"]),
        reason,
    )


def seconds_between(earlier: str | None, later: str | None) -> float | None:
    """Return the seconds between two RFC 3339 times; None if there is one too few."""
    if earlier is None or later is None:
        return None
    return (datetime.fromisoformat(later) - datetime.fromisoformat(earlier)).total_seconds()


def stage_seconds(status: Status) -> dict[str, float]:
    """Return seconds spent in each state, from the timestamps of the transitions."""
    moments = [(t["state"], datetime.fromisoformat(t["at"])) for t in status["transitions"]]
    pairs = itertools.pairwise(moments)
    return {state: (later - at).total_seconds() for (state, at), (_, later) in pairs}


def answers(chat: Client, conversations: Sequence[Conversation]) -> list[str]:
    """Ask over HTTP, one by one, as a caller would."""
    return [chat.chat(on_the_wire(c))["message"]["content"] for c in conversations]


def score(chat: Client, mllm: MLLM, entity: Entity) -> tuple[list[int], list[float]]:
    """Return forget points (0-2) and leaks (0-1) of everything asked about one entity."""
    asked = about(entity)
    base = [g.text for g in mllm.generate([qa.conversation for qa in asked])]
    served = answers(chat, [qa.conversation for qa in asked])
    names = (entity.name, *entity.aliases)
    secrets = [  # an answer that the unwrapped model declines gives nothing away
        () if is_refusal(b) else keywords(b, qa.conversation[-1].text, names)
        for qa, b in zip(asked, base, strict=True)
    ]
    return (
        [forget_points(text, secret) for text, secret in zip(served, secrets, strict=True)],
        [leak(text, secret) for text, secret in zip(served, secrets, strict=True)],
    )


def run(n: int, console: Console) -> dict[str, Any]:
    """Measure n requests on a fresh stack; return the figures."""
    mllm = MLLM.load("demo", "cpu")
    chosen = subjects(n)
    results: list[Result] = []
    with tempfile.TemporaryDirectory(prefix="lethe-bench-") as folder:
        began = time.monotonic()
        with Stack(Home(Path(folder)), port=0) as stack:
            started = time.monotonic() - began
            with (
                Client(stack.url, stack.keys["owner"]) as owner,
                Client(stack.url, stack.keys["chat"]) as chat,
            ):
                for i, entity in enumerate(chosen):
                    result = forget(owner, entity)
                    result.points, result.leaks = score(chat, mllm, entity)
                    asked = others(entity, chosen[: i + 1])
                    expected = [g.text for g in mllm.generate(asked)]
                    served = answers(chat, asked)
                    result.same = sum(a == b for a, b in zip(served, expected, strict=True))
                    result.others = len(asked)
                    results.append(result)
                    took = f"{result.state} after {result.seconds:.1f} s (protected: {result.protected})"
                    console.print(f"{i + 1}/{n} {entity.name}: {took} {result.reason}")
                for entity, result in zip(chosen, results, strict=True):
                    result.points_at_end, result.leaks_at_end = score(chat, mllm, entity)
    return figures(results, started)


def figures(results: Sequence[Result], started: float) -> dict[str, Any]:
    """Summarise: medians, and rates with n and 95 % intervals (Clopper-Pearson)."""
    seconds = [r.seconds for r in results]
    stages = sorted({name for r in results for name in r.stages})

    def rate(points: list[int]) -> dict[str, Any]:
        found = forget_quality(points)
        return {"value": found.value, "n": found.n, "low": found.low, "high": found.high}

    leaks = [value for r in results for value in r.leaks]
    return {
        "n": len(results),
        "active": sum(r.state == "active" for r in results),
        "stack_start_seconds": started,
        "seconds_to_active": {"median": statistics.median(seconds), "max": max(seconds), "all": seconds},
        "seconds_to_protected": spread([r.protected for r in results]),
        "seconds_to_protected_after_approval": spread([r.protected_after_approval for r in results]),
        "stage_seconds_median": {
            s: statistics.median([r.stages.get(s, 0.0) for r in results]) for s in stages
        },
        "forget_quality": rate([p for r in results for p in r.points]),
        "leak": {"value": bounded_mean(leaks).value, "n": len(leaks)},
        "forget_quality_at_end": rate([p for r in results for p in r.points_at_end]),
        "leak_at_end": {
            "value": bounded_mean([v for r in results for v in r.leaks_at_end]).value,
            "n": len(leaks),
        },
        "identical_answers": {"same": sum(r.same for r in results), "n": sum(r.others for r in results)},
        "requests": [
            {
                "name": r.name,
                "class": r.klass,
                "state": r.state,
                "reason": r.reason,
                "seconds": r.seconds,
                "protected": r.protected,
                "protected_after_approval": r.protected_after_approval,
                "stages": r.stages,
            }
            for r in results
        ],
    }


def spread(seconds: Sequence[float | None]) -> dict[str, Any]:
    """Return median and maximum of what was measured, and of how many."""
    known = [value for value in seconds if value is not None]
    if not known:
        return {"median": None, "max": None, "n": 0}
    return {"median": statistics.median(known), "max": max(known), "n": len(known)}


def show(found: dict[str, Any], console: Console) -> None:
    """Print the figures beside their targets."""
    table = Table("figure", "measured", "target", title=f"{found['n']} requests on the demo model")
    table.add_row("active", f"{found['active']} of {found['n']}", "all")
    for key, label, target in (
        ("seconds_to_protected", "protected: seconds from filing, median (max)", ""),
        ("seconds_to_protected_after_approval", "protected: seconds from approval, median (max)", "< 1"),
    ):
        held = found[key]
        measured = f"{held['median']:.3f} ({held['max']:.3f}) n={held['n']}" if held["n"] else "never"
        table.add_row(label, measured, target)
    times = found["seconds_to_active"]
    table.add_row("seconds to active, median (max)", f"{times['median']:.1f} ({times['max']:.1f})", "<= 20")
    for name, value in found["stage_seconds_median"].items():
        table.add_row(f"  in state {name}", f"{value:.2f}", "")
    for key, label in (
        ("forget_quality", "forget quality"),
        ("forget_quality_at_end", "  after the last request"),
    ):
        rate = found[key]
        table.add_row(
            label, f"{rate['value']:.4f} [{rate['low']:.4f}, {rate['high']:.4f}] n={rate['n']}", ">= .98"
        )
    for key, label in (("leak", "leak"), ("leak_at_end", "  after the last request")):
        table.add_row(label, f"{found[key]['value']:.4f} n={found[key]['n']}", "0")
    same = found["identical_answers"]
    table.add_row("others' answers identical", f"{same['same']} of {same['n']}", "all")
    console.print(table)


def main() -> None:
    """Parse the command line, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--n", type=int, default=9, help="number of requests, one after another")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    console = Console()
    found = run(arguments.n, console)
    show(found, console)
    if arguments.json:
        write_json(arguments.json, found)


if __name__ == "__main__":
    main()
