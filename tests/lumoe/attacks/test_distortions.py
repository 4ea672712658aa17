"""Distorted pictures keep their size and mode, and the parameters show."""

import random
from collections.abc import Callable

import numpy as np
import pytest
from PIL import ImageOps
from PIL.Image import Image

from app.lumoe.attacks import distortions as d
from app.lumoe.demo import draw, world

PICTURE = draw(world().by_key["animals-03"], 7)
OTHER = draw(world().by_key["animals-04"], 7)
ALL = (d.crop, d.flip, d.rotate, d.jpeg, d.blur, d.noise, d.colour_shift, d.faded, d.greyscale, d.in_scene)


def difference(a: Image, b: Image) -> float:
    return float(np.abs(np.asarray(a, dtype=float) - np.asarray(b, dtype=float)).mean())


@pytest.mark.parametrize("distort", ALL, ids=lambda f: f.__name__)
def test_same_size_and_mode_other_pixels(distort: Callable[[Image, random.Random], Image]) -> None:
    shown = distort(PICTURE, random.Random(1))
    assert (shown.size, shown.mode) == (PICTURE.size, "RGB")
    assert difference(shown, PICTURE) > 0.3


def test_flip_is_the_mirror_image() -> None:
    assert d.flip(PICTURE, random.Random(0)).tobytes() == ImageOps.mirror(PICTURE).tobytes()


def test_greyscale_has_equal_channels() -> None:
    pixels = np.asarray(d.greyscale(PICTURE, random.Random(0)))
    assert (pixels[..., 0] == pixels[..., 1]).all()
    assert (pixels[..., 1] == pixels[..., 2]).all()


def test_noise_is_as_strong_as_its_range_says() -> None:
    grey = PICTURE.point(lambda _: 128)
    spread = float(np.asarray(d.noise(grey, random.Random(0)), dtype=float).std()) / 255
    low, high = d.RANGES["noise"]
    assert low * 0.9 <= spread <= high * 1.1


def test_two_subjects_are_both_there() -> None:
    both = d.beside(PICTURE, OTHER, random.Random(0))
    half = (both.width // 2, both.height // 2)
    halves = [both.crop((x, half[1] // 2, x + half[0], half[1] // 2 + half[1])) for x in (0, half[0])]
    for one in (PICTURE, OTHER):
        assert min(difference(h, one.resize(half)) for h in halves) < 8


def test_a_name_card_shows_text_within_its_borders() -> None:
    pixels = np.asarray(d.name_card("Vavuk Vleltu", random.Random(0)).convert("L")) < 40
    assert pixels.sum() > 400
    assert not pixels[:, 0].any()
    assert not pixels[:, -1].any()


def test_a_caption_leaves_the_upper_part_alone() -> None:
    shown = d.captioned(PICTURE, "Holiday 2019")
    upper = (0, 0, PICTURE.width, int(PICTURE.height * 0.8))
    assert difference(shown.crop(upper), PICTURE.crop(upper)) == 0
    assert difference(shown, PICTURE) > 1
