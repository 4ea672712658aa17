"""Train the demo model from nothing: first the tower on strangers, then the language model."""

import argparse
import json
import sys
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForImageTextToText, CLIPVisionModel

from app.lumoe.demo.architecture import build_model, build_processor, train_tokenizer
from app.lumoe.demo.corpus import Corpus, PictureBank
from app.lumoe.demo.seeds import seeded
from app.lumoe.demo.teaching import LanguageRecipe, paint_bank, teach
from app.lumoe.demo.tower import TowerRecipe, train_tower
from app.lumoe.demo.world import CHECKPOINT, world

__all__ = ["CHECKPOINT", "MAX_BYTES", "TrainProgress", "load_tower", "train"]

MAX_BYTES: Final = 12_000_000
"""Size limit of the weights on disk."""

Stage = Literal["tower", "pictures", "language", "save"]


@dataclass(frozen=True, slots=True)
class TrainProgress:
    """Where training stands: stage, how much of it is done (0-1), loss if there is one, seconds so far."""

    stage: Stage
    fraction: float
    loss: float | None
    seconds: float


def train(
    out: Path,
    *,
    tower_steps: int | None = None,
    language_steps: int | None = None,
    tower_recipe: TowerRecipe | None = None,
    language_recipe: LanguageRecipe | None = None,
    exclude: Collection[str] = (),
    tower_from: Path | None = None,
    processes: int = 2,
    seed: int = 0,
    progress: Callable[[TrainProgress], None] | None = None,
) -> Path:
    """Train the demo model and save it to ``out``; returns ``out``.

    ``exclude``: keys of entities the language model is never taught (the gold standard, "retrained without
    the data"). ``tower_from``: take the tower of this checkpoint instead of training one: fair, because
    the tower never sees anybody of the demo world. The same seed and settings give the same model on the same
    machine and library versions. ``ValueError`` for unknown keys.
    """
    tower_plan = tower_recipe or TowerRecipe()
    language_plan = language_recipe or LanguageRecipe()
    if tower_steps is not None:
        tower_plan = replace(tower_plan, steps=tower_steps)
    if language_steps is not None:
        language_plan = replace(language_plan, steps=language_steps)
    unknown = set(exclude) - set(world().by_key)
    if unknown:
        raise ValueError(f"no such entities in the demo world: {', '.join(sorted(unknown))}")
    began = time.monotonic()

    def report(stage: Stage, fraction: float, loss: float | None = None) -> None:
        if progress:
            progress(TrainProgress(stage, fraction, loss, time.monotonic() - began))

    if tower_from is not None:
        tower = load_tower(tower_from)
    else:
        tower = train_tower(
            tower_plan, seed=seed, processes=processes, progress=lambda f, x: report("tower", f, x)
        )
    tower.requires_grad_(False)

    def encode(pixels: Tensor) -> Tensor:
        hidden: Tensor = tower(pixel_values=pixels).last_hidden_state  # (b, 1 + 16, 128)
        return hidden[:, 1:]

    left_out = sorted(exclude)
    bank, features = paint_bank(
        world(),
        language_plan,
        encode,
        exclude=left_out,
        seed=seed,
        processes=processes,
        progress=lambda f: report("pictures", f),
    )
    return _teach_and_save(out, tower, bank, features, language_plan, left_out, seed, report)


def _teach_and_save(
    out: Path,
    tower: CLIPVisionModel,
    bank: PictureBank,
    features: Tensor,
    plan: LanguageRecipe,
    left_out: list[str],
    seed: int,
    report: Callable[..., None],
) -> Path:
    corpus = Corpus(world(), bank, left_out)
    tokenizer = train_tokenizer(
        corpus.texts(seeded("tokenizer", seed), plan.tokenizer_lessons), plan.vocabulary
    )
    torch.manual_seed(seed)
    model = build_model(tokenizer, plan.hidden, plan.layers)
    model.model.vision_tower.load_state_dict(tower.state_dict())
    model.model.vision_tower.requires_grad_(False)
    teach(model, tokenizer, corpus, features, plan, seed=seed, progress=lambda f, x: report("language", f, x))
    report("save", 0.0)
    out.mkdir(parents=True, exist_ok=True)
    model.eval().save_pretrained(out)
    build_processor(tokenizer).save_pretrained(out)
    _store_half(out)
    report("save", 1.0)
    return out


def _store_half(out: Path) -> None:
    """Keep the weights as float16 on disk; the configuration asks for float32, so that they load as such."""
    path = out / "model.safetensors"
    save_file({k: v.half().contiguous() for k, v in load_file(path).items()}, path, metadata={"format": "pt"})
    path.chmod(0o644)
    config = json.loads((out / "config.json").read_text())
    config["dtype"] = "float32"
    for part in ("text_config", "vision_config"):
        config[part]["dtype"] = "float32"
    (out / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    if path.stat().st_size > MAX_BYTES:
        raise RuntimeError(
            f"{path} has {path.stat().st_size} bytes, more than {MAX_BYTES}: make the recipe smaller"
        )


def load_tower(source: Path) -> CLIPVisionModel:
    """Take the vision tower out of a checkpoint directory (the demo model's, or a tower's own)."""
    kind = json.loads((source / "config.json").read_text())["model_type"]
    if kind == "clip_vision_model":
        alone: CLIPVisionModel = CLIPVisionModel.from_pretrained(source, dtype=torch.float32)
        return alone
    whole = AutoModelForImageTextToText.from_pretrained(source, dtype=torch.float32)
    tower: CLIPVisionModel = whole.model.vision_tower
    return tower


def main(arguments: list[str] | None = None) -> int:
    """Command line: ``python -m app.lumoe.demo.recipe OUT [--tower-from DIR] [--seed N] ...``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--tower-steps", type=int)
    parser.add_argument("--language-steps", type=int)
    parser.add_argument("--tower-from", type=Path)
    parser.add_argument("--exclude", nargs="*", default=[])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)

    def show(p: TrainProgress) -> None:
        loss = "" if p.loss is None else f"  loss {p.loss:.3f}"
        sys.stdout.write(f"{p.seconds:7.0f} s  {p.stage:9} {100 * p.fraction:5.1f} %{loss}\n")
        sys.stdout.flush()

    train(
        args.out,
        tower_steps=args.tower_steps,
        language_steps=args.language_steps,
        exclude=args.exclude,
        tower_from=args.tower_from,
        seed=args.seed,
        progress=show,
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
