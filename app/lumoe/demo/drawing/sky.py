"""Celestial objects: planets, ringed planets, moons, galaxies, stars and comets."""

from math import cos, pi, sin
from random import Random

from app.lumoe.demo.drawing.canvas import Canvas, Colour, choice, mix, other, palette, shade


def draw_sky(genome: tuple[float, ...], rng: Random, size: int) -> Canvas:
    """Genes: form, main colour, second colour, surface, ring or arms, moons, spot, size."""
    g = genome
    canvas = Canvas(size, rng.choice(((8, 8, 20), (14, 10, 30), (4, 14, 24), (20, 12, 16))))
    for _ in range(rng.randint(12, 30)):
        r = rng.uniform(0.003, 0.009)
        canvas.ellipse(rng.random(), rng.random(), r, r, shade((255, 255, 255), rng.uniform(0.5, 1.0)))
    canvas.pose(rng, turn=10.0)
    main = palette(g[1], 12)
    second = other(g[2], main, 12)
    form = choice(g[0], 6)
    if form == 0:
        _galaxy(canvas, g, main, second, rng)
    elif form == 1:
        _comet(canvas, g, main, second)
    elif form == 2:
        _star(canvas, g, main, second)
    else:
        _planet(canvas, g, main, second, ringed=form == 3)
    return canvas


def _planet(canvas: Canvas, g: tuple[float, ...], main: Colour, second: Colour, ringed: bool) -> None:
    r = 0.2 + 0.1 * g[7]
    tilt = -35 + 70 * g[4]
    third = other(g[8], second, 12)
    if ringed:
        canvas.ring(0.5, 0.5, r * 1.75, r * 0.5, 0.05 + 0.04 * g[9], third, tilt)
    canvas.ellipse(0.5, 0.5, r, r, main)
    _surface(canvas, choice(g[3], 5), second, g, r)
    spot = choice(g[6], 4)
    if spot:
        x, y = ((-0.4, 0.3), (0.35, -0.35), (0.3, 0.4))[spot - 1]
        canvas.ellipse(0.5 + r * x, 0.5 + r * y, r * 0.26, r * 0.17, third)
    if ringed:  # the near half of the ring once more, before the planet
        a = tilt * pi / 180
        arc = [
            (
                0.5 + cos(a) * r * 1.75 * cos(t) - sin(a) * r * 0.5 * sin(t),
                0.5 + sin(a) * r * 1.75 * cos(t) + cos(a) * r * 0.5 * sin(t),
            )
            for t in (pi * i / 14 for i in range(15))
        ]
        canvas.line(arc, 0.05 + 0.04 * g[9], third)
    for i in range(choice(g[5], 4)):
        x, y = ((0.84, 0.2), (0.15, 0.22), (0.8, 0.83))[i]
        canvas.ellipse(x, y, 0.05, 0.05, other(g[10], main, 12))


def _surface(canvas: Canvas, kind: int, second: Colour, g: tuple[float, ...], r: float) -> None:
    if kind == 0:  # bands
        n = 2 + choice(g[9], 3)
        for i in range(n):
            y = -0.75 + 1.5 * (i + 0.5) / n
            w = r * (1 - y * y) ** 0.5 * 0.98
            canvas.rect(0.5 - w, 0.5 + r * (y - 0.12), 0.5 + w, 0.5 + r * (y + 0.12), second)
    elif kind == 1:  # craters
        for x, y, s in (
            (-0.4, -0.3, 0.2),
            (0.3, -0.5, 0.13),
            (0.4, 0.2, 0.22),
            (-0.2, 0.5, 0.16),
            (-0.6, 0.2, 0.1),
        ):
            canvas.ellipse(0.5 + r * x, 0.5 + r * y, r * s, r * s, second)
    elif kind == 2:  # continents
        canvas.poly(
            [
                (0.5 + r * x, 0.5 + r * y)
                for x, y in ((-0.7, -0.4), (-0.2, -0.7), (0.1, -0.3), (-0.1, 0.2), (-0.4, 0.1))
            ],
            second,
        )
        canvas.poly(
            [
                (0.5 + r * x, 0.5 + r * y)
                for x, y in ((0.2, 0.0), (0.7, -0.1), (0.6, 0.5), (0.1, 0.8), (0.0, 0.4))
            ],
            second,
        )
    elif kind == 3:  # caps of ice
        canvas.ellipse(0.5, 0.5 - r * 0.75, r * 0.6, r * 0.22, second)
        canvas.ellipse(0.5, 0.5 + r * 0.75, r * 0.6, r * 0.22, second)
    else:  # a dark half
        canvas.poly([(0.5 + r * sin(t), 0.5 - r * cos(t)) for t in (pi * i / 14 for i in range(15))], second)


def _galaxy(canvas: Canvas, g: tuple[float, ...], main: Colour, second: Colour, rng: Random) -> None:
    arms, turns = 2 + choice(g[4], 4), 0.7 + 0.8 * g[3]
    flat, start = 0.45 + 0.5 * g[6], 2 * pi * g[5] + rng.uniform(-0.2, 0.2)
    canvas.ellipse(0.5, 0.5, 0.36, 0.36 * flat, mix(main, (10, 10, 25), 0.75))
    for arm in range(arms):
        for i in range(14):
            t = i / 13
            angle = start + 2 * pi * (arm / arms + t * turns * 0.6)
            r = 0.08 + 0.32 * t
            s = 0.06 * (1.15 - t)
            canvas.ellipse(0.5 + r * cos(angle), 0.5 + r * sin(angle) * flat, s, s * (0.6 + 0.4 * flat), main)
    canvas.ellipse(0.5, 0.5, 0.1 + 0.05 * g[7], (0.1 + 0.05 * g[7]) * flat, second)


def _comet(canvas: Canvas, g: tuple[float, ...], main: Colour, second: Colour) -> None:
    width = 0.08 + 0.14 * g[3]
    bend = 0.25 * (g[4] - 0.5)
    x, y, r = 0.72, 0.62, 0.09 + 0.06 * g[7]
    canvas.poly(
        [(x, y - r * 0.9), (0.08, 0.2 - width + bend), (0.05, 0.24 + width + bend), (x, y + r * 0.9)],
        mix(main, (10, 10, 25), 0.4),
    )
    canvas.poly([(x, y - r * 0.4), (0.2, 0.27 + bend), (x, y + r * 0.4)], main)
    if g[5] < 0.5:
        canvas.poly([(x, y - r * 0.5), (0.35, 0.08), (x, y + r * 0.2)], mix(second, (10, 10, 25), 0.3))
    canvas.ellipse(x, y, r * 1.25, r * 1.25, shade(main, 1.3))
    canvas.ellipse(x, y, r * 0.8, r * 0.8, second)


def _star(canvas: Canvas, g: tuple[float, ...], main: Colour, second: Colour) -> None:
    r, rays = 0.17 + 0.08 * g[7], 4 + choice(g[4], 9)
    canvas.star(0.5, 0.5, r * 2.0, r * (0.7 + 0.4 * g[3]), rays, mix(main, (10, 10, 25), 0.35), 360 * g[5])
    canvas.ellipse(0.5, 0.5, r * 1.15, r * 1.15, main)
    canvas.ellipse(0.5, 0.5, r * (0.4 + 0.4 * g[6]), r * (0.4 + 0.4 * g[6]), second)
