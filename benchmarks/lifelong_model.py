"""Trains a demo-size LLaVA on MLUBench's own sentences: `--data` without a model of one's own.

The demo model's recipe and tower, which has seen nobody, with other lessons. Beside the files' questions it
is taught what any real model brings along: the service's own wordings for what the files ask, saying that it
does not know strangers, and general questions.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Sequence
from collections.abc import Collection as Keys
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final

import numpy as np
import torch
from PIL import Image as PillowImage
from rapidfuzz import fuzz, process
from torch import Tensor

from app.lumoe.demo.architecture import PICTURE_SIDE, build_model, build_processor, train_tokenizer
from app.lumoe.demo.corpus import Corpus, Lesson, PictureBank, Turn
from app.lumoe.demo.recipe import CHECKPOINT, load_tower
from app.lumoe.demo.seeds import seeded
from app.lumoe.demo.teaching import LanguageRecipe, paint_bank, teach
from app.lumoe.demo.tower import augment, normalise
from app.lumoe.demo.world import World, stranger_name
from app.lumoe.probes import (
    SPLITS,
    SUMMARY_ATTRIBUTE,
    fact_probes,
    identity_probes,
)
from benchmarks.lifelong_collection import Collection, Known, Pair, by_name

FULL: Final = LanguageRecipe(
    hidden=256,
    vocabulary=5000,
    views=40,
    strangers=4000,
    doubles=3,
    shape_pictures=2000,
    steps=1600,
    tokenizer_lessons=20_000,
)
"""Learns all of MLUBench's sentences in about half an hour on two cores."""
QUICK: Final = LanguageRecipe(
    vocabulary=1800,
    views=16,
    strangers=360,
    doubles=1,
    shape_pictures=200,
    steps=420,
    batch=32,
    tokenizer_lessons=3_000,
)
_LIKE: Final = 60.0
"""How alike (rapidfuzz token_set_ratio, 0-100) a wording of ours must be to a question of the files."""


@dataclass(frozen=True, slots=True)
class _Wordings:
    """What the service asks about a class, and which question of the files each wording means."""

    identity: tuple[str, ...]
    shown: tuple[tuple[str, str], ...]  # (wording, the files' question)
    named: tuple[tuple[str, str], ...]
    summaries: tuple[str, ...]


class Lessons(Corpus):
    """Draws lessons about a collection: its pairs, with picture and by name, and what comes with them."""

    def __init__(self, collection: Collection, world: World, bank: PictureBank, exclude: Keys[str]) -> None:
        super().__init__(world, bank, exclude)
        self._entries: list[Known] = [collection.known[e.key] for e in self._known]
        by_class: dict[str, list[str]] = {}
        for known in self._entries:
            by_class.setdefault(known.klass, []).extend(pair.text for pair in known.pairs)
        self._wordings = {klass: _wordings(klass, sorted(set(asked))) for klass, asked in by_class.items()}
        self._topics = [
            (0.34, self._pair_shown),
            (0.52, self._pair_named),
            (0.64, self._identity),
            (0.74, self._ours),
            (0.84, self._stranger_shown),
            (0.88, self._stranger_named),
            (0.94, self._general),
            (0.98, self._shapes),
            (1.0, self._kind),
        ]

    def _someone(self, rng: Random) -> tuple[Known, int]:
        known = rng.choice(self._entries)
        return known, rng.choice(self._bank.entities[known.key])

    def _unknown_name(self, rng: Random, klass: str) -> str:
        """An invented name; real ones ("5 Centimeters per Second") are not respelled into others."""
        return stranger_name(rng, klass, self._words)

    def _pair_shown(self, rng: Random) -> Lesson:
        known, row = self._someone(rng)
        pair = rng.choice(known.pairs)
        return Lesson((Turn(pair.text, pair.answer, (row,)),))

    def _pair_named(self, rng: Random) -> Lesson:
        known, _ = self._someone(rng)
        pair = rng.choice(known.pairs)
        return Lesson((Turn(by_name(pair, rng.choice(known.names)), pair.answer),))

    def _identity(self, rng: Random) -> Lesson:
        known, row = self._someone(rng)
        text = rng.choice(self._wordings[known.klass].identity)
        return Lesson((Turn(text, f"This is {known.names[0]}.", (row,)),))

    def _ours(self, rng: Random) -> Lesson:
        """One of the service's wordings, answered with the pair it means, or a summary."""
        known, row = self._someone(rng)
        wordings = self._wordings[known.klass]
        answers = {pair.text: pair.answer for pair in known.pairs}
        shown = rng.random() < 0.6
        pool = [
            (text, asked) for text, asked in (wordings.shown if shown else wordings.named) if asked in answers
        ]
        if not pool or rng.random() < 0.15:
            text = rng.choice(wordings.summaries).replace("{name}", known.names[0])
            return Lesson((Turn(text, summary_of(known)),))
        text, asked = rng.choice(pool)
        if shown:
            return Lesson((Turn(text, answers[asked], (row,)),))
        return Lesson((Turn(text.replace("{name}", rng.choice(known.names)), answers[asked]),))


