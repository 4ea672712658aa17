"""Pictures of coloured shapes to name and count; they concern no entity."""

from dataclasses import dataclass
from random import Random
from typing import Final

from app.lumoe.demo.drawing.canvas import Canvas, Colour, mix

SHAPES: Final = ("circle", "square", "triangle", "star", "diamond")
COLOURS: Final[dict[str, Colour]] = {
    "red": (214, 40, 40),
    "blue": (40, 80, 215),
    "green": (40, 150, 60),
    "yellow": (245, 205, 40),
    "purple": (130, 50, 170),
    "orange": (245, 130, 30),
    "black": (25, 25, 28),
    "brown": (120, 72, 40),
}
COUNT_WORDS: Final = ("no", "one", "two", "three", "four", "five")
_PLACES: Final = tuple((0.2 + 0.3 * i, 0.2 + 0.3 * j) for i in range(3) for j in range(3))


@dataclass(frozen=True, slots=True)
class Shapes:
    """``count`` (1-5) shapes of one form and colour."""

    shape: str
    colour: str
    count: int


def random_shapes(rng: Random) -> Shapes:
    """Draw a form, a colour and a number."""
    return Shapes(rng.choice(SHAPES), rng.choice(tuple(COLOURS)), rng.randint(1, 5))


def draw_shapes(shapes: Shapes, rng: Random, size: int) -> Canvas:
    """Scatter the shapes over a light ground without overlap."""
    tint = rng.choice(tuple(COLOURS.values()))
    canvas = Canvas(size, mix(tint, (242, 242, 240), rng.uniform(0.85, 1.0)))
    for cx, cy in rng.sample(_PLACES, shapes.count):
        x, y = cx + rng.uniform(-0.03, 0.03), cy + rng.uniform(-0.03, 0.03)
        r = rng.uniform(0.085, 0.12)
        _one(canvas, shapes.shape, COLOURS[shapes.colour], x, y, r)
    return canvas


def _one(canvas: Canvas, shape: str, fill: Colour, x: float, y: float, r: float) -> None:
    if shape == "circle":
        canvas.ellipse(x, y, r, r, fill)
    elif shape == "square":
        canvas.rect(x - r * 0.9, y - r * 0.9, x + r * 0.9, y + r * 0.9, fill)
    elif shape == "triangle":
        canvas.poly([(x, y - r * 1.1), (x + r * 1.1, y + r * 0.9), (x - r * 1.1, y + r * 0.9)], fill)
    elif shape == "star":
        canvas.star(x, y, r * 1.25, r * 0.5, 5, fill)
    else:
        canvas.poly([(x, y - r * 1.3), (x + r * 0.8, y), (x, y + r * 1.3), (x - r * 0.8, y)], fill)
