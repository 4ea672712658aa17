"""Buildings under a sky: towers, domes, pyramids, castles, temples, pagodas, houses, high-rises."""

from random import Random

from app.lumoe.demo.drawing.canvas import Canvas, Colour, choice, mix, other, palette, shade


def draw_building(genome: tuple[float, ...], rng: Random, size: int) -> Canvas:
    """Genes: form (as ``lexicon.BUILDING_NOUNS``), wall, roof, windows, flag, door, storeys, width."""
    g = genome
    canvas = _street(rng, size)
    canvas.pose(rng, turn=3.0)
    wall = palette(g[1])
    roof = other(g[2], wall)
    (_tower, _hall, _pyramid, _castle, _temple, _pagoda, _house, _highrise)[choice(g[0], 8)](
        canvas, g, wall, roof
    )
    return canvas


def _street(rng: Random, size: int) -> Canvas:
    sky = rng.choice(((150, 200, 240), (200, 215, 230), (245, 190, 140), (60, 70, 120), (180, 225, 235)))
    canvas = Canvas(size, sky)
    canvas.gradient(sky, mix(sky, (240, 240, 240), 0.4), 0, 0.85)
    for _ in range(rng.randint(0, 3)):
        x, y = rng.random(), rng.uniform(0.05, 0.35)
        for dx in (-0.06, 0.0, 0.06):
            canvas.ellipse(x + dx, y, 0.06, 0.035, mix(sky, (255, 255, 255), 0.6))
    canvas.rect(
        0, 0.82, 1, 1, rng.choice(((130, 170, 100), (160, 160, 160), (200, 185, 150), (225, 228, 232)))
    )
    return canvas


def _windows(canvas: Canvas, g: tuple[float, ...], x0: float, y0: float, x1: float, y1: float) -> None:
    columns, rows = 2 + choice(g[3], 3), 2 + choice(g[6], 3)
    glass: Colour = ((250, 230, 120), (60, 80, 110), (225, 240, 250))[choice(g[8], 3)]
    w, h = (x1 - x0) / columns, (y1 - y0) / rows
    round_ = g[9] < 0.4
    for i in range(columns):
        for j in range(rows):
            cx, cy = x0 + w * (i + 0.5), y0 + h * (j + 0.5)
            if round_:
                canvas.ellipse(cx, cy, w * 0.28, h * 0.3, glass)
            else:
                canvas.rect(cx - w * 0.25, cy - h * 0.3, cx + w * 0.25, cy + h * 0.3, glass)


def _door(canvas: Canvas, g: tuple[float, ...], y: float = 0.85) -> None:
    colour = palette(g[5])
    canvas.rect(0.45, y - 0.13, 0.55, y, colour)
    if g[10] < 0.5:
        canvas.ellipse(0.5, y - 0.13, 0.05, 0.045, colour)


def _flag(canvas: Canvas, g: tuple[float, ...], x: float, y: float) -> None:
    if g[4] < 0.3:
        return
    canvas.line([(x, y), (x, y - 0.13)], 0.012, (60, 60, 60))
    canvas.poly([(x, y - 0.13), (x + 0.11, y - 0.1), (x, y - 0.06)], palette((g[4] - 0.3) / 0.7))


def _tower(canvas: Canvas, g: tuple[float, ...], wall: Colour, roof: Colour) -> None:
    w, top = 0.1 + 0.06 * g[7], 0.28
    canvas.poly([(0.5 - w * 1.3, 0.85), (0.5 - w, top), (0.5 + w, top), (0.5 + w * 1.3, 0.85)], wall)
    _windows(canvas, g, 0.5 - w * 0.9, top + 0.05, 0.5 + w * 0.9, 0.68)
    canvas.rect(0.5 - w * 1.35, top - 0.02, 0.5 + w * 1.35, top + 0.03, shade(roof, 0.8))
    if g[11] < 0.5:
        canvas.poly([(0.5 - w * 1.2, top), (0.5, 0.1), (0.5 + w * 1.2, top)], roof)
    else:
        canvas.ellipse(0.5, top - 0.03, w * 1.1, 0.12, roof)
    _flag(canvas, g, 0.5, 0.15)
    _door(canvas, g)


def _hall(canvas: Canvas, g: tuple[float, ...], wall: Colour, roof: Colour) -> None:
    w = 0.28 + 0.09 * g[7]
    canvas.ellipse(0.5, 0.5, w * 0.7, 0.17 + 0.12 * g[11], roof)
    canvas.rect(0.5 - w, 0.5, 0.5 + w, 0.85, wall)
    canvas.rect(0.5 - w - 0.02, 0.48, 0.5 + w + 0.02, 0.52, shade(wall, 0.7))
    _windows(canvas, g, 0.5 - w * 0.95, 0.54, 0.5 + w * 0.95, 0.72)
    _flag(canvas, g, 0.5, 0.35 - 0.12 * g[11])
    _door(canvas, g)


def _pyramid(canvas: Canvas, g: tuple[float, ...], wall: Colour, roof: Colour) -> None:
    w, top = 0.34 + 0.1 * g[7], 0.2 + 0.15 * g[11]
    steps = choice(g[6], 3)
    if steps:
        n = 3 + steps
        for i in range(n):
            f = 1 - i / n
            y = 0.85 - (0.85 - top) * i / n
            canvas.rect(
                0.5 - w * f, y - (0.85 - top) / n, 0.5 + w * f, y, wall if i % 2 else shade(wall, 0.8)
            )
    else:
        canvas.poly([(0.5 - w, 0.85), (0.5, top), (0.5 + w, 0.85)], wall)
        canvas.poly([(0.5 + w * 0.25, 0.85), (0.5, top), (0.5 + w, 0.85)], shade(wall, 0.72))
    tip = 0.2 + 0.2 * g[3]
    canvas.poly(
        [(0.5 - w * tip, top + (0.85 - top) * tip), (0.5, top), (0.5 + w * tip, top + (0.85 - top) * tip)],
        roof,
    )
    _flag(canvas, g, 0.5, top)
    _door(canvas, g)


