"""Views: augmented forms of the owner's pictures, deterministic by seed, disjoint by split.

Every parameter axis is cut into a comb of ten teeth; fit, calibrate and report own different parts of
each tooth, so no two splits ever draw the same rotation, crop, size, quality, blur or light.
"""

from __future__ import annotations

import io
import random
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageEnhance, ImageFilter

from app.lumoe.probes import Split
from workers.forgetset.refusals import stable_hash

_TEETH = 10
_PART: dict[Split, tuple[float, float]] = {
    "fit": (0.0, 0.5),
    "calibrate": (0.55, 0.7),
    "report": (0.75, 0.95),
}


@dataclass(frozen=True, slots=True)
class ViewParameters:
    """How one view is made. Angles in degrees, crop and scale as shares of the side, quality as JPEG's."""

    angle: float
    crop: float
    shift_x: float
    shift_y: float
    scale: float
    light: float
    contrast: float
    quality: float
    blur: float
    flip: bool


def draw_unit(rng: random.Random, split: Split) -> float:
    """Return a number in [0, 1) from the part of the axis that belongs to the split."""
    low, high = _PART[split]
    return (rng.randrange(_TEETH) + rng.uniform(low, high)) / _TEETH


def draw_parameters(seed: int, index: int, split: Split) -> ViewParameters:
    """Return the parameters of view ``index`` of a split; the same for the same arguments."""
    rng = random.Random(stable_hash("view", seed, index, split))  # noqa: S311 - augmentation, not secrecy

    def between(low: float, high: float) -> float:
        return low + (high - low) * draw_unit(rng, split)

    return ViewParameters(
        angle=between(-7, 7),
        crop=between(0, 0.12),
        shift_x=between(-1, 1),
        shift_y=between(-1, 1),
        scale=between(0.7, 1.0),
        light=between(0.85, 1.15),
        contrast=between(0.88, 1.14),
        quality=between(55, 95),
        blur=between(0, 0.008),
        flip=rng.random() < 0.3,
    )


def apply(picture: Image.Image, p: ViewParameters) -> Image.Image:
    """Return one view of a picture (RGB, the picture's own size)."""
    image = picture.convert("RGB")
    width, height = image.size
    if p.flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    corner = image.getpixel((0, 0))
    image = image.rotate(p.angle, Image.Resampling.BILINEAR, fillcolor=corner)
    dx, dy = p.crop * width / 2, p.crop * height / 2
    left, top = dx + p.shift_x * dx, dy + p.shift_y * dy
    box = (round(left), round(top), round(left + width - 2 * dx), round(top + height - 2 * dy))
    image = image.crop(box).resize(
        (max(8, round(width * p.scale)), max(8, round(height * p.scale))), Image.Resampling.BILINEAR
    )
    image = ImageEnhance.Contrast(ImageEnhance.Brightness(image).enhance(p.light)).enhance(p.contrast)
    if p.blur * width > 0.3:
        image = image.filter(ImageFilter.GaussianBlur(p.blur * width))
    buffer = io.BytesIO()
    image.resize((width, height), Image.Resampling.BILINEAR).save(buffer, "JPEG", quality=round(p.quality))
    return Image.open(io.BytesIO(buffer.getvalue())).convert("RGB")


def views(pictures: Sequence[Image.Image], n: int, split: Split, seed: int = 0) -> list[Image.Image]:
    """Return n views, going round the pictures; fit starts with the pictures as they came."""
    if not pictures:
        return []
    own = [p.convert("RGB") for p in pictures[:n]] if split == "fit" else []
    made = [
        apply(pictures[i % len(pictures)], draw_parameters(seed, i, split))
        for i in range(max(0, n - len(own)))
    ]
    return own + made


def split_pictures(pictures: Sequence[Image.Image]) -> dict[Split, list[Image.Image]]:
    """Divide the owner's pictures among the splits.

    With three or more, about a quarter (at least one) is kept for calibration and a quarter for the
    report, and those are seen by nothing else; with one or two, every split works on its own views of all.
    """
    if len(pictures) < 3:
        return {"fit": list(pictures), "calibrate": list(pictures), "report": list(pictures)}
    held = max(1, len(pictures) // 4)
    fit = len(pictures) - 2 * held
    return {
        "fit": list(pictures[:fit]),
        "calibrate": list(pictures[fit : fit + held]),
        "report": list(pictures[fit + held :]),
    }
