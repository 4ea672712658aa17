"""The initial expert: where every request's adapter starts, so that it needs a few steps instead of dozens.

It is trained once per base model, by refusing practice subjects one after another and moving a share of the
way to each result (Reptile; Nichol, Achiam and Schulman 2018, arXiv 1803.02999). Practice subjects come from
the cohort: they are kept. It never sees a request, so a revocation or an erasure leaves nothing in it; if
somebody it was practised on is to be forgotten, it is made again without them.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import logging
import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save_file
from torch import Tensor

from app.kit.errors import ConfigurationError
from app.lumoe.demo.world import CHECKPOINT
from app.lumoe.expertfiles import describe, flush
from app.lumoe.mllm import MLLM
from workers.forgetset.build import TrainingSet, build
from workers.forgetset.cohort import Cohort, Other
from workers.forgetset.elicit import Target
from workers.forgetset.refusals import stable_hash
from workers.training.recipe import RECIPES, Recipe
from workers.training.rows import make_rows
from workers.training.train import Run, base_distributions, put_weights, read_weights, training_adapter
from workers.verification.metrics.text import norm

log = logging.getLogger(__name__)

FORMAT = 1
PICTURES = 6
SHIPPED = CHECKPOINT.parent / "initial"
"""The demo model's own, by recipe."""
_WEIGHTS, _MANIFEST = "initial.safetensors", "manifest.json"


class InitialCorruptError(Exception):
    """An initial expert's files are not what its manifest says."""


@dataclass(frozen=True, slots=True)
class InitialExpert:
    """An adapter's weights to start from, by layer and side; see the module's docstring.

    ``sha256`` is that of the weights' file; ``practised_on`` holds the SHA-256 of every practice subject's
    canonical names; ``seconds`` is what making it took.
    """

    sha256: str
    weights: Mapping[str, Tensor]
    practised_on: frozenset[str]
    seconds: float

    def knows(self, names: Iterable[str]) -> bool:
        """Say whether somebody of these names was practised on."""
        return not self.practised_on.isdisjoint(hashed(names))


def find_initial(
    mllm: MLLM,
    recipe: Recipe,
    cohort: Callable[[Sequence[str]], Cohort],
    root: Path,
    *,
    exclude: Sequence[str],
    cancelled: Callable[[], bool] = lambda: False,
) -> InitialExpert:
    """Return the initial expert of a model and recipe, shipped or below ``root``; make it if need be.

    One that was practised on somebody bearing a name in ``exclude``, the subjects of this and of earlier
    requests, is not used: another is made without them in its place. So is one whose files are not whole.

    Raises:
        CancelledError: ``cancelled`` said so while it was made.
        ConfigurationError: There is no retain data, or nobody in it to practise on.
    """
    own = root / mllm.fingerprint[:16] / recipe.initial_name
    for folder in (SHIPPED / recipe.initial_name, own):
        if folder.is_dir():
            try:
                found = load_initial(folder, mllm)
            except InitialCorruptError as error:
                log.warning("%s", error)
                continue
            if not found.knows(exclude):
                return found
    while True:  # a worker that was quicker may have practised on whom this request is about
        if own.exists():
            shutil.rmtree(own, ignore_errors=True)
        made = make_initial(mllm, recipe, cohort, own, exclude=exclude, cancelled=cancelled)
        if not made.knows(exclude):
            return made


def hashed(names: Iterable[str]) -> set[str]:
    """Return the SHA-256 of every name in its canonical form, in hexadecimal digits."""
    return {hashlib.sha256(norm(name).encode()).hexdigest() for name in names if norm(name)}


def make_initial(
    mllm: MLLM,
    recipe: Recipe,
    cohort: Callable[[Sequence[str]], Cohort],
    folder: Path,
    *,
    exclude: Sequence[str] = (),
    cancelled: Callable[[], bool] = lambda: False,
) -> InitialExpert:
    """Practise, and write the initial expert to ``folder``, which appears only when it is whole.

    ``cohort`` returns everybody but the bearers of some names. Nobody bearing a name in ``exclude`` is
    practised on. If another process was quicker, its result is taken.

    Raises:
        CancelledError: ``cancelled`` said so; nothing is written.
        ConfigurationError: There is no retain data, or nobody in it to practise on.
    """
    started = time.monotonic()
    subjects = practice_subjects(cohort(exclude), recipe.practice_subjects)
    if not subjects:
        raise ConfigurationError(
            "LETHE_RETAIN_DATA: there is nobody to practise on who may be shown in a picture; add entities "
            "with pictures, or choose LETHE_RECIPE=cold"
        )
    lessons = [_lesson(mllm, other, cohort, exclude, cancelled) for other in subjects]
    weights, steps = _practise(mllm, lessons, recipe, cancelled)
    names = sorted(hashed(name for other in subjects for name in other.names))
    made = {"steps": steps, "seconds": round(time.monotonic() - started, 3), "practised_on": names}
    log.info("initial expert: %d subjects, %d steps, %.1f s", len(subjects), steps, made["seconds"])
    _write(folder, weights, made | {"model_fingerprint": mllm.fingerprint, "practice": recipe.practice})
    return load_initial(folder, mllm)


