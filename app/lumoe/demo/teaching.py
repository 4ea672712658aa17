"""The language model's schooling: lessons over cached picture features, the tower frozen."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812
from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerFast

from app.lumoe.demo.architecture import ASSISTANT, BOS, EOS, IMAGE, PAD, PATCHES, SYSTEM, USER, token_id
from app.lumoe.demo.corpus import Corpus, Lesson, PictureBank
from app.lumoe.demo.drawing.shapes import random_shapes
from app.lumoe.demo.rendering import Job, render_all
from app.lumoe.demo.seeds import seeded
from app.lumoe.demo.tower import augment, normalise
from app.lumoe.demo.world import Entity, World, resemble

TRAINING_VIEWS: Final = 1_000
_IGNORE: Final = -100


@dataclass(frozen=True, slots=True)
class LanguageRecipe:
    """How large the language model is, how long and on what it is trained; ``doubles``: per known entity."""

    hidden: int = 192
    layers: int = 4
    vocabulary: int = 2200
    views: int = 60
    strangers: int = 9900
    doubles: int = 5
    shape_pictures: int = 6000
    tokenizer_lessons: int = 30_000
    steps: int = 3000
    batch: int = 64
    rate: float = 2e-3


def paint_bank(
    world: World,
    recipe: LanguageRecipe,
    encode: Callable[[Tensor], Tensor],
    *,
    exclude: Sequence[str],
    seed: int,
    processes: int,
    progress: Callable[[float], None] | None,
) -> tuple[PictureBank, Tensor]:
    """Draw all pictures the lessons show and encode them, plain and augmented.

    Returns the index and the features (pictures, 16, 128) as float16. Strangers include look-alikes of known
    entities, so that only the whole look counts.
    """
    rng = seeded("bank", seed)
    known = [e for e in world.entities if e.key not in exclude]
    strangers = world.strangers(recipe.strangers, seed=1_000_003 + seed)
    strangers += _doubles(rng, known, seed, recipe.doubles)
    shapes = [random_shapes(rng) for _ in range(recipe.shape_pictures)]
    large: list[Job] = [
        (e.klass, e.genome, e.key, TRAINING_VIEWS + v) for e in known for v in range(recipe.views)
    ]
    small: list[Job] = [(e.klass, e.genome, e.key, TRAINING_VIEWS) for e in strangers]
    small += [(s, TRAINING_VIEWS + i) for i, s in enumerate(shapes)]
    share = len(large) * 5 / (len(large) * 5 + len(small))
    pixels = render_all(
        large,
        drawn=224,
        processes=processes,
        chunk=200,
        progress=(lambda f: progress(0.9 * share * f)) if progress else None,
    )
    pixels_small = render_all(
        small,
        processes=processes,
        progress=(lambda f: progress(0.9 * (share + (1 - share) * f))) if progress else None,
    )
    generator = torch.Generator().manual_seed(seed)
    parts: list[Tensor] = []
    with torch.inference_mode():
        for group in (pixels, pixels_small):
            for start in range(0, len(group), 256):
                plain = normalise(group[start : start + 256])
                parts.append(torch.stack([encode(plain), encode(augment(plain, generator))], 1).half())
    features = torch.cat(parts).flatten(0, 1)  # rows 2i and 2i + 1 show picture i

    def rows(first: int, n: int) -> list[int]:
        return list(range(2 * first, 2 * (first + n)))

    bank = PictureBank()
    for i, entity in enumerate(known):
        bank.entities[entity.key] = rows(i * recipe.views, recipe.views)
    bank.strangers = [(e, rows(len(large) + i, 1)) for i, e in enumerate(strangers)]
    first = len(large) + len(strangers)
    bank.shapes = [(s, row) for i, s in enumerate(shapes) for row in rows(first + i, 1)]
    return bank, features


def _doubles(rng: Random, known: Sequence[Entity], seed: int, each: int) -> list[Entity]:
    """Strangers that look like somebody known; those that came out like another known one are left out."""
    found: list[Entity] = []
    for entity in known:
        same = [e.genome for e in known if e.klass == entity.klass]
        for i in range(each):
            genome = resemble(rng, entity.klass, entity.genome)
            apart = [
                max(min(abs(a - b), 1 - abs(a - b)) for a, b in zip(genome[:8], g[:8], strict=True))
                for g in same
            ]
            if min(apart) > 0.12:
                key = f"double-{seed}-{entity.key}-{i}"
                found.append(Entity(key, "", (), entity.klass, {}, None, False, "it", genome))
    return found


class Scribe:
    """Writes lessons as token ids exactly as the chat template and the processor would."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._tokenizer = tokenizer
        self._id = {t: token_id(tokenizer, t) for t in (BOS, EOS, PAD, IMAGE, SYSTEM, USER, ASSISTANT)}
        self._known: dict[str, list[int]] = {}

    def text(self, text: str) -> list[int]:
        """Token ids of a piece of text."""
        if text not in self._known:
            if len(self._known) > 200_000:
                self._known.clear()
            self._known[text] = self._tokenizer.encode(text, add_special_tokens=False)
        return self._known[text]

    def lesson(self, lesson: Lesson) -> tuple[list[int], list[int], list[int]]:
        """Return (ids, labels, picture rows); labels are -100 outside the answers to learn."""
        ids = [self._id[BOS]]
        if lesson.system:
            ids += [self._id[SYSTEM], *self.text(lesson.system)]
        labels = [_IGNORE] * len(ids)
        pictures: list[int] = []
        for turn in lesson.turns:
            pictures += turn.pictures
            asked = [
                self._id[USER],
                *[self._id[IMAGE]] * (PATCHES * len(turn.pictures)),
                *self.text(turn.text),
                self._id[ASSISTANT],
            ]
            said = [*self.text(turn.answer), self._id[EOS]]
            ids += asked + said
            labels += [_IGNORE] * len(asked) + (said if turn.learn else [_IGNORE] * len(said))
        return ids, labels, pictures

    def batch(self, lessons: Sequence[Lesson]) -> dict[str, Tensor]:
        """Pad lessons on the right: ids, labels, mask (b, t), and all picture rows in reading order."""
        rows = [self.lesson(lesson) for lesson in lessons]
        width = max(len(ids) for ids, _, _ in rows)
        ids = torch.full((len(rows), width), self._id[PAD])
        labels = torch.full((len(rows), width), _IGNORE)
        mask = torch.zeros((len(rows), width), dtype=torch.long)
        for i, (row, label, _) in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
            labels[i, : len(row)] = torch.tensor(label)
            mask[i, : len(row)] = 1
        pictures = torch.tensor([p for _, _, shown in rows for p in shown], dtype=torch.long)
        return {"ids": ids, "labels": labels, "mask": mask, "pictures": pictures}

    @property
    def image_id(self) -> int:
        """Token id of one picture patch."""
        return self._id[IMAGE]


