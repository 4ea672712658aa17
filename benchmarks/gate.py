"""The gate's errors and costs, with 1 to 10,000 experts: `python -m benchmarks.gate [--quick] [--json FILE]`.

Needs the trained experts of `python -m benchmarks.farm`. Everything is asked through the real path; see
`docs/benchmarks/gate.md`, which a full run writes, for what is measured and how.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from app.kit.clock import utcnow
from app.lumoe.demo import Entity, world
from app.lumoe.expert import LoadedExpert
from app.lumoe.mllm import MLLM
from app.lumoe.router import Router
from benchmarks.farm import ROOT, sequence, start
from benchmarks.gate_attacks import Attacked, measure_attacks
from benchmarks.gate_experts import Enrolled, newcomers, real_experts, store, synthetic_experts
from benchmarks.gate_measure import MAX_EXAMPLES, Asker, Example, Level, measure
from benchmarks.gate_plots import draw_all
from benchmarks.gate_report import PAGE, as_json, page, tables
from benchmarks.gate_scoring import Fact, elicit
from benchmarks.gate_speed import Latency, adding_milliseconds, decision_latency, memory
from benchmarks.gate_traffic import QUICK, Sizes, ordinary_items, other_items, spread
from benchmarks.output import write_json

TEN_THOUSAND = 10_000
CURVE = (300, 1_000, 3_000, TEN_THOUSAND)
QUICK_EXPERTS = (1, 20)
QUICK_SYNTHETIC = 1_000
INTERIM_KEY = "seconds_to_protected_after_approval"
CALIBRATION_BUDGET = {True: 90.0, False: 3_600.0}
_LEVEL_KEYS = (
    "leak",
    "changed_answers",
    "tpr",
    "fpr",
    "misroute",
    "tpr_name",
    "fpr_name",
    "base_identity",
    "expert_over_refusal",
    "guard_catch_rate",
)


@dataclass(frozen=True, slots=True)
class Plan:
    """What one run measures."""

    quick: bool
    experts: tuple[int, ...]
    total: int
    sizes: Sizes
    keep_calibration: bool = False
    calibration_seconds: float = 3_600.0
    curve: tuple[int, ...] = CURVE


@dataclass(slots=True)
class Findings:
    """What has been measured so far."""

    levels: list[Level] = field(default_factory=list)
    curve: list[Level] = field(default_factory=list)
    attacks: list[Attacked] = field(default_factory=list)
    latency: dict[int, Latency] = field(default_factory=dict)
    examples: list[Example] = field(default_factory=list)
    add_ms: dict[int, float] = field(default_factory=dict)
    memory: dict[str, float] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=lambda: {"real": "", "synthetic": "no synthetic experts"})


class Benchmark:
    """One run: the model, the experts, and what they are asked."""

    def __init__(self, plan: Plan, console: Console) -> None:
        self.plan, self.console = plan, console
        self.runtime = start()
        self.mllm: MLLM = self.runtime.mllm
        self.place = store(self.runtime, keep=plan.keep_calibration)
        self.asker = Asker(self.mllm)
        self.found = Findings()
        self._began = time.monotonic()

    def run(self) -> dict[str, Any]:
        """Measure everything and return the figures."""
        order = sequence()
        real = real_experts(self.runtime, spread(order, max(self.plan.experts)), self.place, self.console)
        self.found.notes["real"] = real.note
        by_id = {expert.expert_id: expert for expert in real.experts}
        there = [entity for entity in order if f"exp_{entity.key}" in by_id]
        known = elicit(self.mllm, there)
        self._say(
            f"{len(there)} real experts, {sum(map(len, known.values()))} things known of their subjects"
        )
        for n in sorted({min(n, len(there)) for n in self.plan.experts}):
            self._level(spread(there, n), by_id, known)
        router = Router.build(self.mllm, real.experts)
        self._attack(router, there, known)
        if self.plan.total > len(real.experts):
            self._scale(real, there, known)
        return self.figures()

    def _level(
        self, enrolled: Sequence[Entity], by_id: Mapping[str, LoadedExpert], known: Mapping[str, list[Fact]]
    ) -> None:
        router = Router.build(self.mllm, [by_id[f"exp_{entity.key}"] for entity in enrolled])
        level = measure(self.asker, router, enrolled, known, self.plan.sizes)
        self.found.levels.append(level)
        self._note(level, router)

    def _note(self, level: Level, router: Router) -> None:
        """Keep a level's latency and failures, and say how it went."""
        self.found.latency[level.experts] = decision_latency(router, ordinary_items(self.plan.sizes))
        self.found.examples += level.examples
        brief = ", ".join(
            f"{name} {level.rates[name].value:.4f}"
            for name in ("leak", "changed_answers", "tpr", "fpr", "tpr_name", "fpr_name")
            if level.rates[name].value is not None
        )
        self._say(f"{level.experts} experts: {brief}; p95 {self.found.latency[level.experts].p95:.2f} ms")

    def _attack(self, router: Router, enrolled: Sequence[Entity], known: Mapping[str, list[Fact]]) -> None:
        attacks, examples = measure_attacks(self.asker, router, enrolled, known, self.plan.sizes.attack)
        self.found.attacks = attacks
        self.found.examples += examples
        worst = max(attacks, key=lambda a: a.leak.value or 0.0)
        self._say(f"{len(attacks)} attacks; worst {worst.name} {worst.leak.value}")

    def _scale(self, real: Enrolled, enrolled: Sequence[Entity], known: Mapping[str, list[Fact]]) -> None:
        """Add synthetic experts up to the total, measuring on the way; then time one more."""
        more = synthetic_experts(
            self.runtime,
            self.plan.total - len(real.experts) + 1,
            real.experts,
            self.place,
            self.plan.calibration_seconds,
            self.console,
        )
        self.found.notes["synthetic"] = more.note
        everyone = (*real.experts, *more.experts)
        steps = sorted(
            {n for n in self.plan.curve if len(real.experts) < n < 0.9 * self.plan.total} | {self.plan.total}
        )
        for n in steps:
            router = Router.build(self.mllm, everyone[:n])
            level = measure(self.asker, router, enrolled, known, self.plan.sizes, forced=False)
            self.found.curve.append(level)
            self._note(level, router)
            if n == self.plan.total:
                self.found.add_ms[n] = adding_milliseconds(router, newcomers(everyone[-1], 5))
                self.found.memory = memory(router, real.experts[0])

    def _say(self, text: str) -> None:
        self.console.print(f"[{time.monotonic() - self._began:6.0f} s] {text}", markup=False)

    def figures(self) -> dict[str, Any]:
        """Return everything as JSON-ready values, the issue's keys first."""
        found = self.found
        full = found.levels[-1]
        largest = found.curve[-1] if found.curve and found.curve[-1].experts == TEN_THOUSAND else None
        speed = found.latency.get(TEN_THOUSAND)
        worst = max((a.leak for a in found.attacks if a.leak.n), key=lambda r: r.value or 0.0, default=None)
        rates = {name: full.rates[name] for name in _LEVEL_KEYS}
        if largest:
            rates |= {f"{name}_10000": largest.rates[name] for name in ("leak", "changed_answers", "fpr")}
        if worst:
            rates["attack_leak_max"] = worst
        if speed:
            rates["doubtful_share_10000"] = speed.inside
        interim, why = interim_seconds()
        scale = f"only {self.plan.total:,} experts were enrolled in this run"
        values: dict[str, Any] = {name: rate.value for name, rate in rates.items()}
        values |= {
            "interim_seconds": interim,
            "p95_ms_127": found.latency[full.experts].p95_outside if full.experts == 127 else None,
            "p95_ms_10000": speed.p95_outside if speed else None,
            "add_expert_ms_10000": found.add_ms.get(TEN_THOUSAND),
            "bytes_per_expert": found.memory.get("total"),
        }
        for name in ("leak_10000", "changed_answers_10000", "fpr_10000", "doubtful_share_10000"):
            values.setdefault(name, None)
        values.setdefault("attack_leak_max", None)
        reasons = {name: scale for name, value in values.items() if value is None and "10000" in name}
        reasons |= {name: rate.reason or "" for name, rate in rates.items() if rate.value is None}
        reasons |= {"interim_seconds": why} if interim is None else {}
        if values["p95_ms_127"] is None:
            reasons["p95_ms_127"] = f"{full.experts} real experts were enrolled"
        return {
            **values,
            "attack": {a.name: a.as_json() for a in found.attacks},
            "rates": {name: as_json(rate) for name, rate in rates.items()},
            "reasons": reasons,
            "levels": [level.as_json() for level in found.levels],
            "curve": [level.as_json() for level in found.curve],
            "latency": {str(n): speed.as_json() for n, speed in found.latency.items()},
            "add_expert_ms": {str(n): value for n, value in found.add_ms.items()},
            "memory": found.memory,
            "experts": full.experts,
            "quick": self.plan.quick,
            "model": self.mllm.fingerprint,
            "date": utcnow().date().isoformat(),
            "seconds": time.monotonic() - self._began,
            "notes": found.notes,
            "world": {"protected": len(world().protected), "prompts": len(other_items(self.plan.sizes))},
            "examples": [asdict(e) for e in worst_examples(found.examples)],
        }


