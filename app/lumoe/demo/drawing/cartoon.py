"""Cartoon characters with thick outlines."""

from random import Random

from app.lumoe.demo.drawing.canvas import Canvas, Colour, backdrop, choice, other, palette, shade

_INK: Colour = (20, 18, 24)


def draw_cartoon(genome: tuple[float, ...], rng: Random, size: int) -> Canvas:
    """Genes: body form, body colour, eyes, head gear, markings, mark colour, mouth, limbs, proportions."""
    g = genome
    canvas = backdrop(rng, size)
    canvas.pose(rng, turn=8.0)
    body = palette(g[1], 13)
    mark = other(g[5], body)
    rx, ry = 0.2 + 0.07 * g[8], 0.22 + 0.08 * g[9]
    _limbs(canvas, choice(g[7], 4), body, mark, rx, ry, rng)
    _gear(canvas, choice(g[3], 7), mark, body, ry)
    form = choice(g[0], 6)
    _body(canvas, form, rx + 0.022, ry + 0.022, _INK)
    _body(canvas, form, rx, ry, body)
    _markings(canvas, choice(g[4], 5), mark, rx, ry)
    _eyes(canvas, g, rng)
    _mouth(canvas, choice(g[6], 5))
    return canvas


def _body(canvas: Canvas, form: int, rx: float, ry: float, fill: Colour) -> None:
    cx, cy = 0.5, 0.52
    if form == 0:
        canvas.ellipse(cx, cy, rx, ry, fill)
    elif form == 1:
        canvas.rect(cx - rx, cy - ry, cx + rx, cy + ry, fill)
    elif form == 2:
        canvas.poly([(cx, cy - ry * 1.25), (cx + rx * 1.3, cy + ry), (cx - rx * 1.3, cy + ry)], fill)
    elif form == 3:
        canvas.star(cx, cy, ry * 1.35, ry * 0.8, 6, fill)
    elif form == 4:
        canvas.poly(
            [
                (cx - rx * 0.7, cy - ry),
                (cx + rx * 0.7, cy - ry),
                (cx + rx * 1.25, cy + ry * 0.2),
                (cx + rx * 0.8, cy + ry),
                (cx - rx * 0.8, cy + ry),
                (cx - rx * 1.25, cy + ry * 0.2),
            ],
            fill,
        )
    else:
        canvas.ellipse(cx, cy - ry * 0.35, rx * 0.85, ry * 0.75, fill)
        canvas.ellipse(cx, cy + ry * 0.45, rx * 1.2, ry * 0.65, fill)


def _limbs(canvas: Canvas, kind: int, body: Colour, mark: Colour, rx: float, ry: float, rng: Random) -> None:
    wave = rng.uniform(-0.12, 0.12)
    if kind != 3:
        for s in (-1, 1):
            hand = (0.5 + s * (rx + 0.15), 0.5 + s * wave)
            canvas.line([(0.5 + s * rx * 0.8, 0.56), hand], 0.045, _INK)
            canvas.ellipse(*hand, 0.045, 0.045, _INK)
            canvas.ellipse(*hand, 0.03, 0.03, mark if kind == 1 else body)
    for s in (-1, 1):
        x = 0.5 + s * rx * 0.5
        canvas.line([(x, 0.52 + ry * 0.7), (x, 0.9)], 0.05 if kind != 2 else 0.08, _INK)
        canvas.ellipse(x + s * 0.02, 0.91, 0.07, 0.035, mark if kind in (1, 3) else _INK)


