"""Animals from the side: four-legged ones, birds, fish and tortoise-like ones."""

from random import Random

from app.lumoe.demo.drawing.canvas import PALETTE, Canvas, Colour, choice, mix, other, palette, shade


def draw_animal(genome: tuple[float, ...], rng: Random, size: int) -> Canvas:
    """Genes: body plan, body colour, pattern, pattern colour, head gear, tail, neck, legs, proportions."""
    g = genome
    canvas = _landscape(rng, size)
    canvas.pose(rng, turn=6.0)
    body = palette(g[1])
    mark = other(g[3], body)
    (_quadruped, _bird, _fish, _shelled)[choice(g[0], 4)](canvas, g, body, mark, rng)
    return canvas


def _landscape(rng: Random, size: int) -> Canvas:
    sky = rng.choice(((190, 220, 245), (225, 235, 245), (245, 220, 190), (205, 225, 215)))
    ground = rng.choice(((150, 190, 110), (215, 195, 140), (185, 170, 150), (225, 232, 238), (120, 160, 120)))
    canvas = Canvas(size, sky)
    line = rng.uniform(0.6, 0.78)
    canvas.rect(0, line, 1, 1, ground)
    if rng.random() < 0.5:
        x = rng.random()
        canvas.poly([(x - 0.4, line), (x, line - 0.3), (x + 0.4, line)], mix(sky, ground, 0.5))
    return canvas


def _pattern(canvas: Canvas, kind: int, mark: Colour, cx: float, cy: float, rx: float, ry: float) -> None:
    if kind == 1:  # stripes
        for i in (-2, -1, 0, 1, 2):
            x = cx + rx * 0.36 * i
            h = ry * (1 - (0.36 * i) ** 2) ** 0.5 * 0.95
            canvas.rect(x - rx * 0.07, cy - h, x + rx * 0.07, cy + h, mark)
    elif kind == 2:  # spots
        for x, y in (
            (-0.6, 0.1),
            (-0.3, -0.45),
            (-0.2, 0.35),
            (0.1, -0.1),
            (0.4, -0.5),
            (0.45, 0.3),
            (0.75, 0),
        ):
            canvas.ellipse(cx + rx * x, cy + ry * y, rx * 0.12, rx * 0.12, mark)
    elif kind == 3:  # light belly
        canvas.ellipse(cx, cy + ry * 0.4, rx * 0.8, ry * 0.55, mark)
    elif kind == 4:  # saddle
        canvas.ellipse(cx, cy - ry * 0.35, rx * 0.5, ry * 0.62, mark)


def _eye(canvas: Canvas, x: float, y: float) -> None:
    canvas.ellipse(x, y, 0.024, 0.024, (250, 250, 250))
    canvas.ellipse(x + 0.004, y, 0.013, 0.013, (15, 15, 15))


def _head_gear(canvas: Canvas, kind: int, colour: Colour, body: Colour, x: float, y: float) -> None:
    if kind == 0:  # pointed ears
        canvas.poly([(x - 0.07, y + 0.02), (x - 0.06, y - 0.12), (x, y)], shade(body, 0.8))
        canvas.poly([(x + 0.0, y), (x + 0.04, y - 0.12), (x + 0.07, y + 0.03)], shade(body, 0.8))
    elif kind == 1:  # round ears
        canvas.ellipse(x - 0.05, y - 0.03, 0.05, 0.05, shade(body, 0.8))
        canvas.ellipse(x + 0.05, y - 0.03, 0.05, 0.05, shade(body, 0.8))
    elif kind == 2:  # long ears
        canvas.ellipse(x - 0.03, y - 0.1, 0.03, 0.13, shade(body, 0.8), -12)
        canvas.ellipse(x + 0.03, y - 0.1, 0.03, 0.13, shade(body, 0.8), 12)
    elif kind == 3:  # one horn
        canvas.poly([(x - 0.02, y), (x + 0.07, y - 0.2), (x + 0.05, y + 0.02)], colour)
    elif kind == 4:  # antlers
        for s in (-1, 1):
            canvas.line([(x, y), (x + s * 0.07, y - 0.09), (x + s * 0.07, y - 0.19)], 0.02, colour)
            canvas.line([(x + s * 0.07, y - 0.1), (x + s * 0.13, y - 0.14)], 0.02, colour)
    else:  # crest
        canvas.poly(
            [
                (x - 0.09, y + 0.05),
                (x - 0.1, y - 0.09),
                (x - 0.04, y - 0.03),
                (x - 0.02, y - 0.13),
                (x + 0.03, y - 0.03),
                (x + 0.07, y - 0.1),
                (x + 0.08, y + 0.04),
            ],
            colour,
        )


