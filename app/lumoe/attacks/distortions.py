"""Distortions: pictures changed so that a person still sees the subject and a filter may not.

Every parameter is drawn from a range that no training or calibration view comes near
(:data:`workers.forgetset.attacks.PICTURE_RANGES`). Pictures are RGB; the result has the first one's size
unless it says otherwise.
"""

from __future__ import annotations

import io
import random
from typing import Final

import numpy as np
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFilter, ImageFont, ImageOps
from PIL.Image import Image

RANGES: Final[dict[str, tuple[float, float]]] = {
    "rotation": (9.0, 20.0),
    "crop": (0.16, 0.3),
    "scale": (0.4, 0.6),
    "gain": (0.66, 0.82),
    "contrast": (0.6, 0.8),
    "quality": (12.0, 35.0),
    "blur": (0.011, 0.018),
    "noise": (0.05, 0.11),
}
"""What the reported attacks draw from: degrees either way, shares of the side cut away or left, factors of a
colour channel, JPEG quality, blur radius as a share of the side, noise as a share of full scale."""


def _between(name: str, rng: random.Random) -> float:
    return rng.uniform(*RANGES[name])


def crop(picture: Image, rng: random.Random) -> Image:
    """Cut a sixth to a third off the sides, unevenly, and enlarge what is left."""
    width, height = picture.size
    share = _between("crop", rng)
    left, top = round(width * share * rng.random()), round(height * share * rng.random())
    box = (left, top, left + round(width * (1 - share)), top + round(height * (1 - share)))
    return picture.crop(box).resize(picture.size, Pillow.Resampling.BICUBIC)


def flip(picture: Image, _: random.Random) -> Image:
    """Return the mirror image; it has no parameter."""
    return ImageOps.mirror(picture)


def rotate(picture: Image, rng: random.Random) -> Image:
    """Turn the picture by 9 to 20 degrees either way, corners filled with the first pixel's colour."""
    angle = _between("rotation", rng) * rng.choice((-1, 1))
    return picture.rotate(angle, Pillow.Resampling.BICUBIC, fillcolor=picture.getpixel((0, 0)))


def jpeg(picture: Image, rng: random.Random) -> Image:
    """Compress hard and open again."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=round(_between("quality", rng)))
    return Pillow.open(io.BytesIO(buffer.getvalue())).convert("RGB")


def blur(picture: Image, rng: random.Random) -> Image:
    """Blur by a Gaussian."""
    return picture.filter(ImageFilter.GaussianBlur(_between("blur", rng) * picture.width))


def noise(picture: Image, rng: random.Random) -> Image:
    """Add Gaussian noise to every channel."""
    pixels = np.asarray(picture, dtype=np.float32)
    grain = np.random.default_rng(rng.getrandbits(32)).normal(0, 255 * _between("noise", rng), pixels.shape)
    return Pillow.fromarray(np.clip(pixels + grain, 0, 255).astype(np.uint8))


def colour_shift(picture: Image, rng: random.Random) -> Image:
    """Weaken one channel by a fifth to a third."""
    pixels = np.asarray(picture, dtype=np.float32).copy()
    pixels[..., rng.randrange(3)] *= _between("gain", rng)
    return Pillow.fromarray(pixels.astype(np.uint8))


def faded(picture: Image, rng: random.Random) -> Image:
    """Take contrast away towards mid-grey."""
    factor = _between("contrast", rng)
    return Pillow.fromarray((128 + (np.asarray(picture, dtype=np.float32) - 128) * factor).astype(np.uint8))


def greyscale(picture: Image, _: random.Random) -> Image:
    """Take all colour away; it has no parameter."""
    return ImageOps.grayscale(picture).convert("RGB")


def in_scene(picture: Image, rng: random.Random) -> Image:
    """Put the subject as a small part (about half the side) somewhere into a larger scene of plain shapes."""
    width, height = picture.size
    scene = Pillow.new("RGB", picture.size, _muted(rng))
    pen = ImageDraw.Draw(scene)
    for _ in range(9):
        x, y = rng.randrange(width), rng.randrange(height)
        w, h = rng.randrange(width // 10, width // 3), rng.randrange(height // 10, height // 3)
        pen.rectangle((x, y, x + w, y + h), fill=_muted(rng))
    side = _between("scale", rng)
    small = picture.resize((round(width * side), round(height * side)), Pillow.Resampling.LANCZOS)
    place = (rng.randrange(width - small.width), rng.randrange(height - small.height))
    scene.paste(small, place)
    return scene


def beside(picture: Image, other: Image, rng: random.Random) -> Image:
    """Show two subjects in one picture, left and right, each in half of it, uncut."""
    width, height = picture.size
    pair = [picture, other]
    rng.shuffle(pair)
    both = Pillow.new("RGB", picture.size, pair[0].getpixel((0, 0)))
    for i, one in enumerate(pair):
        half = one.resize((width // 2, height // 2), Pillow.Resampling.LANCZOS)
        both.paste(half, (i * (width // 2), height // 4))
    return both


def name_card(text: str, rng: random.Random, size: int = 224) -> Image:
    """Return a picture that shows nothing but a name, written large."""
    card = Pillow.new("RGB", (size, size), _muted(rng))
    words = text.split() or [text]
    longest = max(len(word) for word in words)
    font = ImageFont.load_default(min(size / (len(words) + 1), 1.5 * size / longest))
    pen = ImageDraw.Draw(card)
    pen.multiline_text((size / 2, size / 2), "\n".join(words), font=font, fill="black", anchor="mm")
    return card


def captioned(picture: Image, text: str) -> Image:
    """Write a name across the foot of a picture."""
    width, height = picture.size
    shown = picture.copy()
    pen = ImageDraw.Draw(shown)
    pen.rectangle((0, height * 0.84, width, height), fill="white")
    font = ImageFont.load_default(min(height * 0.12, 1.6 * width / max(1, len(text))))
    pen.text((width / 2, height * 0.92), text, font=font, fill="black", anchor="mm")
    return shown


def _muted(rng: random.Random) -> tuple[int, int, int]:
    return (rng.randrange(150, 235), rng.randrange(150, 235), rng.randrange(150, 235))