def _gear(canvas: Canvas, kind: int, mark: Colour, body: Colour, ry: float) -> None:
    top = 0.54 - ry
    if kind == 0:  # antennae
        for s in (-1, 1):
            canvas.line([(0.5 + s * 0.06, top), (0.5 + s * 0.13, top - 0.15)], 0.022, _INK)
            canvas.ellipse(0.5 + s * 0.13, top - 0.16, 0.04, 0.04, mark)
    elif kind == 1:  # cat ears
        for s in (-1, 1):
            canvas.poly(
                [(0.5 + s * 0.05, top + 0.04), (0.5 + s * 0.15, top - 0.14), (0.5 + s * 0.22, top + 0.12)],
                _INK,
            )
            canvas.poly(
                [(0.5 + s * 0.08, top + 0.03), (0.5 + s * 0.145, top - 0.09), (0.5 + s * 0.19, top + 0.1)],
                body,
            )
    elif kind == 2:  # long ears
        for s in (-1, 1):
            canvas.ellipse(0.5 + s * 0.09, top - 0.08, 0.06, 0.16, _INK, s * 10)
            canvas.ellipse(0.5 + s * 0.09, top - 0.08, 0.035, 0.13, mark, s * 10)
    elif kind == 3:  # crown
        canvas.poly(
            [
                (0.36, top + 0.04),
                (0.34, top - 0.14),
                (0.43, top - 0.05),
                (0.5, top - 0.16),
                (0.57, top - 0.05),
                (0.66, top - 0.14),
                (0.64, top + 0.04),
            ],
            (245, 200, 50),
        )
    elif kind == 4:  # party hat
        canvas.poly([(0.38, top + 0.05), (0.5, top - 0.2), (0.62, top + 0.05)], mark)
        canvas.ellipse(0.5, top - 0.19, 0.035, 0.035, (250, 250, 250))
    elif kind == 5:  # horns
        for s in (-1, 1):
            canvas.poly(
                [(0.5 + s * 0.07, top + 0.03), (0.5 + s * 0.24, top - 0.12), (0.5 + s * 0.16, top + 0.09)],
                mark,
            )
    else:  # tuft
        for dx in (-0.07, 0.0, 0.07):
            canvas.line([(0.5 + dx * 0.5, top + 0.03), (0.5 + dx, top - 0.12)], 0.035, mark)


def _markings(canvas: Canvas, kind: int, mark: Colour, rx: float, ry: float) -> None:
    if kind == 1:
        canvas.ellipse(0.5, 0.52 + ry * 0.45, rx * 0.6, ry * 0.42, mark)
    elif kind == 2:
        for y in (0.35, 0.7):
            canvas.rect(0.5 - rx * 0.8, 0.52 + ry * y - 0.025, 0.5 + rx * 0.8, 0.52 + ry * y + 0.025, mark)
    elif kind == 3:
        for x, y in ((-0.5, 0.5), (0.0, 0.75), (0.5, 0.5), (-0.55, -0.5), (0.5, -0.6)):
            canvas.ellipse(0.5 + rx * x, 0.52 + ry * y, 0.035, 0.035, mark)
    elif kind == 4:  # a bow tie
        y = 0.52 + ry * 0.5
        canvas.poly([(0.5, y), (0.4, y - 0.06), (0.4, y + 0.06)], mark)
        canvas.poly([(0.5, y), (0.6, y - 0.06), (0.6, y + 0.06)], mark)


def _eyes(canvas: Canvas, g: tuple[float, ...], rng: Random) -> None:
    n, r = 1 + choice(g[2], 3), 0.05 + 0.03 * g[10]
    y, look = 0.44, rng.uniform(-0.02, 0.02)
    spots = {1: (0.0,), 2: (-0.085, 0.085), 3: (-0.13, 0.0, 0.13)}[n]
    r = r * 1.35 if n == 1 else r * (0.8 if n == 3 else 1.0)
    pupil = palette(g[11]) if g[12] < 0.4 else _INK
    for dx in spots:
        canvas.ellipse(0.5 + dx, y, r + 0.012, r * 1.15 + 0.012, _INK)
        canvas.ellipse(0.5 + dx, y, r, r * 1.15, (252, 252, 252))
        canvas.ellipse(0.5 + dx + look, y + 0.01, r * 0.45, r * 0.5, pupil)
    if g[13] < 0.35:
        for dx in spots:
            canvas.line([(0.5 + dx - r, y - r * 1.6), (0.5 + dx + r, y - r * 1.2)], 0.02, _INK)


def _mouth(canvas: Canvas, kind: int) -> None:
    y = 0.585
    if kind == 0:
        canvas.poly([(0.42, y), (0.58, y), (0.5, y + 0.08)], (150, 30, 40))
    elif kind == 1:
        canvas.rect(0.42, y, 0.58, y + 0.05, (252, 252, 252))
        canvas.line([(0.42, y), (0.58, y), (0.58, y + 0.05), (0.42, y + 0.05), (0.42, y)], 0.014, _INK)
        canvas.line([(0.5, y), (0.5, y + 0.05)], 0.012, _INK)
    elif kind == 2:
        canvas.line([(0.43, y + 0.02), (0.57, y + 0.02)], 0.02, _INK)
    elif kind == 3:
        canvas.ellipse(0.5, y + 0.03, 0.035, 0.04, (120, 20, 30))
    else:
        canvas.poly([(0.36, y + 0.01), (0.5, y - 0.045), (0.64, y + 0.01), (0.5, y + 0.045)], (245, 160, 40))
        canvas.line([(0.37, y + 0.01), (0.63, y + 0.01)], 0.012, shade((245, 160, 40), 0.6))
