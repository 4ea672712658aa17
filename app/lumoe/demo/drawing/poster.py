"""Film posters: a scene with a figure before a horizon, a frame, and a title in block letters."""

from random import Random

from app.lumoe.demo.drawing.canvas import Canvas, Colour, choice, mix, other, palette, shade


def draw_poster(genome: tuple[float, ...], rng: Random, size: int) -> Canvas:
    """Genes: figure, sky, horizon, figure colour, sun, title place, title colour, frame, proportions."""
    g = genome
    wall = mix(palette(rng.random(), 11), (200, 198, 194), rng.uniform(0.6, 0.9))
    canvas = Canvas(size, wall)
    canvas.pose(rng, turn=4.0, mirror=False)
    sky = palette(g[1])
    low = other(g[8], sky)
    figure = other(g[3], sky)
    canvas.rect(0.2 + 0.02, 0.06 + 0.02, 0.82, 0.96, shade(wall, 0.6))
    canvas.rect(0.18, 0.04, 0.82, 0.94, ((250, 250, 248), (25, 25, 30), palette(g[7]))[choice(g[9], 3)])
    for i in range(8):
        y = 0.07 + 0.84 * i / 8
        canvas.rect(0.21, y, 0.79, y + 0.106, mix(sky, low, (i / 7) ** 1.5))
    _sun(canvas, g, sky)
    _horizon(canvas, choice(g[2], 6), shade(other(g[10], low), 0.6))
    _figure(canvas, choice(g[0], 8), figure, shade(figure, 0.55))
    _title(canvas, g)
    return canvas


def _sun(canvas: Canvas, g: tuple[float, ...], sky: Colour) -> None:
    kind = choice(g[4], 5)
    if kind == 4:
        return
    x, y = ((0.34, 0.26), (0.66, 0.26), (0.5, 0.3), (0.5, 0.3))[kind]
    r = 0.2 if kind == 3 else 0.08 + 0.03 * g[11]
    canvas.ellipse(x, y, r, r, other(g[11], sky, 12))


def _horizon(canvas: Canvas, kind: int, fill: Colour) -> None:
    line = {
        0: [(0.21, 0.62), (0.33, 0.45), (0.42, 0.6), (0.56, 0.42), (0.68, 0.58), (0.79, 0.5)],
        1: [
            (0.21, 0.55),
            (0.29, 0.55),
            (0.29, 0.43),
            (0.38, 0.43),
            (0.38, 0.58),
            (0.48, 0.58),
            (0.48, 0.4),
            (0.56, 0.4),
            (0.56, 0.55),
            (0.66, 0.55),
            (0.66, 0.46),
            (0.79, 0.46),
        ],
        2: [
            (0.21, 0.64),
            (0.28, 0.6),
            (0.35, 0.64),
            (0.42, 0.6),
            (0.5, 0.64),
            (0.57, 0.6),
            (0.64, 0.64),
            (0.72, 0.6),
            (0.79, 0.64),
        ],
        3: [
            (0.21, 0.6),
            (0.25, 0.44),
            (0.3, 0.6),
            (0.36, 0.42),
            (0.43, 0.6),
            (0.58, 0.6),
            (0.64, 0.42),
            (0.7, 0.6),
            (0.75, 0.46),
            (0.79, 0.6),
        ],
        4: [(0.21, 0.55), (0.5, 0.68), (0.79, 0.55)],
        5: [(0.21, 0.68), (0.79, 0.68)],
    }[kind]
    canvas.poly([*line, (0.79, 0.91), (0.21, 0.91)], fill)


def _figure(canvas: Canvas, kind: int, fill: Colour, dark: Colour) -> None:
    if kind == 0:  # person
        canvas.ellipse(0.5, 0.42, 0.06, 0.07, fill)
        canvas.poly([(0.4, 0.8), (0.42, 0.5), (0.58, 0.5), (0.6, 0.8)], fill)
    elif kind == 1:  # two people
        for x in (0.4, 0.6):
            canvas.ellipse(x, 0.46, 0.05, 0.06, fill)
            canvas.poly(
                [(x - 0.08, 0.8), (x - 0.06, 0.53), (x + 0.06, 0.53), (x + 0.08, 0.8)],
                dark if x > 0.5 else fill,
            )
    elif kind == 2:  # ship
        canvas.poly([(0.3, 0.62), (0.7, 0.62), (0.63, 0.75), (0.37, 0.75)], fill)
        canvas.poly([(0.48, 0.6), (0.48, 0.34), (0.66, 0.58)], dark)
        canvas.poly([(0.46, 0.6), (0.46, 0.4), (0.34, 0.58)], dark)
    elif kind == 3:  # rocket
        canvas.poly([(0.44, 0.75), (0.44, 0.47), (0.5, 0.32), (0.56, 0.47), (0.56, 0.75)], fill)
        canvas.poly([(0.44, 0.62), (0.36, 0.78), (0.44, 0.75)], dark)
        canvas.poly([(0.56, 0.62), (0.64, 0.78), (0.56, 0.75)], dark)
        canvas.ellipse(0.5, 0.52, 0.03, 0.03, dark)
    elif kind == 4:  # tree
        canvas.rect(0.475, 0.55, 0.525, 0.8, dark)
        canvas.ellipse(0.5, 0.48, 0.13, 0.14, fill)
    elif kind == 5:  # tower
        canvas.rect(0.44, 0.4, 0.56, 0.8, fill)
        canvas.poly([(0.41, 0.41), (0.5, 0.27), (0.59, 0.41)], dark)
        canvas.rect(0.48, 0.5, 0.52, 0.58, dark)
    elif kind == 6:  # car
        canvas.poly(
            [
                (0.3, 0.74),
                (0.3, 0.66),
                (0.38, 0.64),
                (0.43, 0.56),
                (0.58, 0.56),
                (0.64, 0.64),
                (0.72, 0.67),
                (0.72, 0.74),
            ],
            fill,
        )
        for x in (0.39, 0.62):
            canvas.ellipse(x, 0.75, 0.045, 0.045, dark)
    else:  # a great eye
        canvas.poly([(0.28, 0.52), (0.4, 0.43), (0.6, 0.43), (0.72, 0.52), (0.6, 0.61), (0.4, 0.61)], fill)
        canvas.ellipse(0.5, 0.52, 0.075, 0.075, dark)


def _title(canvas: Canvas, g: tuple[float, ...]) -> None:
    colour = ((250, 250, 250), (250, 220, 70), (20, 20, 24), (210, 40, 40))[choice(g[6], 4)]
    y, n = (0.11, 0.82)[choice(g[5], 2)], 4 + choice(g[12], 4)
    w = 0.5 / n
    for i in range(n):
        x, form = 0.25 + w * i, choice(g[(13 + i) % 16], 3)
        canvas.rect(x, y, x + w * 0.28, y + 0.07, colour)
        canvas.rect(
            x, (y, y + 0.05, y + 0.025)[form], x + w * 0.75, (y, y + 0.05, y + 0.025)[form] + 0.02, colour
        )