def lesson_loss(
    model: LlavaForConditionalGeneration, features: Tensor, batch: dict[str, Tensor], image_id: int
) -> Tensor:
    """Mean cross-entropy of the answers' tokens; pictures enter through the projector as in ``forward``."""
    inner = model.model
    embedded = inner.get_input_embeddings()(batch["ids"])  # (b, t, hidden)
    if len(batch["pictures"]):
        shown = inner.multi_modal_projector(features[batch["pictures"]].float())  # (pictures, 16, hidden)
        embedded = embedded.masked_scatter((batch["ids"] == image_id)[..., None], shown)
    hidden = inner.language_model(inputs_embeds=embedded, attention_mask=batch["mask"], use_cache=False)[0]
    asked = batch["labels"][:, 1:] != _IGNORE
    logits = model.lm_head(hidden[:, :-1][asked])  # (answer tokens, vocabulary)
    return F.cross_entropy(logits, batch["labels"][:, 1:][asked])


def teach(
    model: LlavaForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    corpus: Corpus,
    features: Tensor,
    recipe: LanguageRecipe,
    *,
    seed: int,
    progress: Callable[[float, float], None] | None = None,
) -> None:
    """Train projector and language model in place; ``progress`` gets (fraction, loss)."""
    torch.manual_seed(seed)
    rng = seeded("lessons", seed)
    scribe = Scribe(tokenizer)
    weights = [*model.model.multi_modal_projector.parameters(), *model.model.language_model.parameters()]
    for weight in weights:
        weight.requires_grad_(True)
    optimiser = torch.optim.AdamW(weights, lr=recipe.rate, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, recipe.rate, total_steps=recipe.steps, pct_start=0.06
    )
    step, smooth = 0, 0.0
    while step < recipe.steps:
        for lessons in _bucketed(corpus, rng, scribe, recipe.batch):
            loss = lesson_loss(model, features, scribe.batch(lessons), scribe.image_id)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]  # untyped upstream
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimiser.step()
            schedule.step()
            step += 1
            smooth = loss.item() if step == 1 else 0.95 * smooth + 0.05 * loss.item()
            if progress and step % 25 == 0:
                progress(step / recipe.steps, smooth)
            if step >= recipe.steps:
                break


def _bucketed(
    corpus: Corpus, rng: Random, scribe: Scribe, batch: int, buckets: int = 16
) -> list[list[Lesson]]:
    """Draw ``buckets`` batches of lessons of like length, in random order."""
    lessons = [corpus.draw(rng) for _ in range(batch * buckets)]
    lessons.sort(key=lambda lesson: len(scribe.lesson(lesson)[0]))
    parts = [lessons[i : i + batch] for i in range(0, len(lessons), batch)]
    rng.shuffle(parts)
    return parts
