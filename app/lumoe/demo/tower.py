"""The vision tower's schooling: tell thousands of drawn strangers apart, none of whom is in the demo world.

A tower that has only seen the demo world's own entities is no feature extractor for anybody else. This one
learns identities of freshly drawn strangers (a third of them look-alikes of another) with a cosine softmax
with margin (CosFace, arXiv 1801.09414: margin .2, scale 20),
on the pooled token and on the mean of the patch tokens.
Further heads ask the patch tokens for class, genes, and for form, colour and number of drawn shapes, so
that what the language model gets to see carries them. The heads are thrown away.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from transformers import CLIPVisionModel

from app.lumoe.demo.architecture import TOWER_WIDTH, vision_config
from app.lumoe.demo.drawing.shapes import COLOURS, SHAPES, random_shapes
from app.lumoe.demo.rendering import Job, render_all
from app.lumoe.demo.seeds import seeded
from app.lumoe.demo.world import GENES, Genome, random_genome
from app.lumoe.probes import CLASSES

MARGIN: Final = 0.2
SCALE: Final = 20.0


@dataclass(frozen=True, slots=True)
class TowerRecipe:
    """How long and on how much the tower is trained."""

    identities: int = 3600
    views: int = 20
    shape_pictures: int = 6000
    steps: int = 4500
    batch: int = 128
    rate: float = 1.2e-3


class Heads(nn.Module):
    """What the tower is asked during its schooling. ``pooled`` (b, 128), ``patches`` (b, 16, 128)."""

    def __init__(self, identities: int) -> None:
        super().__init__()
        width = TOWER_WIDTH
        self.pooled_identity = nn.Parameter(torch.randn(identities, width) * 0.05)
        self.patch_identity = nn.Parameter(torch.randn(identities, width) * 0.05)
        self.norm = nn.LayerNorm(width)
        self.patch_projection = nn.Linear(width, width)
        self.klass = nn.Linear(width, len(CLASSES) + 1)
        self.genes = nn.Sequential(nn.Linear(width, 256), nn.GELU(), nn.Linear(256, len(CLASSES) * GENES))
        self.shape = nn.Linear(width, len(SHAPES))
        self.colour = nn.Linear(width, len(COLOURS))
        self.count = nn.Linear(width, 5)

    def identity_loss(self, pooled: Tensor, patches: Tensor, identity: Tensor) -> Tensor:
        """Cosine softmax with margin, on both views of a picture."""
        mean = self.patch_projection(self.norm(patches).mean(1))
        losses = []
        for features, prototypes in ((pooled, self.pooled_identity), (mean, self.patch_identity)):
            cosine = F.normalize(features, dim=-1) @ F.normalize(prototypes, dim=-1).T  # (b, identities)
            margin = F.one_hot(identity, cosine.shape[1]) * MARGIN
            losses.append(F.cross_entropy(SCALE * (cosine - margin), identity))
        return losses[0] + losses[1]


def augment(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Move, turn, scale, mirror, relight and blur pictures (b, 3, 64, 64) in [-1, 1], each its own way."""
    b = pixels.shape[0]

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(b, *shape, generator=generator) * (high - low) + low

    angle, scale = uniform(-0.12, 0.12), uniform(0.88, 1.16)
    mirror = torch.where(uniform(0, 1) < 0.3, -1.0, 1.0)
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    theta = torch.stack(
        [
            torch.stack([cos * mirror, -sin, uniform(-0.1, 0.1)], 1),
            torch.stack([sin * mirror, cos, uniform(-0.1, 0.1)], 1),
        ],
        1,
    )
    grid = F.affine_grid(theta, list(pixels.shape), align_corners=False)
    moved = F.grid_sample(pixels, grid, padding_mode="border", align_corners=False)
    lit = moved * uniform(0.8, 1.15, 1, 1, 1) + uniform(-0.12, 0.12, 3, 1, 1)
    blurred = F.interpolate(F.avg_pool2d(lit, 2), scale_factor=2.0, mode="bilinear")
    lit = torch.where(uniform(0, 1, 1, 1, 1) < 0.12, blurred, lit)
    return (lit + torch.randn(lit.shape, generator=generator) * uniform(0, 0.06, 1, 1, 1)).clamp(-1.1, 1.1)


