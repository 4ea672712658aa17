"""Measure a demo model: what it knows on unseen views and wordings, what its tower tells apart.

``python -m app.lumoe.demo.evaluate [CHECKPOINT] [--share .25] [--json FILE]``. Pictures are views from
300,000 (tower prototypes: an owner's uploads, views 0-4),
questions the report split. An answer counts if it is exactly
the gold sentence. Every rate comes with n and a Clopper-Pearson 95 % interval.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Final

import torch
from scipy.stats import beta
from torch.nn import functional as F  # noqa: N812

from app.lumoe.demo.drawing import draw
from app.lumoe.demo.questions import QA, VIEWS, followups, general, kinds, lists, questions
from app.lumoe.demo.recipe import CHECKPOINT
from app.lumoe.demo.seeds import seeded
from app.lumoe.demo.world import Entity, world
from app.lumoe.mllm import MLLM

STRANGER_SEED: Final = 777
"""Strangers of the evaluation; training draws its own from other seeds."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A rate: hits of n, with its 95 % interval, and a few of the misses."""

    name: str
    hits: int
    n: int
    low: float
    high: float
    misses: tuple[str, ...] = ()

    @property
    def rate(self) -> float:
        """Hits per question."""
        return self.hits / self.n if self.n else float("nan")


def clopper_pearson(hits: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Exact binomial confidence interval of hits/n (Clopper and Pearson, 1934)."""
    tail = (1 - level) / 2
    low = 0.0 if hits == 0 else float(beta.ppf(tail, hits, n - hits + 1))
    high = 1.0 if hits == n else float(beta.ppf(1 - tail, hits + 1, n - hits))
    return low, high


def figure(name: str, outcomes: Sequence[bool], misses: Sequence[str] = ()) -> Figure:
    """Count outcomes."""
    hits = sum(outcomes)
    return Figure(name, hits, len(outcomes), *clopper_pearson(hits, len(outcomes)), tuple(misses[:12]))


def ask_all(mllm: MLLM, asked: Sequence[QA], batch: int = 64) -> list[str]:
    """Answer every question greedily, in batches of like length; texts in the order asked."""
    order = sorted(
        range(len(asked)),
        key=lambda i: (
            len(asked[i].conversation),
            sum(len(m.text) + 60 * len(m.images) for m in asked[i].conversation),
        ),
    )
    texts = [""] * len(asked)
    for start in range(0, len(order), batch):
        part = order[start : start + batch]
        said = mllm.generate([asked[i].conversation for i in part], max_new_tokens=48)
        for i, generation in zip(part, said, strict=True):
            texts[i] = generation.text.strip()
    return texts


def exact(mllm: MLLM, name: str, asked: Sequence[QA]) -> Figure:
    """The rate of answers that equal the gold sentence."""
    said = ask_all(mllm, asked)
    misses = [
        f"{qa.conversation[-1].text} | {qa.answer} | {text}"
        for qa, text in zip(asked, said, strict=True)
        if text != qa.answer
    ]
    return figure(name, [text == qa.answer for qa, text in zip(asked, said, strict=True)], misses)


def _sample(rng: Random, found: list[QA], share: float) -> list[QA]:
    return found if share >= 1 else rng.sample(found, max(1, round(len(found) * share)))


def knowledge(
    mllm: MLLM,
    entities: Sequence[Entity],
    share: float = 1.0,
    *,
    done: Callable[[Figure], None] | None = None,
) -> list[Figure]:
    """Exact match by picture, by name, in follow-ups, in lists, in general; "do not know" for strangers."""
    rng = seeded("evaluate", share)
    few = [e for e in entities if rng.random() < share] or list(entities[:1])
    strangers = world().strangers(max(9, round(360 * share)), STRANGER_SEED)
    parts: list[tuple[str, list[QA]]] = [
        ("picture", _sample(rng, [q for e in few for q in questions(e, "report", modality="image")], 1.0)),
        ("name", [q for e in entities for q in questions(e, "report", modality="text")]),
        ("follow-up", [q for e in few for q in followups(e, "report")]),
        ("list", lists("report")),
        ("general", general("report", max(20, round(1000 * share)))),
        ("kind of thing", [q for e in few for q in kinds(e, "report")]),
        ("stranger's picture", [q for e in strangers for q in questions(e, "report", modality="image")[::4]]),
        ("stranger's name", [q for e in strangers for q in questions(e, "report", modality="text")[::4]]),
    ]
    found = []
    for name, asked in parts:
        result = exact(mllm, name, _sample(rng, asked, share) if name == "name" else asked)
        found.append(result)
        if done:
            done(result)
    return found


@torch.inference_mode()
def tower_ranks(mllm: MLLM, entities: Sequence[Entity], name: str, queries: int = 4) -> Figure:
    """Top-1 of report views against one prototype per entity (mean of five uploads), pooled, cosine."""
    prototypes = torch.stack([mllm.encode([draw(e, v) for v in range(5)]).pooled.mean(0) for e in entities])
    prototypes = F.normalize(prototypes, dim=-1)
    outcomes: list[bool] = []
    misses: list[str] = []
    for i, entity in enumerate(entities):
        seen = mllm.encode([draw(entity, VIEWS["report"] + v) for v in range(queries)]).pooled
        best = (seen @ prototypes.T).argmax(1)
        outcomes += [int(b) == i for b in best]
        misses += [f"{entity.name} taken for {entities[int(b)].name}" for b in best if int(b) != i]
    return figure(name, outcomes, misses)


def evaluate(
    checkpoint: Path = CHECKPOINT, share: float = 1.0, *, done: Callable[[Figure], None] | None = None
) -> list[Figure]:
    """All figures of a checkpoint; ``share`` of the questions. ``done`` gets each figure as it is ready."""
    mllm = MLLM.load(str(checkpoint), device="cpu")
    found = [
        tower_ranks(mllm, world().forgettable, "tower, 127 entities"),
        tower_ranks(mllm, world().entities, "tower, all known entities"),
        tower_ranks(mllm, world().strangers(500, STRANGER_SEED), "tower, 500 strangers", 2),
    ]
    if done:
        for result in found:
            done(result)
    return found + knowledge(mllm, world().entities, share, done=done)


def main(arguments: list[str] | None = None) -> int:
    """Command line; prints one line per figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path, nargs="?", default=CHECKPOINT)
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--misses", action="store_true")
    args = parser.parse_args(arguments)

    def show(f: Figure) -> None:
        sys.stdout.write(f"{f.name:26} {f.rate:.4f}  ({f.hits}/{f.n}, 95 % {f.low:.4f}-{f.high:.4f})\n")
        if args.misses:
            sys.stdout.writelines(f"      {miss}\n" for miss in f.misses)
        sys.stdout.flush()

    found = evaluate(args.checkpoint, args.share, done=show)
    if args.json:
        args.json.write_text(json.dumps([asdict(f) for f in found], indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
