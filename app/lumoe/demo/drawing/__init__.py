"""Pictures of the demo world: one module per kind of thing, all deterministic per (entity, view)."""

from collections.abc import Callable
from random import Random
from typing import Final

from PIL import Image

from app.lumoe.demo.drawing.animal import draw_animal
from app.lumoe.demo.drawing.building import draw_building
from app.lumoe.demo.drawing.canvas import Canvas
from app.lumoe.demo.drawing.cartoon import draw_cartoon
from app.lumoe.demo.drawing.face import draw_face
from app.lumoe.demo.drawing.logo import draw_logo
from app.lumoe.demo.drawing.plant import draw_plant
from app.lumoe.demo.drawing.poster import draw_poster
from app.lumoe.demo.drawing.shapes import Shapes, draw_shapes
from app.lumoe.demo.drawing.sky import draw_sky
from app.lumoe.demo.drawing.titlecard import draw_titlecard
from app.lumoe.demo.seeds import seeded
from app.lumoe.demo.world import Entity, Genome

DRAWERS: Final[dict[str, Callable[[Genome, Random, int], Canvas]]] = {
    "Animals": draw_animal,
    "Astronomy": draw_sky,
    "Buildings": draw_building,
    "Cartoon": draw_cartoon,
    "Corporation": draw_logo,
    "Movies": draw_poster,
    "Personage": draw_face,
    "Plants": draw_plant,
    "TV series": draw_titlecard,
}


def draw_genome(klass: str, genome: Genome, key: str, view: int, size: int = 224) -> Image.Image:
    """Draw what a genome looks like; ``key`` and ``view`` seed pose, background, light and noise. RGB."""
    rng = seeded("view", key, view)
    return DRAWERS[klass](genome, rng, size).finish(rng)


def draw(entity: Entity, view: int, size: int = 224) -> Image.Image:
    """Draw an entity: RGB, size x size, always the same for the same (entity, view, size)."""
    return draw_genome(entity.klass, entity.genome, entity.key, view, size)


def shapes_picture(shapes: Shapes, view: int, size: int = 224) -> Image.Image:
    """Draw coloured shapes; ``view`` seeds places, sizes, light and noise."""
    rng = seeded("shapes", shapes.shape, shapes.colour, shapes.count, view)
    return draw_shapes(shapes, rng, size).finish(rng)