def worst_examples(examples: Sequence[Example], n: int = MAX_EXAMPLES) -> list[Example]:
    """Return up to n failures, of as many kinds and groups as there are, leaks before changed answers."""
    by_kind: dict[tuple[str, str], list[Example]] = {}
    for e in sorted(examples, key=lambda e: (e.figure == "changed", e.experts)):
        by_kind.setdefault((e.figure, e.group), []).append(e)
    turns = [
        e for depth in range(len(examples)) for some in by_kind.values() for e in some[depth : depth + 1]
    ]
    seen: dict[tuple[str, str], Example] = {}
    for e in turns:
        seen.setdefault((e.figure, e.prompt), e)
    return list(seen.values())[:n]


def interim_seconds(path: Path = ROOT / "request.json") -> tuple[float | None, str]:
    """Return the longest time from approval to first protection that `benchmarks.request` saw, or why not."""
    if not path.is_file():
        return None, f"run `python -m benchmarks.request --json {path}` first"
    value = (json.loads(path.read_text()).get(INTERIM_KEY) or {}).get("max")
    if not isinstance(value, int | float):
        return None, f"{path} holds no {INTERIM_KEY}"
    return float(value), ""


def show(found: Mapping[str, Any], console: Console) -> None:
    """Print tables and the failures."""
    for table in tables(found):
        console.print(table)
    for e in found["examples"]:
        console.print(
            f"{e['figure']} | {e['experts']} experts | {e['group']} {e['entity']} | {e['form']}\n"
            f"   asked:  {e['prompt']}\n   base:   {e['base']}\n   served: {e['served']}\n   {e['evidence']}",
            markup=False,
            highlight=False,
        )
    console.print(f"{found['notes']['real']}; {found['notes']['synthetic']}; {found['seconds']:.0f} s")


