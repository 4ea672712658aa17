"""Title cards of TV series: a television set that shows a pattern, an emblem and a title."""

from math import cos, pi, sin
from random import Random

from app.lumoe.demo.drawing.canvas import Canvas, Colour, backdrop, choice, other, palette, shade


def draw_titlecard(genome: tuple[float, ...], rng: Random, size: int) -> Canvas:
    """Genes: emblem, screen colour, pattern, emblem colour, pattern colour, title place and colour, set."""
    g = genome
    canvas = backdrop(rng, size)
    canvas.pose(rng, turn=4.0, mirror=False)
    screen = palette(g[1])
    _set(canvas, choice(g[7], 4), ((30, 30, 34), (120, 80, 50), (190, 190, 195))[choice(g[8], 3)])
    canvas.rect(0.1, 0.22, 0.9, 0.78, screen)
    _pattern(canvas, choice(g[2], 6), other(g[4], screen), g)
    _emblem(canvas, choice(g[0], 9), other(g[3], screen), screen, (0.32, 0.5, 0.68)[choice(g[9], 3)])
    _title(canvas, g)
    return canvas


def _set(canvas: Canvas, kind: int, case: Colour) -> None:
    canvas.rect(0.05, 0.17, 0.95, 0.83, case)
    if kind == 0:
        canvas.rect(0.42, 0.83, 0.58, 0.9, case)
        canvas.rect(0.3, 0.89, 0.7, 0.92, case)
    elif kind == 1:
        canvas.line([(0.5, 0.17), (0.34, 0.03)], 0.015, (60, 60, 60))
        canvas.line([(0.5, 0.17), (0.66, 0.03)], 0.015, (60, 60, 60))
    elif kind == 2:
        for x in (0.15, 0.85):
            canvas.line([(x, 0.83), (x + (0.04 if x > 0.5 else -0.04), 0.95)], 0.03, case)
    canvas.ellipse(0.9, 0.805, 0.012, 0.012, (220, 50, 50))


def _pattern(canvas: Canvas, kind: int, fill: Colour, g: tuple[float, ...]) -> None:
    if kind == 0:  # rays
        n = 6 + choice(g[10], 4)
        for i in range(n):
            a, b = 2 * pi * i / n, 2 * pi * (i + 0.5) / n
            canvas.poly([(0.5, 0.5), _edge(a), _edge(b)], fill)
    elif kind == 1:  # bars across
        for i in range(3):
            canvas.rect(0.1, 0.25 + 0.19 * i, 0.9, 0.33 + 0.19 * i, fill)
    elif kind == 2:  # checks
        for i in range(8):
            for j in range(4):
                if (i + j) % 2:
                    canvas.rect(0.1 + 0.1 * i, 0.22 + 0.14 * j, 0.2 + 0.1 * i, 0.36 + 0.14 * j, fill)
    elif kind == 3:  # half and half
        canvas.poly([(0.1, 0.22), (0.55 + 0.2 * g[10], 0.22), (0.35 + 0.2 * g[10], 0.78), (0.1, 0.78)], fill)
    elif kind == 4:  # skyline
        for i, h in enumerate((0.2, 0.32, 0.24, 0.4, 0.28, 0.36, 0.18, 0.3)):
            canvas.rect(0.1 + 0.1 * i, 0.78 - h, 0.195 + 0.1 * i, 0.78, fill)
    else:  # upright bars
        for i in range(4):
            canvas.rect(0.13 + 0.2 * i, 0.22, 0.23 + 0.2 * i, 0.78, fill)


def _edge(angle: float) -> tuple[float, float]:
    """The point where a ray from the middle of the screen leaves it."""
    c, s = cos(angle), sin(angle)
    r = min(0.4 / abs(c) if c else 9.0, 0.28 / abs(s) if s else 9.0)
    return 0.5 + r * c, 0.5 + r * s


