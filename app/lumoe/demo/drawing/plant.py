"""Plants with leaves, flowers or berries, growing from the ground or a pot."""

from math import cos, pi, sin
from random import Random

from app.lumoe.demo.drawing.canvas import Canvas, Colour, backdrop, choice, other, palette, shade

_GREENS: tuple[Colour, ...] = (
    (60, 150, 60),
    (30, 95, 55),
    (130, 175, 60),
    (90, 150, 120),
    (120, 110, 50),
    (120, 60, 90),
)


def draw_plant(genome: tuple[float, ...], rng: Random, size: int) -> Canvas:
    """Genes: flower form, flower colour, leaf form, leaf colour, petals, centre, stems, pot, proportions."""
    g = genome
    canvas = backdrop(rng, size)
    canvas.rect(0, 0.9, 1, 1, rng.choice(((130, 100, 70), (150, 170, 110), (180, 170, 155))))
    canvas.pose(rng, turn=5.0)
    green = _GREENS[choice(g[3], 6)]
    flower = palette(g[1], 12)
    stems = 1 + choice(g[6], 3)
    top = 0.3 + 0.12 * g[8]
    if choice(g[2], 6) == 5:
        _cactus(canvas, g, green)
    sway = rng.uniform(-0.03, 0.03)
    for i in range(stems):
        x = 0.5 + 0.2 * (i - (stems - 1) / 2)
        y = top + 0.09 * (i % 2)
        canvas.line([(0.5, 0.86), (0.5 + (x - 0.5) * 0.6, 0.6), (x + sway, y)], 0.026, shade(green, 0.8))
        _leaves(canvas, choice(g[2], 6), green, 0.5 + (x - 0.5) * 0.6, g)
        _flower(canvas, choice(g[0], 7), flower, other(g[5], flower), x + sway, y, g)
    _pot(canvas, g)
    return canvas


def _leaves(canvas: Canvas, kind: int, green: Colour, x: float, g: tuple[float, ...]) -> None:
    size = 0.09 + 0.06 * g[9]
    for i, s in ((0, -1), (1, 1), (2, -1), (3, 1)):
        y = 0.78 - 0.085 * i
        if kind == 0:  # oval
            canvas.ellipse(x + s * size, y, size, size * 0.42, green, -s * 25)
        elif kind == 1:  # lance
            canvas.poly([(x, y + 0.02), (x + s * size * 2.1, y - size * 1.1), (x, y - 0.05)], green)
        elif kind == 2:  # fern
            canvas.line([(x, y), (x + s * size * 2, y - size * 0.6)], 0.014, green)
            for k in (0.5, 1.0, 1.5, 2.0):
                canvas.ellipse(x + s * size * k, y - size * 0.3 * k, size * 0.17, size * 0.42, green)
        elif kind == 3:  # round
            canvas.ellipse(x + s * size * 0.9, y - 0.01, size * 0.65, size * 0.65, green)
        elif kind == 4:  # heart
            canvas.ellipse(x + s * size * 0.8, y - 0.03, size * 0.45, size * 0.45, green)
            canvas.ellipse(x + s * size * 0.8, y + 0.03, size * 0.45, size * 0.45, green)
            canvas.poly(
                [(x + s * size * 0.75, y - 0.06), (x + s * size * 2, y), (x + s * size * 0.75, y + 0.06)],
                green,
            )


def _cactus(canvas: Canvas, g: tuple[float, ...], green: Colour) -> None:
    w = 0.09 + 0.05 * g[9]
    canvas.ellipse(0.5, 0.62, w, 0.26, green)
    for s in (-1, 1):
        canvas.line([(0.5, 0.66), (0.5 + s * (w + 0.1), 0.64), (0.5 + s * (w + 0.1), 0.5)], 0.075, green)
    for i in range(4):
        canvas.line(
            [(0.5 - w * 0.5, 0.48 + 0.08 * i), (0.5 + w * 0.5, 0.48 + 0.08 * i)], 0.012, shade(green, 1.5)
        )


def _flower(
    canvas: Canvas, kind: int, petal: Colour, centre: Colour, x: float, y: float, g: tuple[float, ...]
) -> None:
    n, r = 4 + choice(g[4], 5), 0.1 + 0.05 * g[10]
    if kind == 0:  # daisy
        for i in range(n):
            t = 2 * pi * i / n
            canvas.ellipse(
                x + r * 0.65 * cos(t), y + r * 0.65 * sin(t), r * 0.55, r * 0.26, petal, t * 180 / pi
            )
        canvas.ellipse(x, y, r * 0.36, r * 0.36, centre)
    elif kind == 1:  # tulip
        canvas.poly(
            [
                (x - r * 0.8, y - r),
                (x - r * 0.4, y - r * 0.4),
                (x, y - r * 1.1),
                (x + r * 0.4, y - r * 0.4),
                (x + r * 0.8, y - r),
                (x + r * 0.6, y + r * 0.4),
                (x, y + r * 0.7),
                (x - r * 0.6, y + r * 0.4),
            ],
            petal,
        )
        canvas.ellipse(x, y + r * 0.2, r * 0.3, r * 0.3, centre)
    elif kind == 2:  # bells
        for s in (-1, 0, 1):
            canvas.poly(
                [
                    (x + s * r * 0.9 - 0.02, y),
                    (x + s * r * 0.9 + 0.02, y),
                    (x + s * r * 0.9 + r * 0.45, y + r * 0.9),
                    (x + s * r * 0.9 - r * 0.45, y + r * 0.9),
                ],
                petal if s else centre,
            )
    elif kind == 3:  # berries
        for i in range(n):
            t = 2 * pi * i / n
            canvas.ellipse(x + r * 0.6 * cos(t), y + r * 0.6 * sin(t), r * 0.32, r * 0.32, petal)
        canvas.ellipse(x, y, r * 0.32, r * 0.32, centre)
    elif kind == 4:  # star flower
        canvas.star(x, y, r * 1.2, r * 0.5, n, petal)
        canvas.ellipse(x, y, r * 0.3, r * 0.3, centre)
    elif kind == 5:  # ear of grain
        for i in range(6):
            for s in (-1, 1):
                canvas.ellipse(x + s * r * 0.28, y + r * (1.0 - 0.4 * i), r * 0.3, r * 0.16, petal, -s * 40)
        canvas.ellipse(x, y - r * 1.3, r * 0.2, r * 0.3, centre)
    else:  # rose
        canvas.ellipse(x, y, r, r, petal)
        canvas.ring(x, y, r * 0.65, r * 0.65, 0.018, centre)
        canvas.ellipse(x, y, r * 0.25, r * 0.25, centre)


def _pot(canvas: Canvas, g: tuple[float, ...]) -> None:
    kind = choice(g[7], 4)
    colour = palette(g[11])
    if kind == 0:
        canvas.ellipse(0.5, 0.9, 0.2, 0.06, (110, 80, 55))
    elif kind == 1:
        canvas.poly([(0.34, 0.8), (0.66, 0.8), (0.61, 0.97), (0.39, 0.97)], colour)
        canvas.rect(0.32, 0.78, 0.68, 0.83, shade(colour, 0.75))
    elif kind == 2:
        canvas.rect(0.35, 0.79, 0.65, 0.97, colour)
        canvas.rect(0.35, 0.85, 0.65, 0.89, other(g[12], colour))
    else:
        canvas.ellipse(0.5, 0.88, 0.18, 0.1, colour)
        canvas.rect(0.4, 0.78, 0.6, 0.82, shade(colour, 0.75))
