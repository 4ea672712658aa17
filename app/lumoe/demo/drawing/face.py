"""Portraits of people."""

from random import Random
from typing import Final

from app.lumoe.demo.drawing.canvas import PALETTE, Canvas, Colour, backdrop, choice, palette, shade

SKINS: Final[tuple[Colour, ...]] = (
    (250, 220, 195),
    (235, 190, 155),
    (205, 150, 110),
    (165, 110, 75),
    (120, 76, 50),
    (80, 52, 38),
)
HAIRS: Final[tuple[Colour, ...]] = (
    (28, 24, 24),
    (92, 58, 34),
    (160, 100, 50),
    (232, 200, 110),
    (190, 70, 30),
    (160, 160, 165),
    (240, 238, 232),
    (60, 110, 220),
    (225, 90, 170),
    (70, 170, 90),
)
EYES: Final[tuple[Colour, ...]] = (
    (60, 40, 25),
    (40, 110, 200),
    (50, 140, 70),
    (110, 110, 120),
    (190, 130, 30),
)


def draw_face(genome: tuple[float, ...], rng: Random, size: int) -> Canvas:
    """Genes: hair style, hair colour, skin, hat, glasses, beard, accent colour, eye colour, proportions."""
    g = genome
    canvas = backdrop(rng, size)
    canvas.pose(rng)
    skin, hair = SKINS[choice(g[2], 6)], HAIRS[choice(g[1], 10)]
    style, hat = choice(g[0], 8), choice(g[3], 6)
    accent = palette(g[6], 12)
    rx, ry = 0.19 + 0.06 * g[8], 0.26 + 0.05 * g[9]
    cloth = rng.choice(PALETTE)
    _back_hair(canvas, style, hair, rx, ry)
    canvas.ellipse(0.5, 1.02, 0.4, 0.24, cloth)
    canvas.rect(0.43, 0.66, 0.57, 0.84, shade(skin, 0.88))
    for side in (-1, 1):
        canvas.ellipse(0.5 + side * rx, 0.5, 0.035, 0.055, shade(skin, 0.9))
    canvas.ellipse(0.5, 0.48, rx, ry, skin)
    _beard(canvas, choice(g[5], 5), hair, skin, rx, ry)
    _features(canvas, g, skin, hair, rx, rng)
    _front_hair(canvas, style, hair, rx, ry)
    _glasses(canvas, choice(g[4], 5), accent if hat == 0 else (25, 25, 30), 0.075 + 0.02 * g[10])
    _hat(canvas, hat, accent, rx, ry)
    return canvas


def _back_hair(canvas: Canvas, style: int, hair: Colour, rx: float, ry: float) -> None:
    if style == 3:  # long
        canvas.rect(0.5 - rx - 0.07, 0.42, 0.5 + rx + 0.07, 0.9, hair)
        canvas.ellipse(0.5, 0.42, rx + 0.07, ry + 0.02, hair)
    elif style == 4:  # afro
        canvas.ellipse(0.5, 0.36, rx + 0.15, ry + 0.07, hair)
    elif style == 6:  # bob
        canvas.rect(0.5 - rx - 0.06, 0.4, 0.5 + rx + 0.06, 0.68, hair)
        canvas.ellipse(0.5, 0.41, rx + 0.06, ry, hair)
    elif style == 7:  # two bunches
        for side in (-1, 1):
            canvas.ellipse(0.5 + side * (rx + 0.09), 0.34, 0.1, 0.1, hair)


def _front_hair(canvas: Canvas, style: int, hair: Colour, rx: float, ry: float) -> None:
    top = 0.48 - ry
    cap = [
        (0.5 - rx - 0.01, 0.44),
        (0.5 - rx, top + 0.1),
        (0.5 - rx * 0.6, top - 0.02),
        (0.5, top - 0.05),
        (0.5 + rx * 0.6, top - 0.02),
        (0.5 + rx, top + 0.1),
        (0.5 + rx + 0.01, 0.44),
    ]
    if style == 0:  # bald
        return
    if style == 1:  # short
        canvas.poly([*cap, (0.5 + rx * 0.8, top + 0.12), (0.5 - rx * 0.8, top + 0.12)], hair)
    elif style == 2:  # side parting
        canvas.poly(
            [*cap, (0.5 + rx * 0.85, top + 0.2), (0.5 + rx * 0.1, top + 0.05), (0.5 - rx * 0.85, top + 0.14)],
            hair,
        )
    elif style == 5:  # mohawk
        canvas.poly(
            [
                (0.45, top + 0.08),
                (0.42, top - 0.14),
                (0.5, top - 0.17),
                (0.58, top - 0.14),
                (0.55, top + 0.08),
            ],
            hair,
        )
    elif style == 6:  # bob with a fringe
        canvas.poly([*cap, (0.5 + rx * 0.9, top + 0.17), (0.5 - rx * 0.9, top + 0.17)], hair)
    else:
        canvas.poly(
            [*cap, (0.5 + rx * 0.75, top + 0.13), (0.5, top + 0.06), (0.5 - rx * 0.75, top + 0.13)], hair
        )