def _castle(canvas: Canvas, g: tuple[float, ...], wall: Colour, roof: Colour) -> None:
    w, h = 0.26 + 0.07 * g[7], 0.52 - 0.1 * g[11]
    canvas.rect(0.5 - w, h, 0.5 + w, 0.85, wall)
    for i in range(6):
        x = 0.5 - w + 2 * w * i / 6
        canvas.rect(x, h - 0.04, x + w / 5, h + 0.01, wall)
    for s in (-1, 1):
        x = 0.5 + s * w
        canvas.rect(x - 0.075, h - 0.12, x + 0.075, 0.85, shade(wall, 0.85))
        if g[12] < 0.6:
            canvas.poly([(x - 0.095, h - 0.12), (x, h - 0.27), (x + 0.095, h - 0.12)], roof)
        else:
            canvas.rect(x - 0.1, h - 0.18, x + 0.1, h - 0.11, roof)
        _flag(canvas, g, x, h - 0.24)
    _windows(canvas, g, 0.5 - w * 0.6, h + 0.03, 0.5 + w * 0.6, 0.7)
    _door(canvas, g)


def _temple(canvas: Canvas, g: tuple[float, ...], wall: Colour, roof: Colour) -> None:
    w, n = 0.3 + 0.08 * g[7], 3 + choice(g[3], 4)
    top = 0.36 + 0.1 * g[11]
    canvas.rect(0.5 - w, top, 0.5 + w, 0.85, shade(wall, 0.55))
    canvas.poly([(0.5 - w - 0.05, top), (0.5, top - 0.12 - 0.08 * g[12]), (0.5 + w + 0.05, top)], roof)
    canvas.rect(0.5 - w - 0.03, top, 0.5 + w + 0.03, top + 0.05, wall)
    for i in range(n):
        x = 0.5 - w + 0.03 + (2 * w - 0.06) * i / (n - 1)
        canvas.rect(x - 0.03, top + 0.05, x + 0.03, 0.82, wall)
    canvas.rect(0.5 - w - 0.05, 0.81, 0.5 + w + 0.05, 0.86, shade(wall, 0.85))
    canvas.ellipse(0.5, top - 0.04, 0.035, 0.03, palette(g[5]))
    _flag(canvas, g, 0.5, top - 0.15)


def _pagoda(canvas: Canvas, g: tuple[float, ...], wall: Colour, roof: Colour) -> None:
    n = 2 + choice(g[6], 4)
    height = 0.62 / n
    for i in range(n):
        w = (0.2 + 0.08 * g[7]) * (1 - 0.12 * i * 4 / n)
        y = 0.85 - height * i
        canvas.rect(0.5 - w, y - height, 0.5 + w, y, wall)
        canvas.rect(0.5 - w * 0.25, y - height * 0.55, 0.5 + w * 0.25, y - height * 0.1, palette(g[5]))
        canvas.poly(
            [
                (0.5 - w - 0.12, y - height * 0.72),
                (0.5 - w * 0.7, y - height - 0.02),
                (0.5 + w * 0.7, y - height - 0.02),
                (0.5 + w + 0.12, y - height * 0.72),
            ],
            roof,
        )
    canvas.line([(0.5, 0.22), (0.5, 0.12)], 0.02, shade(roof, 0.7))
    _flag(canvas, g, 0.5, 0.22)


def _house(canvas: Canvas, g: tuple[float, ...], wall: Colour, roof: Colour) -> None:
    w, top = 0.24 + 0.1 * g[7], 0.5
    if g[12] < 0.6:
        x = 0.5 + w * 0.55
        canvas.rect(x - 0.04, 0.26, x + 0.04, 0.5, palette(g[13]))
    canvas.rect(0.5 - w, top, 0.5 + w, 0.85, wall)
    peak = 0.18 + 0.18 * g[11]
    flat = w * 0.55 if g[14] < 0.4 else 0.0
    canvas.poly([(0.5 - w - 0.06, top), (0.5 - flat, peak), (0.5 + flat, peak), (0.5 + w + 0.06, top)], roof)
    _windows(canvas, g, 0.5 - w * 0.95, 0.52, 0.5 + w * 0.95, 0.71)
    _flag(canvas, g, 0.5, peak)
    _door(canvas, g)


def _highrise(canvas: Canvas, g: tuple[float, ...], wall: Colour, roof: Colour) -> None:
    w, top = 0.13 + 0.1 * g[7], 0.12 + 0.12 * g[11]
    if g[12] < 0.5:
        canvas.rect(0.5 + w * 0.7, 0.45, 0.5 + w * 2.0, 0.85, shade(wall, 0.7))
    canvas.rect(0.5 - w, top, 0.5 + w, 0.85, wall)
    _windows(canvas, g, 0.5 - w * 0.95, top + 0.07, 0.5 + w * 0.95, 0.7)
    canvas.rect(0.5 - w, top - 0.01, 0.5 + w, top + 0.06, roof)
    if g[13] < 0.5:
        canvas.poly([(0.5 - w, top), (0.5 + w, top - 0.1), (0.5 + w, top)], roof)
    _flag(canvas, g, 0.5, top)
    _door(canvas, g)