def _quadruped(canvas: Canvas, g: tuple[float, ...], body: Colour, mark: Colour, rng: Random) -> None:
    leg, neck = 0.12 + 0.16 * g[7], 0.02 + 0.24 * g[6]
    rx, ry = 0.2 + 0.06 * g[8], 0.11 + 0.06 * g[9]
    cx, cy = 0.45, 0.8 - leg - ry * 0.7
    dark, step = shade(body, 0.7), rng.uniform(-0.03, 0.03)
    for x, s in ((-0.75, 1), (-0.45, -1), (0.5, 1), (0.78, -1)):
        canvas.poly(
            [
                (cx + rx * x - 0.03, cy),
                (cx + rx * x + 0.03, cy),
                (cx + rx * x + 0.03 + s * step, cy + ry * 0.7 + leg),
                (cx + rx * x - 0.03 + s * step, cy + ry * 0.7 + leg),
            ],
            dark if s < 0 else shade(body, 0.85),
        )
    _tail(canvas, choice(g[5], 4), body, mark, cx - rx, cy)
    hx, hy = cx + rx + 0.06, cy - ry * 0.5 - neck
    canvas.poly(
        [(cx + rx * 0.5, cy - ry * 0.4), (cx + rx * 0.98, cy + ry * 0.3), (hx + 0.05, hy), (hx - 0.06, hy)],
        body,
    )
    canvas.ellipse(cx, cy, rx, ry, body)
    _pattern(canvas, choice(g[2], 5), mark, cx, cy, rx, ry)
    _head_gear(canvas, choice(g[4], 6), mark, body, hx - 0.01, hy - 0.06)
    canvas.ellipse(hx, hy, 0.085 + 0.02 * g[10], 0.075, body)
    canvas.ellipse(hx + 0.07 + 0.04 * g[11], hy + 0.025, 0.05, 0.04, shade(body, 1.25))
    canvas.ellipse(hx + 0.11 + 0.04 * g[11], hy + 0.015, 0.014, 0.012, (20, 20, 20))
    _eye(canvas, hx + 0.02, hy - 0.02)


def _tail(canvas: Canvas, kind: int, body: Colour, mark: Colour, x: float, y: float) -> None:
    if kind == 0:
        canvas.ellipse(x - 0.01, y - 0.03, 0.045, 0.045, mark)
    elif kind == 1:
        canvas.line([(x + 0.02, y), (x - 0.08, y - 0.06), (x - 0.09, y - 0.2)], 0.028, body)
    elif kind == 2:
        canvas.ellipse(x - 0.07, y - 0.06, 0.13, 0.055, shade(body, 0.85), 40)
    else:
        canvas.line([(x + 0.02, y), (x - 0.1, y + 0.06)], 0.028, body)
        canvas.ellipse(x - 0.11, y + 0.08, 0.035, 0.05, mark)


def _bird(canvas: Canvas, g: tuple[float, ...], body: Colour, mark: Colour, rng: Random) -> None:
    leg, neck = 0.08 + 0.2 * g[7], 0.04 + 0.2 * g[6]
    rx, ry = 0.17 + 0.05 * g[8], 0.12 + 0.05 * g[9]
    cx, cy = 0.46, 0.82 - leg - ry
    beak = PALETTE[choice(g[10], 3)]
    for x in (-0.04, 0.06):
        canvas.line(
            [(cx + x, cy + ry * 0.7), (cx + x, cy + ry + leg), (cx + x + 0.06, cy + ry + leg)], 0.018, beak
        )
    spread = 0.05 + 0.1 * g[5]
    canvas.poly(
        [
            (cx - rx * 0.6, cy - 0.03),
            (cx - rx - 0.17, cy - spread),
            (cx - rx - 0.15, cy + spread),
            (cx - rx * 0.6, cy + 0.06),
        ],
        mark if choice(g[5], 4) % 2 else shade(body, 0.7),
    )
    hx, hy = cx + rx * 0.8, cy - ry * 0.6 - neck
    canvas.poly([(cx + rx * 0.2, cy - ry * 0.5), (cx + rx * 0.9, cy), (hx + 0.05, hy), (hx - 0.05, hy)], body)
    canvas.ellipse(cx, cy, rx, ry, body)
    _pattern(canvas, choice(g[2], 5), mark, cx, cy, rx, ry)
    lift = rng.uniform(-8, 8)
    canvas.ellipse(cx - rx * 0.2, cy - 0.01, rx * 0.6, ry * 0.4, shade(body, 0.72), 18 + lift)
    if choice(g[4], 6) > 2:
        _head_gear(canvas, 5, mark, body, hx, hy - 0.06)
    canvas.poly([(hx + 0.04, hy - 0.03), (hx + 0.13 + 0.1 * g[11], hy + 0.015), (hx + 0.04, hy + 0.04)], beak)
    canvas.ellipse(hx, hy, 0.075, 0.07, body if choice(g[4], 2) else mark)
    _eye(canvas, hx + 0.025, hy - 0.015)


