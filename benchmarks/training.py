"""What training costs and is worth, by recipe: `python -m benchmarks.training [--n 12] [--seeds 2]`.

Each subject's request is prepared once per seed; then every recipe trains an expert for it, one after the
other, and each expert goes through the worker's own `calibrate` and `measure` (the stage `verify`) with the
policy's thresholds, alone in the router. Times are CPU seconds of all threads: run with OMP_NUM_THREADS=1 on
a machine that does other things as well.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from app.kit.clock import utcnow
from app.lumoe.demo import Entity
from app.lumoe.router import Router
from benchmarks.farm import case_of, start
from benchmarks.output import write_json
from benchmarks.request import subjects
from workers import stages
from workers.forgetset.build import TrainingSet
from workers.runtime import Runtime
from workers.training.recipe import RECIPES, Recipe

METRICS = (
    "forget_quality",
    "leak",
    "attack_delta",
    "expert_over_refusal",
    "forced_mu_rel",
    "mu_rel",
    "changed_answers",
    "gate_tpr",
)


@dataclass(frozen=True, slots=True)
class Trial:
    """One expert: how its training went, CPU seconds per stage, and what verification found."""

    recipe: str
    subject: str
    seed: int
    steps: int
    prepare_seconds: float
    train_seconds: float
    calibrate_seconds: float
    verify_seconds: float
    passed: bool
    scores: dict[str, float | None]


def trial(
    runtime: Runtime, case: stages.Case, training: TrainingSet, name: str, recipe: Recipe, prepared: float
) -> Trial:
    """Train, calibrate and verify one expert; nothing is published."""
    with tempfile.TemporaryDirectory(prefix="lethe-training-") as place:
        root = Path(place)
        initial = stages.initial_expert(runtime, case, recipe, lambda: False)
        clock = [time.process_time()]
        done = stages.train(
            runtime, training, recipe, root / "adapter", lambda: False, lambda _: None, initial
        )
        clock.append(time.process_time())
        calibration = stages.calibrate(runtime, case, training)
        clock.append(time.process_time())
        key = runtime.settings.evidence_cipher()
        ref = stages.write_candidate(runtime, case, calibration, done.directory, root, utcnow(), key)
        verdict = stages.measure(
            runtime,
            case,
            training.knowledge,
            Router.build(runtime.mllm, []),
            root / ref.path,
            ref.manifest_sha256,
            lambda: False,
        )
        clock.append(time.process_time())
    found = {score.metric: score.value for score in verdict.scores}
    trained, calibrated, verified = (later - at for at, later in itertools.pairwise(clock))
    return Trial(
        recipe=name,
        subject=case.target.names[0],
        seed=recipe.seed,
        steps=done.steps,
        prepare_seconds=prepared,
        train_seconds=trained,
        calibrate_seconds=calibrated,
        verify_seconds=verified,
        passed=verdict.passed,
        scores={metric: found.get(metric) for metric in METRICS},
    )


def run(entities: Sequence[Entity], seeds: int, recipes: Sequence[str], console: Console) -> list[Trial]:
    """Measure every recipe on every subject and seed, the recipes one after the other."""
    made = []
    with tempfile.TemporaryDirectory(prefix="lethe-training-") as place:
        runtime = start(Path(place), threads=1)
        runtime.negatives()  # once per worker process
        for seed in range(seeds):
            for entity in entities:
                case = replace(case_of(runtime, entity), request_id=f"req_{entity.key}s{seed}", removed=())
                began = time.process_time()
                training = stages.prepare(runtime, case, lambda: False)
                prepared = time.process_time() - began
                for name in recipes:
                    recipe = replace(RECIPES[name], seed=RECIPES[name].seed + seed)
                    made.append(trial(runtime, case, training, name, recipe, prepared))
                    last = made[-1]
                    console.print(
                        f"{entity.name} {seed} {name}: {last.steps} steps, {last.train_seconds:.1f} s, "
                        f"{'passed' if last.passed else 'FELL SHORT'}"
                    )
    return made


def figures(trials: Sequence[Trial]) -> dict[str, Any]:
    """Summarise by recipe: medians of times and steps, means of scores and how many experts passed."""
    found = {}
    for name in dict.fromkeys(t.recipe for t in trials):
        own = [t for t in trials if t.recipe == name]
        found[name] = {
            "n": len(own),
            "passed": sum(t.passed for t in own),
            "steps": statistics.median(t.steps for t in own),
            "prepare_seconds": statistics.median(t.prepare_seconds for t in own),
            "train_seconds": statistics.median(t.train_seconds for t in own),
            "calibrate_seconds": statistics.median(t.calibrate_seconds for t in own),
            "verify_seconds": statistics.median(t.verify_seconds for t in own),
            **{metric: _mean([t.scores[metric] for t in own]) for metric in METRICS},
        }
    return {"recipes": found, "trials": [asdict(t) for t in trials]}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.mean(known) if known else None


def show(found: dict[str, Any], console: Console) -> None:
    """Print one column per recipe."""
    recipes = found["recipes"]
    table = Table("", *recipes, title="training, CPU seconds in the median, scores in the mean")
    for key in next(iter(recipes.values())):
        values = [recipe[key] for recipe in recipes.values()]
        table.add_row(key, *("–" if v is None else f"{v:.4g}" for v in values))
    console.print(table)


def main() -> None:
    """Parse the command line, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--n", type=int, default=12, help="subjects, classes in turn")
    parser.add_argument("--seeds", type=int, default=2, help="requests about each subject")
    parser.add_argument("--recipes", nargs="+", choices=sorted(RECIPES), default=["default", "cold"])
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    console = Console()
    found = figures(run(subjects(arguments.n), arguments.seeds, arguments.recipes, console))
    show(found, console)
    if arguments.json:
        write_json(arguments.json, found)


if __name__ == "__main__":
    main()
