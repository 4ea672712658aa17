"""The 127 experts of the demo world, trained once and kept: `python -m benchmarks.farm [--n 127]`.

A measurement with 127 experts needs 127 trainings. They are done here as the service does them, one request
after another in the order of the tasks A to D, every subject removed earlier left out of the later ones'
retain sets, and kept below `var/benchmarks/farm/<model>/`. An interrupted run goes on where it stopped. The
gate is not calibrated here: whoever measures calibrates with the gate as it is then.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from app.lumoe.demo import Entity, draw, world
from app.lumoe.mllm import MLLM
from app.removal.records import Policy, Subject
from app.settings import load_settings
from workers import stages
from workers.forgetset.build import TrainingSet
from workers.runtime import Runtime
from workers.training.recipe import RECIPES
from workers.workdir import pack_training_set, unpack_training_set

UPLOADS = range(6)
ROOT = Path("var/benchmarks")
_ADAPTER, _TRAINING, _META = "adapter", "training.bin", "meta.json"


@dataclass(frozen=True, slots=True)
class Grown:
    """One trained expert in the farm: its adapter's directory and how training went."""

    key: str
    directory: Path
    steps: int
    seconds: float
    refusal: float
    agreement: float
    recipe: dict[str, float | int]
    cpu_seconds: float | None = None
    """Of all threads, as ``seconds`` by the clock; not known of experts of older farms."""

    @property
    def adapter(self) -> Path:
        """PEFT's two files."""
        return self.directory / _ADAPTER

    def training_set(self) -> TrainingSet:
        """Read the forget and retain sets and what the base model knew."""
        return unpack_training_set(zlib.decompress((self.directory / _TRAINING).read_bytes()))


def sequence() -> list[Entity]:
    """Return the forgettable entities in the order in which the tasks A to D remove them."""
    return sorted(world().forgettable, key=lambda entity: entity.task or "")


def names_before(entity: Entity) -> tuple[str, ...]:
    """Return all names of the subjects removed before this one."""
    order = sequence()
    at = [other.key for other in order].index(entity.key)
    return tuple(name for other in order[:at] for name in (other.name, *other.aliases))


def case_of(runtime: Runtime, entity: Entity) -> stages.Case:
    """Return the request that removes an entity: six uploaded views, and whoever was removed before it."""
    return stages.Case(
        request_id=f"req_{entity.key}",
        target=stages.target_of(Subject(entity.name, entity.aliases, entity.klass)),
        pictures=tuple(draw(entity, view) for view in UPLOADS),
        removed=names_before(entity),
        policy=Policy.of(runtime.settings, None),
    )


def start(experts_dir: Path | None = None, threads: int | None = None) -> Runtime:
    """Return the worker's tools on the demo model; nothing is connected to before it is used."""
    if threads:
        torch.set_num_threads(threads)
    settings = load_settings(_env_file=None, model="demo", experts_dir=experts_dir or ROOT / "experts")
    return Runtime.start(settings, MLLM.load("demo", "cpu"))


def farm_of(mllm: MLLM, root: Path = ROOT) -> Path:
    """Return where the experts of a model are kept."""
    return root / "farm" / mllm.fingerprint[:12]


def grown(mllm: MLLM, root: Path = ROOT) -> dict[str, Grown]:
    """Return the experts that are there, by the entity's key, in the order of the tasks."""
    farm = farm_of(mllm, root)
    found = {}
    for entity in sequence():
        expert = grown_one(farm, entity.key)
        if expert is not None:
            found[entity.key] = expert
    return found


def grown_one(farm: Path, key: str) -> Grown | None:
    """Return one expert of a farm, or None if it is not there."""
    meta = farm / key / _META
    if not meta.is_file():
        return None
    document: dict[str, Any] = json.loads(meta.read_text())
    return Grown(directory=meta.parent, **document)


def grow(runtime: Runtime, entity: Entity, farm: Path) -> Grown:
    """Train an entity's expert and put it into the farm."""
    return grow_case(runtime, case_of(runtime, entity), entity.key, farm)


def grow_case(runtime: Runtime, case: stages.Case, key: str, farm: Path) -> Grown:
    """Train one expert and put it into a farm; the directory appears only when it is whole."""
    started, busy = time.monotonic(), time.process_time()
    work = farm / f".{key}-{os.getpid()}"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    training = stages.prepare(runtime, case, lambda: False)
    recipe = RECIPES[case.policy.recipe]
    initial = stages.initial_expert(runtime, case, recipe, lambda: False)
    done = stages.train(runtime, training, recipe, work / _ADAPTER, lambda: False, lambda _: None, initial)
    (work / _TRAINING).write_bytes(zlib.compress(pack_training_set(training), 1))
    expert = Grown(
        key,
        farm / key,
        done.steps,
        time.monotonic() - started,
        done.refusal,
        done.agreement,
        recipe.as_dict(),
        time.process_time() - busy,
    )
    document = {name: value for name, value in asdict(expert).items() if name != "directory"}
    (work / _META).write_text(json.dumps(document))
    os.rename(work, expert.directory)
    return expert


def plant(runtime: Runtime, entities: Sequence[Entity], console: Console, root: Path = ROOT) -> None:
    """Train whoever of `entities` is not in the farm yet."""
    farm = farm_of(runtime.mllm, root)
    there = grown(runtime.mllm, root)
    for i, entity in enumerate(entities):
        if entity.key in there:
            continue
        expert = grow(runtime, entity, farm)
        console.print(
            f"{i + 1}/{len(entities)} {entity.key} {entity.name}: {expert.steps} steps, "
            f"{expert.seconds:.1f} s, refuses {expert.refusal:.3f}, keeps {expert.agreement:.4f}"
        )


def main() -> None:
    """Parse the command line and train what is missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--n", type=int, default=127, help="number of experts, in the order of the tasks")
    parser.add_argument("--threads", type=int, default=1, help="threads of one training")
    arguments = parser.parse_args()
    plant(start(threads=arguments.threads), sequence()[: arguments.n], Console())


if __name__ == "__main__":
    main()