def _fish(canvas: Canvas, g: tuple[float, ...], body: Colour, mark: Colour, rng: Random) -> None:
    canvas.rest()
    water = rng.choice(((150, 205, 230), (120, 190, 210), (170, 215, 225), (95, 165, 205)))
    canvas.gradient(shade(water, 1.2), shade(water, 0.8))
    canvas.pose(rng, turn=10.0)
    rx, ry = 0.24 + 0.07 * g[8], 0.11 + 0.12 * g[9]
    cx, cy = 0.53, 0.5
    fork = 0.08 + 0.12 * g[5]
    canvas.poly(
        [(cx - rx * 0.8, cy), (cx - rx - 0.15, cy - fork), (cx - rx - 0.08, cy), (cx - rx - 0.15, cy + fork)],
        mark if choice(g[5], 4) % 2 else shade(body, 0.75),
    )
    fin = 0.06 + 0.16 * g[6]
    canvas.poly(
        [(cx - rx * 0.5, cy - ry * 0.7), (cx - rx * 0.1, cy - ry - fin), (cx + rx * 0.5, cy - ry * 0.7)],
        shade(body, 0.7),
    )
    canvas.poly(
        [
            (cx - rx * 0.2, cy + ry * 0.7),
            (cx - rx * 0.2, cy + ry + fin * 0.6),
            (cx + rx * 0.3, cy + ry * 0.7),
        ],
        shade(body, 0.7),
    )
    canvas.ellipse(cx, cy, rx, ry, body)
    _pattern(canvas, choice(g[2], 5), mark, cx - 0.03, cy, rx * 0.8, ry * 0.9)
    if choice(g[4], 6) > 3:
        canvas.line([(cx + rx * 0.8, cy - ry * 0.3), (cx + rx + 0.08, cy - ry - 0.08)], 0.02, mark)
        canvas.ellipse(cx + rx + 0.08, cy - ry - 0.09, 0.035, 0.035, (250, 240, 120))
    canvas.ellipse(cx + rx * 0.95, cy + 0.03, 0.03, 0.015, shade(body, 0.5))
    _eye(canvas, cx + rx * 0.65, cy - ry * 0.25)


def _shelled(canvas: Canvas, g: tuple[float, ...], body: Colour, mark: Colour, rng: Random) -> None:
    rx, ry = 0.22 + 0.06 * g[8], 0.18 + 0.12 * g[9]
    cx, cy, nod = 0.45, 0.72, rng.uniform(-0.02, 0.02)
    skin = other(g[6], body)
    for x in (-0.6, 0.6):
        canvas.ellipse(cx + rx * x, cy + 0.05, 0.055, 0.05 + 0.05 * g[7], shade(skin, 0.8))
    canvas.poly([(cx - rx, cy), (cx - rx - 0.05 - 0.12 * g[5], cy + 0.04), (cx - rx + 0.03, cy + 0.05)], skin)
    canvas.poly(
        [
            (cx + rx * 0.7, cy + 0.02),
            (cx + rx + 0.07, cy - 0.16 + nod),
            (cx + rx + 0.15, cy - 0.1 + nod),
            (cx + rx, cy + 0.05),
        ],
        skin,
    )
    hx, hy = cx + rx + 0.12, cy - 0.13 + nod
    _head_gear(canvas, choice(g[4], 6), mark, skin, hx - 0.01, hy - 0.05)
    canvas.ellipse(hx, hy, 0.08, 0.065, skin)
    _eye(canvas, hx + 0.03, hy - 0.015)
    dome = [
        (cx - rx, cy + 0.03),
        (cx - rx * 0.9, cy - ry * 0.5),
        (cx - rx * 0.5, cy - ry),
        (cx, cy - ry * 1.15),
        (cx + rx * 0.5, cy - ry),
        (cx + rx * 0.9, cy - ry * 0.5),
        (cx + rx, cy + 0.03),
    ]
    canvas.poly(dome, body)
    _pattern(canvas, choice(g[2], 5), mark, cx, cy - ry * 0.5, rx * 0.75, ry * 0.5)
    canvas.line([dome[0], dome[-1]], 0.03, shade(body, 0.6))
