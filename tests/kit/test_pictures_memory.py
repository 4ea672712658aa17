"""Whole pictures as large as may be: within 200 MiB and two seconds each, and no worse for the gate.

Each is made and read in a child process that the kernel holds to the limits of `tests.kit.damaged`.
"""

import io
import os
import signal
import subprocess
import sys
from typing import Any

import pytest
from PIL import Image, ImageChops, ImageStat

from app.kit.pictures import (
    DECODER_BYTES,
    LARGE_PIXELS,
    PictureTooManyPixels,
    open_picture,
    read_picture,
)
from app.settings import Settings
from tests.kit import damaged

LIMITS = Settings(_env_file=None)  # type: ignore[call-arg]  # pydantic-settings' own

LARGEST: dict[str, tuple[str, str, tuple[int, int], dict[str, Any]]] = {
    "png": ("PNG", "RGBA", (6300, 6300), {"compress_level": 1}),
    "png-16": ("PNG", "I;16", (6300, 6300), {"compress_level": 1}),
    "gif": ("GIF", "P", (6300, 6300), {}),
    "jpeg": ("JPEG", "RGB", (6300, 6300), {"subsampling": "4:2:0"}),
    "jpeg-progressive": ("JPEG", "RGB", (5300, 5300), {"subsampling": "4:4:4", "progressive": True}),
    "jpeg-inks": ("JPEG", "CMYK", (4680, 4680), {"progressive": True}),
    "webp": ("WEBP", "RGBA", (4032, 3024), {"lossless": True, "method": 0}),
    "webp-lossy": ("WEBP", "RGB", (4032, 3024), {"method": 0}),
}


def saved(image: Image.Image, format: str, **options: Any) -> bytes:
    sink = io.BytesIO()
    image.save(sink, format, **options)
    return sink.getvalue()


def read_one(which: str) -> int:
    """Make the picture, then read it within the limits; 0 if it was read."""
    format, mode, size, options = LARGEST[which]
    read_picture(saved(Image.new(mode, (8, 8)), format, **options), LIMITS)  # loads the plugin
    data = saved(Image.new(mode, size), format, **options)
    damaged.confine()
    signal.setitimer(signal.ITIMER_PROF, damaged.SECONDS)
    image = read_picture(data, LIMITS).image
    return 0 if image.mode == "RGB" and image.width * image.height <= LARGE_PIXELS else 1


LONG = {"png-16", "gif", "jpeg-inks", "webp-lossy"}


@pytest.mark.parametrize(
    "which", [pytest.param(key, marks=[pytest.mark.long] if key in LONG else []) for key in LARGEST]
)
def test_the_largest_is_read_within_the_limits(which: str) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import sys; import tests.kit.test_pictures_memory as t; sys.exit(t.read_one({which!r}))",
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize(
    ("format", "options", "size"),
    [
        ("WEBP", {"method": 0}, (3500, 3500)),
        ("JPEG", {"subsampling": "4:4:4", "progressive": True}, (5400, 5400)),
    ],
)
def test_what_its_decoder_could_not_hold_is_refused(
    format: str, options: dict[str, Any], size: tuple[int, int]
) -> None:
    data = saved(Image.new("RGB", size), format, **options)
    with pytest.raises(PictureTooManyPixels, match=f"in all for a {format} file") as raised:
        open_picture(data, LIMITS)
    assert "Scale the picture down" in raised.value.hint


def test_the_budget_is_below_the_limit() -> None:
    assert DECODER_BYTES < damaged.BYTES


class TestWhatTheGateSees:
    @pytest.mark.parametrize("format", ["PNG", "BMP"])
    def test_every_pixel_of_an_ordinary_picture(self, format: str) -> None:
        whole = Image.merge("RGB", [Image.effect_noise((1000, 700), 80)] * 3)
        read = open_picture(saved(whole, format), LIMITS)
        assert read.tobytes() == whole.tobytes()

    @pytest.mark.parametrize(
        ("format", "options"), [("PNG", {"compress_level": 1}), ("JPEG", {"quality": 80})]
    )
    def test_nearly_the_same_of_a_large_one(self, format: str, options: dict[str, Any]) -> None:
        """Scaled to a tower's size, it is within a few of 255 levels of what it was before."""
        detail = Image.effect_noise((200, 150), 60).resize((3200, 2400), Image.Resampling.BICUBIC)
        data = saved(
            Image.merge("RGB", [detail, detail.transpose(Image.Transpose.ROTATE_180), detail]),
            format,
            **options,
        )
        read = open_picture(data, LIMITS)
        assert read.size == (1600, 1200)
        with Image.open(io.BytesIO(data)) as whole:
            seen = [
                image.convert("RGB").resize((336, 336), Image.Resampling.BICUBIC) for image in (whole, read)
            ]
        assert max(ImageStat.Stat(ImageChops.difference(*seen)).mean) < 1.0

    def test_orientation_and_transparency_of_a_large_one(self) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6  # turned by a quarter
        image = Image.new("RGBA", (3000, 2000), (9, 9, 9, 0))
        image.paste((0, 0, 255, 255), (0, 0, 1500, 2000))
        read = open_picture(saved(image, "PNG", exif=exif, compress_level=1), LIMITS)
        assert read.size == (1000, 1500)
        assert read.getpixel((500, 1400)) == (255, 255, 255)
        assert read.getpixel((500, 100)) == (0, 0, 255)

    @pytest.mark.parametrize("size", [(4_300_000, 1), (1, 4_300_000), (2049, 2051)])
    def test_odd_sizes(self, size: tuple[int, int]) -> None:
        width, height = size
        if max(size) > 1_000_000:
            read = open_picture(saved(Image.new("1", size), "PNG"), LIMITS)
        else:
            read = open_picture(saved(Image.new("RGB", size, "red"), "PNG"), LIMITS)
            assert read.getpixel((read.width - 1, read.height - 1)) == (255, 0, 0)
        assert read.size == (-(-width // 2), -(-height // 2))