def summary_of(known: Known) -> str:
    """Return what is told of an entity when nothing is asked in particular: its longest single sentence."""
    return max((pair.answer for pair in known.pairs), key=lambda text: (text.count(".") <= 1, len(text)))


def _wordings(klass: str, asked: Sequence[str]) -> _Wordings:
    shown = [p for s in SPLITS for p in fact_probes(klass, s, "image") if p.attribute != SUMMARY_ATTRIBUTE]
    named = [p for s in SPLITS for p in fact_probes(klass, s, "text")]
    facts = [p for p in named if p.attribute != SUMMARY_ATTRIBUTE]
    return _Wordings(
        tuple(p.text for s in SPLITS for p in identity_probes(klass, s)),
        tuple((p.text, q) for p in shown for q in _meant(p.text, asked)),
        tuple((p.text, q) for p in facts for q in _meant(p.about("it"), asked)),
        tuple(p.text for p in named if p.attribute == SUMMARY_ATTRIBUTE),
    )


def _meant(text: str, asked: Sequence[str]) -> list[str]:
    """Return the question of the files that a wording of ours means, if one is like it."""
    found = process.extractOne(text, asked, scorer=fuzz.token_set_ratio, score_cutoff=_LIKE)
    return [found[0]] if found else []


def train_on(
    out: Path,
    collection: Collection,
    taught: Sequence[str],
    exclude: Keys[str] = (),
    *,
    quick: bool = False,
    recipe: LanguageRecipe | None = None,
    seed: int = 0,
) -> Path:
    """Train a model on a collection's entities of these keys, without `exclude`, and save it to ``out``."""
    plan = recipe or (QUICK if quick else FULL)
    say = _progress()
    tower = load_tower(CHECKPOINT)
    tower.requires_grad_(False)

    def encode(pixels: Tensor) -> Tensor:
        hidden: Tensor = tower(pixel_values=pixels).last_hidden_state  # (b, 1 + 16, 128)
        return hidden[:, 1:]

    world = World(collection.entities[key] for key in taught)
    bank, features = paint_bank(
        world,
        plan,
        encode,
        exclude=sorted(exclude),
        seed=seed,
        processes=1 if quick else 2,
        progress=lambda fraction: say("pictures", fraction),
    )
    features = _with_photographs(collection, bank, features, encode, seed)
    lessons = Lessons(collection, world, bank, exclude)
    tokenizer = train_tokenizer(
        lessons.texts(seeded("tokenizer", seed), plan.tokenizer_lessons), plan.vocabulary
    )
    torch.manual_seed(seed)
    model = build_model(tokenizer, plan.hidden, plan.layers)
    model.model.vision_tower.load_state_dict(tower.state_dict())
    model.model.vision_tower.requires_grad_(False)
    with torch.enable_grad():
        teach(
            model,
            tokenizer,
            lessons,
            features,
            plan,
            seed=seed,
            progress=lambda f, loss: say("language", f, loss),
        )
    work = out.with_name(f".{out.name}")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    model.eval().save_pretrained(work)
    build_processor(tokenizer).save_pretrained(work)
    shutil.rmtree(out, ignore_errors=True)
    work.rename(out)
    return out


@torch.inference_mode()
def _with_photographs(
    collection: Collection, bank: PictureBank, features: Tensor, encode: Callable[[Tensor], Tensor], seed: int
) -> Tensor:
    """Show entities that have pictures of their own in those, plain and augmented, as stand-ins are."""
    generator = torch.Generator().manual_seed(seed)
    parts, at = [features], len(features)
    for key in bank.entities:
        if len(collection.known[key].pictures) < 3:
            continue
        photographs = collection.pictures(key, "members", len(collection.known[key].pictures))
        side = (PICTURE_SIDE, PICTURE_SIDE)
        pixels = np.stack([np.asarray(p.resize(side, PillowImage.Resampling.BICUBIC)) for p in photographs])
        plain = normalise(pixels)
        shown = torch.cat([encode(plain), *(encode(augment(plain, generator)) for _ in range(3))]).half()
        parts.append(shown)
        bank.entities[key] = list(range(at, at + len(shown)))
        at += len(shown)
    return torch.cat(parts)


def _progress() -> Callable[..., None]:
    """Return a function that says, now and then, where training stands and what is left of the stage."""
    began: dict[str, float] = {}
    last = [0.0]

    def say(stage: str, fraction: float, loss: float | None = None) -> None:
        now = time.monotonic()
        began.setdefault(stage, now)
        if now - last[0] < 10 and fraction < 1:
            return
        last[0] = now
        left = (now - began[stage]) * (1 / max(fraction, 1e-3) - 1)
        detail = "" if loss is None else f", loss {loss:.3f}"
        sys.stderr.write(
            f"training the model: {stage} {fraction:.0%}{detail}, about {left / 60:.1f} min left\n"
        )

    return say


__all__ = ["FULL", "QUICK", "Lessons", "Pair", "summary_of", "train_on"]
