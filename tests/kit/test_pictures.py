"""Pictures from strangers."""

import hashlib
import io
import random
import zlib
from dataclasses import dataclass

import pytest
from PIL import Image

from app.kit.errors import LetheError
from app.kit.pictures import (
    PictureInvalid,
    PictureTooLarge,
    PictureTooManyPixels,
    bounded,
    decode_own,
    open_picture,
    read_picture,
)
from app.kit.png import encode_png
from tests.service import data_url, png


@dataclass(frozen=True)
class Limits:
    max_picture_bytes: int = 200_000
    max_pixels: int = 100_000


LIMITS = Limits()


def _saved(image: Image.Image, format: str, **options: object) -> bytes:
    sink = io.BytesIO()
    image.save(sink, format, **options)
    return sink.getvalue()


class TestAccepted:
    @pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
    def test_every_format(self, format: str) -> None:
        image = open_picture(png("white", format=format), LIMITS)
        assert (image.mode, image.size) == ("RGB", (32, 24))
        assert image.getpixel((5, 5)) == (255, 255, 255)

    @pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "CMYK", "I;16"])
    def test_every_mode_becomes_rgb(self, mode: str) -> None:
        format = "JPEG" if mode == "CMYK" else "PNG"
        assert open_picture(_saved(Image.new(mode, (8, 8)), format), LIMITS).mode == "RGB"

    def test_transparent_parts_become_white(self) -> None:
        image = open_picture(_saved(Image.new("RGBA", (4, 4), (9, 9, 9, 0)), "PNG"), LIMITS)
        assert image.getpixel((0, 0)) == (255, 255, 255)

    def test_metadata_is_dropped_and_orientation_kept(self) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6  # lies on its side
        exif[0x010E] = "Taken at home by Elodie"
        sent = _saved(Image.new("RGB", (30, 10)), "JPEG", exif=exif, comment=b"Elodie")
        assert b"Elodie" in sent
        image = open_picture(sent, LIMITS)
        assert image.size == (10, 30)
        assert not image.getexif()
        assert not image.info
        assert b"Elodie" not in encode_png(image)

    def test_data_url(self) -> None:
        for url in (data_url(png()), data_url(png(), "image/jpeg"), data_url(png(), "image/png;charset=x")):
            assert open_picture(url, LIMITS).size == (32, 24)

    def test_hash_is_of_the_bytes_as_sent(self) -> None:
        assert read_picture(data_url(png()), LIMITS).content_sha256 == hashlib.sha256(png()).hexdigest()

    def test_own_round_trip(self) -> None:
        image = open_picture(png("#123456"), LIMITS)
        assert decode_own(encode_png(image)).tobytes() == image.tobytes()


class TestRefused:
    def test_too_many_bytes(self) -> None:
        with pytest.raises(PictureTooLarge):
            open_picture(b"\0" * 200_001, LIMITS)
        with pytest.raises(PictureTooLarge):
            open_picture("data:image/png;base64," + "A" * 400_000, LIMITS)

    @pytest.mark.parametrize("size", [(1000, 101), (100_001, 1), (20_000, 20_000)])
    def test_too_many_pixels_by_the_header(self, size: tuple[int, int]) -> None:
        header = bytearray(png())
        header[16:24] = size[0].to_bytes(4, "big") + size[1].to_bytes(4, "big")
        header[29:33] = zlib.crc32(header[12:29]).to_bytes(4, "big")
        with pytest.raises(PictureTooManyPixels):
            open_picture(bytes(header), LIMITS)

    @pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP"])
    def test_animated(self, format: str) -> None:
        frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
        data = _saved(frames[0], format, save_all=True, append_images=frames[1:])
        with pytest.raises(PictureInvalid, match="animated"):
            open_picture(data, LIMITS)

    @pytest.mark.parametrize("format", ["TIFF", "ICO", "PPM", "PDF"])
    def test_other_formats(self, format: str) -> None:
        with pytest.raises(PictureInvalid):
            open_picture(_saved(Image.new("RGB", (8, 8)), format), LIMITS)

    @pytest.mark.parametrize(
        "source",
        [
            b"", b"GIF89a", b"\x89PNG\r\n\x1a\n", b"<svg/>", b"%!PS-Adobe", "", "x", "data:,x",
            "data:text/plain;base64,QQ==", "file:///etc/passwd", "http://169.254.169.254/",
            "data:image/png;base64,A", "data:image/png;base64,é",
        ],
    )  # fmt: skip
    def test_no_picture(self, source: bytes | str) -> None:
        with pytest.raises(PictureInvalid) as raised:
            open_picture(source, LIMITS)
        assert raised.value.hint

    def test_damaged_files_never_crash(self) -> None:
        """200 files of every kind, cut, flipped or spliced: a clean refusal or a clean picture."""
        chance = random.Random(7)
        originals = [png("red", (64, 48), format) for format in ("PNG", "JPEG", "WEBP", "GIF", "BMP")]
        for i in range(200):
            data = bytearray(originals[i % len(originals)])
            for _ in range(chance.randint(1, 8)):
                data[chance.randrange(len(data))] = chance.randrange(256)
            if chance.random() < 0.4:
                del data[chance.randrange(len(data)) :]
            try:
                assert open_picture(bytes(data), LIMITS).mode == "RGB"
            except LetheError as error:
                assert error.status in (413, 422)  # noqa: PT017  either outcome is right


def test_bounded_scales_down_only() -> None:
    small = Image.new("RGB", (40, 20), "red")
    assert bounded(small, 40) is small
    large = Image.new("RGB", (400, 100), "red")
    assert bounded(large, 40).size == (40, 10)
    assert large.size == (400, 100)