def _features(
    canvas: Canvas, g: tuple[float, ...], skin: Colour, hair: Colour, rx: float, rng: Random
) -> None:
    gap, eye = 0.075 + 0.025 * g[10], EYES[choice(g[7], 5)]
    look = rng.uniform(-0.008, 0.008)
    brow = 0.008 + 0.02 * g[11]
    for side in (-1, 1):
        x = 0.5 + side * gap
        canvas.ellipse(x, 0.47, 0.036, 0.026, (250, 250, 250))
        canvas.ellipse(x + look, 0.47, 0.021, 0.023, eye)
        canvas.ellipse(x + look, 0.47, 0.009, 0.01, (10, 10, 10))
        canvas.rect(x - 0.045, 0.415 - brow / 2, x + 0.045, 0.415 + brow / 2, shade(hair, 0.75))
    nose = 0.02 + 0.025 * g[12]
    canvas.poly([(0.5, 0.47), (0.5 - nose, 0.575), (0.5 + nose, 0.575)], shade(skin, 0.82))
    width, smile = 0.05 + 0.05 * g[13], rng.uniform(0.0, 0.03)
    canvas.poly(
        [
            (0.5 - width, 0.63 - smile * 0.5),
            (0.5, 0.625),
            (0.5 + width, 0.63 - smile * 0.5),
            (0.5, 0.65 + smile),
        ],
        (175, 50, 55) if g[14] < 0.5 else shade(skin, 0.6),
    )
    if g[15] < 0.3:  # freckles
        for x, y in ((-0.13, 0.55), (-0.1, 0.58), (-0.07, 0.55), (0.13, 0.55), (0.1, 0.58), (0.07, 0.55)):
            canvas.ellipse(0.5 + x * rx / 0.2, y, 0.01, 0.01, shade(skin, 0.65))
    elif g[15] < 0.5:  # rosy cheeks
        for side in (-1, 1):
            canvas.ellipse(0.5 + side * 0.12, 0.57, 0.04, 0.03, (230, 110, 110))
    elif g[15] < 0.65:  # a mole
        canvas.ellipse(0.59, 0.6, 0.014, 0.014, (50, 30, 25))


def _beard(canvas: Canvas, kind: int, hair: Colour, skin: Colour, rx: float, ry: float) -> None:
    if kind == 1:  # full beard
        canvas.poly(
            [
                (0.5 - rx, 0.52),
                (0.5 - rx * 0.8, 0.48 + ry * 0.85),
                (0.5, 0.52 + ry),
                (0.5 + rx * 0.8, 0.48 + ry * 0.85),
                (0.5 + rx, 0.52),
                (0.5 + rx * 0.6, 0.59),
                (0.5 - rx * 0.6, 0.59),
            ],
            hair,
        )
    elif kind == 2:  # moustache
        canvas.poly([(0.39, 0.625), (0.5, 0.585), (0.61, 0.625), (0.5, 0.612)], hair)
    elif kind == 3:  # goatee
        canvas.ellipse(0.5, 0.5 + ry * 0.85, 0.06, 0.06, hair)
    if kind == 1:
        canvas.ellipse(0.5, 0.635, 0.08, 0.035, shade(skin, 0.95))


def _glasses(canvas: Canvas, kind: int, colour: Colour, gap: float) -> None:
    if kind < 2:
        return
    for side in (-1, 1):
        x = 0.5 + side * gap
        if kind == 2:
            canvas.ring(x, 0.47, 0.058, 0.055, 0.016, colour)
        elif kind == 3:
            canvas.line(
                [(x - 0.06, 0.43), (x + 0.06, 0.43), (x + 0.06, 0.515), (x - 0.06, 0.515), (x - 0.06, 0.43)],
                0.018,
                colour,
            )
        else:
            canvas.ellipse(x, 0.47, 0.062, 0.05, shade(colour, 0.5))
    canvas.line([(0.5 - gap + 0.05, 0.465), (0.5 + gap - 0.05, 0.465)], 0.014, colour)


def _hat(canvas: Canvas, kind: int, colour: Colour, rx: float, ry: float) -> None:
    top = 0.48 - ry
    if kind == 1:  # cap
        canvas.ellipse(0.5, top + 0.07, rx + 0.01, 0.12, colour)
        canvas.rect(0.5 - 0.02, top + 0.07, 0.5 + rx + 0.14, top + 0.12, shade(colour, 0.75))
    elif kind == 2:  # top hat
        canvas.rect(0.5 - rx * 0.75, top - 0.16, 0.5 + rx * 0.75, top + 0.08, colour)
        canvas.rect(0.5 - rx - 0.07, top + 0.05, 0.5 + rx + 0.07, top + 0.1, shade(colour, 0.75))
    elif kind == 3:  # woollen hat
        canvas.ellipse(0.5, top + 0.05, rx + 0.015, 0.13, colour)
        canvas.rect(0.5 - rx - 0.02, top + 0.06, 0.5 + rx + 0.02, top + 0.13, shade(colour, 1.35))
        canvas.ellipse(0.5, top - 0.09, 0.05, 0.05, shade(colour, 1.35))
    elif kind == 4:  # head band
        canvas.rect(0.5 - rx, top + 0.09, 0.5 + rx, top + 0.135, colour)
