"""A small antialiased canvas in unit coordinates: (0, 0) is top left, (1, 1) bottom right."""

from collections.abc import Sequence
from math import cos, pi, sin
from random import Random
from typing import Final

import numpy as np
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
Point = tuple[float, float]

OVERSAMPLING: Final = 2
_CIRCLE: Final = tuple((cos(2 * pi * i / 28), sin(2 * pi * i / 28)) for i in range(28))

PALETTE: Final[tuple[Colour, ...]] = (
    (214, 48, 49),
    (241, 130, 40),
    (247, 205, 60),
    (120, 190, 60),
    (28, 120, 70),
    (60, 190, 190),
    (70, 140, 230),
    (38, 56, 150),
    (140, 80, 190),
    (235, 110, 170),
    (130, 82, 50),
    (235, 235, 228),
    (110, 115, 122),
    (35, 35, 42),
)
"""Fourteen colours that stay apart under changing light."""


def palette(gene: float, limit: int = len(PALETTE)) -> Colour:
    """Map a gene in [0, 1) to one of the first ``limit`` palette colours."""
    return PALETTE[int(gene * limit)]


def other(gene: float, than: Colour, limit: int = len(PALETTE)) -> Colour:
    """Map a gene to a palette colour different from ``than``."""
    choices = [c for c in PALETTE[:limit] if c != than]
    return choices[int(gene * len(choices))]


def choice(gene: float, n: int) -> int:
    """Map a gene in [0, 1) to 0..n-1."""
    return int(gene * n)


def shade(colour: Colour, factor: float) -> Colour:
    """Darken (factor < 1) or lighten (factor > 1) a colour."""
    if factor <= 1:
        return int(colour[0] * factor), int(colour[1] * factor), int(colour[2] * factor)
    f = min(factor - 1, 1.0)
    return (
        int(colour[0] + (255 - colour[0]) * f),
        int(colour[1] + (255 - colour[1]) * f),
        int(colour[2] + (255 - colour[2]) * f),
    )


def mix(a: Colour, b: Colour, t: float) -> Colour:
    """Blend two colours, t = 0 gives a."""
    return (int(a[0] + (b[0] - a[0]) * t), int(a[1] + (b[1] - a[1]) * t), int(a[2] + (b[2] - a[2]) * t))