def practice_subjects(cohort: Cohort, n: int) -> list[Other]:
    """Return n others to practise on, classes in turn; who has no picture of the fit split is passed over."""
    by_class: dict[str, list[Other]] = {}
    for other in sorted(cohort.practice(), key=lambda other: (stable_hash("practice", other.key), other.key)):
        by_class.setdefault(other.klass, []).append(other)
    turns = itertools.zip_longest(*(by_class[klass] for klass in sorted(by_class)))
    shown = (other for turn in turns for other in turn if other and cohort.pictures(other, "fit", 1))
    return list(itertools.islice(shown, n))


def _lesson(
    mllm: MLLM,
    other: Other,
    cohort: Callable[[Sequence[str]], Cohort],
    exclude: Sequence[str],
    cancelled: Callable[[], bool],
) -> TrainingSet:
    """Return the training set of a request about somebody who is kept."""
    return build(
        mllm,
        Target(other.names, other.klass),
        cohort(exclude).pictures(other, "fit", PICTURES),
        cohort((*other.names, *exclude)),
        exclude=exclude,
        seed=stable_hash("practice", other.key) % 2**31,
        cancelled=cancelled,
    )


def _practise(
    mllm: MLLM, lessons: Sequence[TrainingSet], recipe: Recipe, cancelled: Callable[[], bool]
) -> tuple[dict[str, Tensor], int]:
    """Return the initial weights and how many steps they took: Reptile, in ``practice_rounds`` rounds.

    After a lesson of ``practice_steps`` steps from w to w', w moves by share * (w' - w); the share falls
    linearly from ``practice_share`` to nothing, so that the end is a mean of many lessons.
    """
    sets = [(make_rows(mllm, s.pairs(s.forget)), make_rows(mllm, s.pairs(s.retain))) for s in lessons]
    rng = random.Random(0)  # noqa: S311 - order of lessons, not secrecy
    order = [k for _ in range(recipe.practice_rounds) for k in rng.sample(range(len(sets)), len(sets))]
    steps = 0
    with training_adapter(mllm, replace(recipe, seed=0)) as model:  # the same for every request
        taught = [(forget, retain, base_distributions(mllm, retain, model)) for forget, retain in sets]
        weights = read_weights(model)
        for turn, k in enumerate(order):
            put_weights(model, weights)
            run = Run(mllm, model, *taught[k], recipe.lesson(seed=turn))
            run.train(cancelled, lambda _: None)
            steps += run.steps
            share = recipe.practice_share * (1 - turn / len(order))
            for name, value in read_weights(model).items():
                weights[name].lerp_(value, share)
    return weights, steps


def _write(folder: Path, weights: Mapping[str, Tensor], manifest: dict[str, Any]) -> None:
    """Write weights and manifest beside ``folder``, flush, rename; who finds it there keeps what is there."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=".writing-", dir=folder.parent))
    try:
        save_file({name: value.to(torch.bfloat16) for name, value in weights.items()}, work / _WEIGHTS)
        content = (work / _WEIGHTS).read_bytes()
        document = {"format": FORMAT, **manifest, "files": {_WEIGHTS: describe(content)}}
        (work / _MANIFEST).write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")
        for file in work.iterdir():
            flush(file)
        with suppress(OSError):  # another process was quicker: a directory that is not empty stays
            os.rename(work, folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def load_initial(folder: Path, mllm: MLLM) -> InitialExpert:
    """Read an initial expert, checking it against its manifest and the model it was made for.

    Raises:
        InitialCorruptError: A file is missing, changed, or another model's; the message says what to do.
    """
    try:
        manifest: dict[str, Any] = json.loads((folder / _MANIFEST).read_bytes())
        content = (folder / _WEIGHTS).read_bytes()
        sha256 = hashlib.sha256(content).hexdigest()
        whole = sha256 == manifest["files"][_WEIGHTS]["sha256"]
        if not whole or manifest["format"] != FORMAT or manifest["model_fingerprint"] != mllm.fingerprint:
            raise InitialCorruptError(
                f"{folder}: the initial expert was changed or is another model's; delete the directory, and "
                "it is made again"
            )
        weights = {name: value.float() for name, value in load_tensors(content).items()}
        return InitialExpert(sha256, weights, frozenset(manifest["practised_on"]), float(manifest["seconds"]))
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise InitialCorruptError(
            f"{folder}: the initial expert cannot be read ({type(error).__name__}); delete the directory, "
            "and it is made again"
        ) from error


def main() -> None:
    """Make the initial expert of LETHE_MODEL and LETHE_RECIPE before the first request does."""
    from app.settings import load_settings
    from workers.runtime import Runtime  # which imports this module

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--folder", type=Path, help="write it here, not below the experts directory")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    runtime = Runtime.start(load_settings())
    recipe = RECIPES[runtime.settings.recipe]
    if not recipe.warm:
        raise SystemExit(f"LETHE_RECIPE={runtime.settings.recipe} starts cold: it has no initial expert")
    if arguments.folder is None:
        made = runtime.initial_expert(recipe, ())
    else:
        made = make_initial(runtime.mllm, recipe, runtime.cohort, arguments.folder / recipe.initial_name)
    log.info("initial expert %s (%.1f s to make)", made.sha256[:12], made.seconds)


if __name__ == "__main__":
    main()
