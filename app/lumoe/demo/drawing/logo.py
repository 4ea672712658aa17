"""Company logos: an emblem in a frame, above a bar of lettering, on paper."""

from random import Random

from app.lumoe.demo.drawing.canvas import Canvas, Colour, choice, mix, other, palette, shade

_PAPER: Colour = (246, 246, 243)


def draw_logo(genome: tuple[float, ...], rng: Random, size: int) -> Canvas:
    """Genes: frame, frame colour, emblem, emblem colour, count, lettering, its colour, filled."""
    g = genome
    paper = shade(_PAPER, rng.uniform(0.86, 1.0))
    canvas = Canvas(size, paper)
    if rng.random() < 0.5:
        canvas.gradient(paper, mix(paper, (120, 130, 150), 0.3))
    canvas.pose(rng, turn=5.0, mirror=False)
    frame = palette(g[1])
    emblem = other(g[3], frame)
    cy = 0.42 if g[5] < 0.75 else 0.5
    filled = g[7] < 0.6
    _frame(canvas, choice(g[0], 7), frame, 0.3, cy)
    if not filled:
        _frame(canvas, choice(g[0], 7), paper if emblem != _PAPER else shade(paper, 0.8), 0.23, cy)
    _emblem(canvas, choice(g[2], 8), emblem, other(g[8], emblem), g, cy)
    if g[5] < 0.75:
        _letters(canvas, g)
    return canvas


def _frame(canvas: Canvas, kind: int, fill: Colour, r: float, cy: float) -> None:
    if kind == 0:
        canvas.ellipse(0.5, cy, r, r, fill)
    elif kind == 1:
        canvas.rect(0.5 - r * 0.92, cy - r * 0.92, 0.5 + r * 0.92, cy + r * 0.92, fill)
    elif kind == 2:
        canvas.regular(0.5, cy, r * 1.08, 6, fill)
    elif kind == 3:
        canvas.poly(
            [
                (0.5 - r * 0.9, cy - r),
                (0.5 + r * 0.9, cy - r),
                (0.5 + r * 0.9, cy + r * 0.2),
                (0.5, cy + r * 1.15),
                (0.5 - r * 0.9, cy + r * 0.2),
            ],
            fill,
        )
    elif kind == 4:
        canvas.regular(0.5, cy, r * 1.2, 4, fill)
    elif kind == 5:
        canvas.regular(0.5, cy + r * 0.15, r * 1.3, 3, fill)
    else:
        canvas.star(0.5, cy, r * 1.12, r * 0.92, 12, fill)


def _emblem(canvas: Canvas, kind: int, fill: Colour, second: Colour, g: tuple[float, ...], cy: float) -> None:
    n, r = 2 + choice(g[4], 4), 0.13 + 0.04 * g[9]
    if kind == 0:
        canvas.star(0.5, cy, r * 1.15, r * 0.5, n + 2, fill)
    elif kind == 1:  # bars
        for i in range(n):
            h = r * (0.5 + 1.4 * (i + 1) / n)
            x = 0.5 + 2 * r * ((i + 0.5) / n - 0.5)
            canvas.rect(x - r * 0.6 / n, cy + r - h, x + r * 0.6 / n, cy + r, fill)
    elif kind == 2:  # crescent
        canvas.ellipse(0.5, cy, r, r, fill)
        canvas.ellipse(0.5 + r * 0.45, cy - r * 0.2, r * 0.8, r * 0.8, second)
    elif kind == 3:  # compass rose
        canvas.star(0.5, cy, r, r * 0.25, n + 1, fill)
        canvas.ellipse(0.5, cy, r * 0.45, r * 0.45, second)
    elif kind == 4:  # arrow
        canvas.poly(
            [
                (0.5, cy - r * 1.1),
                (0.5 + r, cy),
                (0.5 + r * 0.4, cy),
                (0.5 + r * 0.4, cy + r),
                (0.5 - r * 0.4, cy + r),
                (0.5 - r * 0.4, cy),
                (0.5 - r, cy),
            ],
            fill,
        )
    elif kind == 5:  # rings
        for i in range(2):
            canvas.ring(0.5 + (i - 0.5) * r, cy, r * 0.75, r * 0.75, 0.05, fill if i else second)
    elif kind == 6:  # waves
        for i in range(n):
            y = cy + 1.8 * r * ((i + 0.5) / n - 0.5)
            canvas.line(
                [(0.5 - r, y), (0.5 - r / 2, y - 0.04), (0.5, y), (0.5 + r / 2, y + 0.04), (0.5 + r, y)],
                0.035,
                fill if i % 2 == 0 else second,
            )
    else:  # four fields
        canvas.rect(0.5 - r, cy - r, 0.5, cy, fill)
        canvas.rect(0.5, cy, 0.5 + r, cy + r, fill)
        canvas.rect(0.5, cy - r, 0.5 + r, cy, second)
        canvas.rect(0.5 - r, cy, 0.5, cy + r, second)


def _letters(canvas: Canvas, g: tuple[float, ...]) -> None:
    """A word of block letters that says nothing: each letter an upright with a hook."""
    colour = palette(g[6]) if g[6] < 0.78 else (40, 40, 46)
    n = 4 + choice(g[5] / 0.75, 4)
    w = 0.56 / n
    for i in range(n):
        x, form = 0.22 + w * i, int(g[10 + i % 6] * 4)
        canvas.rect(x, 0.8, x + w * 0.3, 0.92, colour)
        if form != 0:
            canvas.rect(x, 0.8, x + w * 0.75, 0.83, colour)
        if form > 1:
            canvas.rect(x, 0.89, x + w * 0.75, 0.92, colour)
        if form == 3:
            canvas.rect(x + w * 0.5, 0.8, x + w * 0.75, 0.92, colour)