class Canvas:
    """Draws shapes under a pose (shift, scale, turn, mirror) and finishes them with light and noise."""

    def __init__(self, size: int, background: Colour) -> None:
        self.size = size
        self._side = size * OVERSAMPLING
        self.image = Image.new("RGB", (self._side, self._side), background)
        self._draw = ImageDraw.Draw(self.image)
        self._still = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
        self._pose = self._still

    def pose(self, rng: Random, turn: float = 8.0, mirror: bool = True) -> None:
        """Choose a random pose around the middle for all that is drawn from now on (``turn`` in degrees)."""
        angle = rng.uniform(-turn, turn) * pi / 180
        scale = rng.uniform(0.84, 1.08)
        flip = -1.0 if mirror and rng.random() < 0.5 else 1.0
        a, b = scale * cos(angle), scale * sin(angle)
        dx, dy = 0.5 + rng.uniform(-0.06, 0.06), 0.5 + rng.uniform(-0.05, 0.05)
        self._pose = (a * flip, -b, dx - 0.5 * a * flip + 0.5 * b, b * flip, a, dy - 0.5 * b * flip - 0.5 * a)

    def rest(self) -> None:
        """Draw without a pose from now on."""
        self._pose = self._still

    def _map(self, points: Sequence[Point]) -> list[Point]:
        a, b, c, d, e, f = self._pose
        s = self._side
        return [((a * x + b * y + c) * s, (d * x + e * y + f) * s) for x, y in points]

    def poly(self, points: Sequence[Point], fill: Colour) -> None:
        """Fill a polygon."""
        self._draw.polygon(self._map(points), fill=fill)

    def rect(self, x0: float, y0: float, x1: float, y1: float, fill: Colour) -> None:
        """Fill a rectangle."""
        self.poly(((x0, y0), (x1, y0), (x1, y1), (x0, y1)), fill)

    def ellipse(self, cx: float, cy: float, rx: float, ry: float, fill: Colour, angle: float = 0.0) -> None:
        """Fill an ellipse, turned by ``angle`` degrees."""
        if angle:
            c, s = cos(angle * pi / 180), sin(angle * pi / 180)
            self.poly(
                [(cx + c * rx * u - s * ry * v, cy + s * rx * u + c * ry * v) for u, v in _CIRCLE], fill
            )
        else:
            self.poly([(cx + rx * u, cy + ry * v) for u, v in _CIRCLE], fill)

    def ring(
        self, cx: float, cy: float, rx: float, ry: float, width: float, fill: Colour, angle: float = 0.0
    ) -> None:
        """Draw the outline of an ellipse."""
        c, s = cos(angle * pi / 180), sin(angle * pi / 180)
        points = [(cx + c * rx * u - s * ry * v, cy + s * rx * u + c * ry * v) for u, v in _CIRCLE]
        self.line([*points, points[0]], width, fill)

    def line(self, points: Sequence[Point], width: float, fill: Colour) -> None:
        """Draw a polyline, ``width`` in units of the picture's side."""
        self._draw.line(self._map(points), fill=fill, width=max(1, round(width * self._side)), joint="curve")

    def star(
        self,
        cx: float,
        cy: float,
        outer: float,
        inner: float,
        points: int,
        fill: Colour,
        angle: float = -90.0,
    ) -> None:
        """Fill a star with ``points`` rays."""
        corners: list[Point] = []
        for i in range(2 * points):
            r = outer if i % 2 == 0 else inner
            t = angle * pi / 180 + pi * i / points
            corners.append((cx + r * cos(t), cy + r * sin(t)))
        self.poly(corners, fill)

    def regular(self, cx: float, cy: float, r: float, sides: int, fill: Colour, angle: float = -90.0) -> None:
        """Fill a regular polygon."""
        turn = angle * pi / 180
        self.poly(
            [
                (cx + r * cos(turn + 2 * pi * i / sides), cy + r * sin(turn + 2 * pi * i / sides))
                for i in range(sides)
            ],
            fill,
        )

    def gradient(self, top: Colour, bottom: Colour, y0: float = 0.0, y1: float = 1.0) -> None:
        """Fill a band of the unposed picture with a vertical gradient."""
        steps = 10
        for i in range(steps):
            a, b = y0 + (y1 - y0) * i / steps, y0 + (y1 - y0) * (i + 1) / steps
            self._draw.rectangle(
                (0, a * self._side, self._side, b * self._side), fill=mix(top, bottom, i / 9)
            )

    def finish(self, rng: Random) -> Image.Image:
        """Scale down, then add a light (direction, brightness, colour) and some noise. RGB, size x size."""
        small = self.image.reduce(OVERSAMPLING)
        n = self.size
        pixels = np.asarray(small, dtype=np.float32)  # (n, n, 3)
        axis = np.linspace(-1.0, 1.0, n, dtype=np.float32)
        slope_x, slope_y = rng.uniform(-0.13, 0.13), rng.uniform(-0.13, 0.13)
        light = rng.uniform(0.85, 1.12) + slope_x * axis[None, :] + slope_y * axis[:, None]
        tint = np.array([rng.uniform(0.94, 1.06) for _ in range(3)], dtype=np.float32)
        pixels = pixels * light[:, :, None] * tint
        noise = np.random.default_rng(rng.getrandbits(32))
        grain = noise.standard_normal((64, 64, 1), dtype=np.float32) * rng.uniform(0.0, 7.0)
        if n != 64:
            index = np.arange(n) * 64 // n
            grain = grain[index][:, index]
        return Image.fromarray(np.clip(pixels + grain, 0, 255).astype(np.uint8))


def backdrop(rng: Random, size: int) -> Canvas:
    """Return a canvas with a random room or plain behind the subject."""
    base = mix(rng.choice(PALETTE[:10]), (225, 225, 222), rng.uniform(0.55, 0.9))
    canvas = Canvas(size, base)
    kind = rng.randrange(4)
    if kind == 1:
        canvas.gradient(shade(base, rng.uniform(1.0, 1.5)), shade(base, rng.uniform(0.75, 1.0)))
    elif kind == 2:
        canvas.rect(0, rng.uniform(0.6, 0.85), 1, 1, shade(base, 0.8))
    elif kind == 3:
        for _ in range(5):
            canvas.ellipse(rng.random(), rng.random(), 0.12, 0.12, shade(base, rng.uniform(0.88, 1.15)))
    return canvas
