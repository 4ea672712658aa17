"""PNG as we write it: what other decoders make of it, and that it holds pixels alone."""

import io

import numpy as np
import pytest
from PIL import Image

from app.kit.png import encode_png


def noise(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(width * height).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (3, 2), (64, 48), (1536, 11)])
def test_every_pixel_comes_back(size: tuple[int, int]) -> None:
    image = noise(*size)
    with Image.open(io.BytesIO(encode_png(image))) as read:
        read.load()  # with the checksums
        assert (read.format, read.mode, read.size, read.info) == ("PNG", "RGB", size, {})
        assert read.tobytes() == image.tobytes()


def test_drawings_are_small() -> None:
    assert len(encode_png(Image.new("RGB", (500, 500), "#123456"))) < 10_000


def test_other_modes_become_rgb() -> None:
    with Image.open(io.BytesIO(encode_png(Image.new("L", (4, 4), 7)))) as read:
        assert read.getpixel((0, 0)) == (7, 7, 7)