def plan_of(arguments: argparse.Namespace) -> Plan:
    """Return what the command line asks for."""
    quick = bool(arguments.quick)
    wanted = arguments.experts.split(",") if arguments.experts else ()
    experts = tuple(int(n) for n in wanted) or (QUICK_EXPERTS if quick else (1, 10, 50, 127))
    total = arguments.synthetic
    if total is None:
        total = QUICK_SYNTHETIC + max(experts) if quick else TEN_THOUSAND
    curve = tuple(int(n) for n in arguments.curve.split(",")) if arguments.curve else CURVE
    return Plan(
        quick,
        experts,
        total,
        QUICK if quick else Sizes(),
        arguments.keep_calibration,
        CALIBRATION_BUDGET[quick] if arguments.calibrate_for is None else arguments.calibrate_for,
        curve,
    )


def main() -> None:
    """Parse the command line, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--quick", action="store_true", help="20 real experts, 1,000 drawn ones, fewer prompts"
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--experts", help="numbers of real experts, such as 1,10,50,127")
    parser.add_argument(
        "--synthetic", type=int, help="experts in all, drawn ones included; 0 for real ones only"
    )
    parser.add_argument("--curve", help="where to measure on the way there, such as 300,1000,3000")
    parser.add_argument(
        "--calibrate-for",
        type=float,
        metavar="SECONDS",
        help="calibrate drawn experts for so long; the others get interim records, and the next run goes on",
    )
    parser.add_argument("--plots", type=Path, help="write the plots into this directory")
    parser.add_argument("--page", type=Path, help=f"write the results page; a full run writes {PAGE}")
    parser.add_argument(
        "--keep-calibration",
        action="store_true",
        help="take the newest gate records, whatever code made them",
    )
    arguments = parser.parse_args()
    console = Console(soft_wrap=not sys.stdout.isatty(), width=None if sys.stdout.isatty() else 150)
    plan = plan_of(arguments)
    found = Benchmark(plan, console).run()
    show(found, console)
    if arguments.json:
        write_json(arguments.json, found)
    full = not plan.quick and plan.total == TEN_THOUSAND and found["experts"] == len(sequence())
    target = arguments.page or (PAGE if full else None)
    plots = arguments.plots or (target.parent if target else None)
    drawn = draw_all(found, plots) if plots else []
    if target:
        target.parent.mkdir(parents=True, exist_ok=True)
        command = "python -m " + " ".join(["benchmarks.gate", *sys.argv[1:]])
        target.write_text(page(found, command, [p.name for p in drawn]))


if __name__ == "__main__":
    main()