def _emblem(canvas: Canvas, kind: int, fill: Colour, back: Colour, x: float) -> None:
    y = 0.46
    if kind == 0:  # house
        canvas.rect(x - 0.1, y - 0.02, x + 0.1, y + 0.13, fill)
        canvas.poly([(x - 0.14, y), (x, y - 0.16), (x + 0.14, y)], shade(fill, 0.6))
        canvas.rect(x - 0.03, y + 0.04, x + 0.03, y + 0.13, back)
    elif kind == 1:  # heart
        canvas.ellipse(x - 0.065, y - 0.05, 0.075, 0.075, fill)
        canvas.ellipse(x + 0.065, y - 0.05, 0.075, 0.075, fill)
        canvas.poly([(x - 0.135, y - 0.02), (x + 0.135, y - 0.02), (x, y + 0.15)], fill)
    elif kind == 2:  # star
        canvas.star(x, y, 0.17, 0.07, 5, fill)
    elif kind == 3:  # magnifying glass
        canvas.line([(x + 0.04, y + 0.03), (x + 0.13, y + 0.14)], 0.045, fill)
        canvas.ellipse(x - 0.02, y - 0.03, 0.11, 0.11, fill)
        canvas.ellipse(x - 0.02, y - 0.03, 0.065, 0.065, (225, 240, 248))
    elif kind == 4:  # cup
        canvas.poly(
            [(x - 0.1, y - 0.1), (x + 0.1, y - 0.1), (x + 0.07, y + 0.12), (x - 0.07, y + 0.12)], fill
        )
        canvas.ring(x + 0.11, y - 0.01, 0.05, 0.06, 0.025, fill)
    elif kind == 5:  # key
        canvas.ellipse(x - 0.09, y, 0.07, 0.07, fill)
        canvas.ellipse(x - 0.09, y, 0.03, 0.03, back)
        canvas.rect(x - 0.04, y - 0.02, x + 0.16, y + 0.02, fill)
        canvas.rect(x + 0.09, y, x + 0.12, y + 0.08, fill)
    elif kind == 6:  # car
        canvas.poly(
            [
                (x - 0.17, y + 0.08),
                (x - 0.17, y),
                (x - 0.08, y - 0.02),
                (x - 0.04, y - 0.11),
                (x + 0.08, y - 0.11),
                (x + 0.11, y),
                (x + 0.17, y + 0.02),
                (x + 0.17, y + 0.08),
            ],
            fill,
        )
        for dx in (-0.09, 0.09):
            canvas.ellipse(x + dx, y + 0.09, 0.04, 0.04, shade(fill, 0.4))
    elif kind == 7:  # lightning
        canvas.poly(
            [
                (x + 0.03, y - 0.17),
                (x - 0.1, y + 0.02),
                (x - 0.01, y + 0.02),
                (x - 0.05, y + 0.16),
                (x + 0.1, y - 0.04),
                (x + 0.01, y - 0.04),
            ],
            fill,
        )
    else:  # skull
        canvas.ellipse(x, y - 0.03, 0.12, 0.12, fill)
        canvas.rect(x - 0.06, y + 0.05, x + 0.06, y + 0.13, fill)
        for dx in (-0.045, 0.045):
            canvas.ellipse(x + dx, y - 0.02, 0.032, 0.035, back)


def _title(canvas: Canvas, g: tuple[float, ...]) -> None:
    colour = ((252, 252, 252), (250, 220, 70), (20, 20, 24), (214, 48, 49))[choice(g[6], 4)]
    y, n = (0.66, 0.25)[choice(g[5], 2)], 5 + choice(g[11], 4)
    w = 0.6 / n
    for i in range(n):
        x, form = 0.2 + w * i, choice(g[(12 + i) % 16], 3)
        canvas.rect(x, y, x + w * 0.28, y + 0.08, colour)
        line = (y, y + 0.06, y + 0.03)[form]
        canvas.rect(x, line, x + w * 0.75, line + 0.02, colour)