def normalise(pixels: np.ndarray) -> Tensor:
    """Bytes (b, 64, 64, 3) to what the processor gives the model: (b, 3, 64, 64) in [-1, 1]."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1.0


@dataclass(frozen=True, slots=True)
class _School:
    """All pictures with what is asked about them: strangers first, then shapes."""

    pixels: np.ndarray
    identity: Tensor
    klass: Tensor
    genes: Tensor
    shapes: Tensor  # (shape pictures, 3): form, colour, count - 1
    strangers: int


def _double(rng: Random, genome: Genome) -> Genome:
    """A pupil hard to tell from another: two of the first eight genes jump, the others stay within .02."""
    jumps = rng.sample(range(8), 2)
    return tuple(
        (g + rng.uniform(0.3, 0.7)) % 1.0
        if i in jumps
        else min(0.999, max(0.0, g + rng.uniform(-0.02, 0.02)))
        for i, g in enumerate(genome)
    )


def _enrol(
    recipe: TowerRecipe, seed: int, processes: int, progress: Callable[[float], None] | None
) -> _School:
    rng = seeded("tower", seed)
    people: list[tuple[str, Genome]] = []
    for i in range(recipe.identities):
        klass = CLASSES[i % len(CLASSES)]
        like = people[i - len(CLASSES)][1] if i % 27 >= 18 else None
        people.append((klass, _double(rng, like) if like else random_genome(rng)))
    jobs: list[Job] = [
        (klass, genome, f"pupil-{seed}-{i}", view)
        for i, (klass, genome) in enumerate(people)
        for view in range(recipe.views)
    ]
    shapes = [random_shapes(rng) for _ in range(recipe.shape_pictures)]
    jobs += [(s, 1_000_000 + i) for i, s in enumerate(shapes)]
    identity = torch.arange(recipe.identities).repeat_interleave(recipe.views)
    colours = list(COLOURS)
    return _School(
        render_all(jobs, processes=processes, progress=progress),
        identity,
        identity % len(CLASSES),
        torch.tensor([genome for _, genome in people]),
        torch.tensor([(SHAPES.index(s.shape), colours.index(s.colour), s.count - 1) for s in shapes]),
        len(identity),
    )


def _loss(heads: Heads, school: _School, picked: Tensor, pooled: Tensor, patches: Tensor) -> Tensor:
    """The sum of all heads' losses; the first rows of a batch are strangers, the others shapes."""
    drawn = picked < school.strangers
    people, forms = picked[drawn], picked[~drawn] - school.strangers
    mean = heads.norm(patches).mean(1)
    klass = torch.cat([school.klass[people], torch.full((len(forms),), len(CLASSES))])
    n = len(people)
    loss = heads.identity_loss(pooled[:n], patches[:n], school.identity[people])
    loss = loss + F.cross_entropy(heads.klass(mean), klass)
    genes = heads.genes(mean[:n]).view(n, len(CLASSES), GENES)[torch.arange(n), school.klass[people]]
    loss = loss + 8.0 * F.mse_loss(genes, school.genes[school.identity[people]])
    if len(forms):
        asked = school.shapes[forms]
        for i, head in enumerate((heads.shape, heads.colour, heads.count)):
            loss = loss + F.cross_entropy(head(mean[n:]), asked[:, i])
    return loss


def train_tower(
    recipe: TowerRecipe,
    *,
    seed: int = 0,
    processes: int = 2,
    progress: Callable[[float, float], None] | None = None,
) -> CLIPVisionModel:
    """Train a tower from nothing and return it in evaluation mode; ``progress`` gets (fraction, loss)."""
    school = _enrol(
        recipe, seed, processes, (lambda f: progress(0.1 * f, float("nan"))) if progress else None
    )
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    tower: CLIPVisionModel = CLIPVisionModel(vision_config())
    tower.train()
    heads = Heads(recipe.identities)
    weights = [*tower.parameters(), *heads.parameters()]
    optimiser = torch.optim.AdamW(weights, lr=recipe.rate, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, recipe.rate, total_steps=recipe.steps, pct_start=0.08
    )
    few = max(1, recipe.batch // 10)
    for step in range(recipe.steps):
        people = torch.randint(school.strangers, (recipe.batch - few,), generator=generator)
        forms = torch.randint(len(school.shapes), (few,), generator=generator) + school.strangers
        picked = torch.cat([people, forms])
        seen = tower(pixel_values=augment(normalise(school.pixels[picked.numpy()]), generator))
        loss = _loss(heads, school, picked, seen.pooler_output, seen.last_hidden_state[:, 1:])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # untyped upstream
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        schedule.step()
        if progress and (step + 1) % 50 == 0:
            progress(0.1 + 0.9 * (step + 1) / recipe.steps, loss.item())
    tower.eval()
    return tower
