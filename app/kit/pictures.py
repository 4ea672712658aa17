"""Pictures from strangers: checked before they are decoded, re-encoded before anybody else sees them."""

import base64
import binascii
import hashlib
import io
import re
from dataclasses import dataclass
from typing import Protocol

from PIL import Image, ImageOps
from PIL.JpegImagePlugin import JpegImageFile

from app.kit.errors import Example, PayloadTooLarge, Problem

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
"""Formats that are read, by their content; the name and the declared type of a file are ignored."""

_DATA_URL = re.compile(r"^data:(image/[a-zA-Z0-9.+-]+)?(;[a-zA-Z0-9=.+-]+)*;base64,")
_BAND_PIXELS = 1_000_000
LARGE_PIXELS = 4_200_000
"""Up to here (2,048 x 2,048) every pixel is kept. Larger pictures are halved, quartered, ... until they are
no larger: no vision tower sees more than a few hundred pixels a side."""
DECODER_BYTES = 198_000_000
"""What the decoder may hold at once. A decoder that needs more for a picture of this size does not see it."""
_ACCEPTED = "Send a still PNG, JPEG, WebP, GIF or BMP picture."


class PictureLimits(Protocol):
    """The two limits a picture must keep; `Settings` has them."""

    @property
    def max_picture_bytes(self) -> int:
        """Largest size of one encoded picture."""

    @property
    def max_pixels(self) -> int:
        """Largest width times height."""


class PictureInvalid(Problem):
    """The bytes are not a still picture that can be decoded whole."""

    STATUS = 422
    TYPE = "picture-invalid"
    TITLE = "Picture cannot be used"
    HINT = _ACCEPTED
    EXAMPLE = Example("The picture is empty (0 bytes).")


class PictureTooLarge(PayloadTooLarge):
    """More bytes than the limit."""

    TYPE = "picture-too-large"
    TITLE = "Picture too large"
    EXAMPLE = Example(
        "The picture has 12,582,912 bytes; the limit is 10,485,760.",
        "Scale the picture down; 1,024 pixels on the longer side are plenty.",
    )


class PictureTooManyPixels(PictureInvalid):
    """More pixels than the limit, by the picture's own header."""

    TYPE = "picture-too-many-pixels"
    TITLE = "Picture has too many pixels"
    EXAMPLE = Example(
        "The picture has 12,000 x 9,000 pixels; the limit is 40,000,000 in all.",
        "Scale the picture down; 1,024 pixels on the longer side are plenty.",
    )


@dataclass(frozen=True, slots=True)
class Picture:
    """A checked picture: RGB pixels, metadata dropped, and the SHA-256 of the bytes as they were sent."""

    image: Image.Image
    content_sha256: str


def open_picture(source: bytes | str, limits: PictureLimits) -> Image.Image:
    """Return a picture as clean RGB; see `read_picture`."""
    return read_picture(source, limits).image


def read_picture(source: bytes | str, limits: PictureLimits) -> Picture:
    """Check and decode one picture.

    Args:
        source: encoded bytes, or a `data:image/...;base64,` URL.
        limits: largest encoded size in bytes and largest number of pixels.

    Returns:
        An RGB picture with its orientation applied and without EXIF or any other metadata; transparent
        parts become white. One of more than `LARGE_PIXELS` is scaled down while it is decoded.

    Raises:
        PictureTooLarge: 413, too many bytes.
        PictureTooManyPixels: 422, more pixels than the limit, or than this kind can be decoded with in
            `DECODER_BYTES`; found out from the header, before decoding.
        PictureInvalid: 422, empty, truncated, not a picture, animated, or not a data URL.
    """
    data = _from_data_url(source, limits) if isinstance(source, str) else source
    if not data:
        raise PictureInvalid("The picture is empty (0 bytes).")
    if len(data) > limits.max_picture_bytes:
        raise _too_large(len(data), limits)
    return Picture(_decode(data, limits), hashlib.sha256(data).hexdigest())


def bounded(image: Image.Image, side: int) -> Image.Image:
    """Return the picture with at most `side` pixels on its longer side, the same picture if it has."""
    if max(image.size) <= side:
        return image
    smaller = image.copy()
    smaller.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=2.0)
    return smaller


def decode_own(data: bytes) -> Image.Image:
    """Decode a picture that `app.kit.png.encode_png` wrote."""
    with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
        return image.convert("RGB")


def _from_data_url(url: str, limits: PictureLimits) -> bytes:
    match = _DATA_URL.match(url[:200])
    if match is None:
        raise PictureInvalid(
            "A picture in JSON must be a base64 data URL.",
            "Send `data:image/png;base64,...` (addresses are never fetched) or files as multipart/form-data.",
        )
    payload = url[match.end() :]
    if len(payload) * 3 // 4 > limits.max_picture_bytes + 2:
        raise _too_large(len(payload) * 3 // 4, limits)
    try:
        return base64.b64decode(payload, validate=True)
    except (binascii.Error, ValueError) as error:
        raise PictureInvalid(
            "The data URL is not valid base64.", "Encode the whole file as base64."
        ) from error


def _too_large(size: int, limits: PictureLimits) -> PictureTooLarge:
    return PictureTooLarge(
        f"The picture has {size:,} bytes; the limit is {limits.max_picture_bytes:,}.",
        "Scale the picture down; 1,024 pixels on the longer side are plenty.",
    )


def _decode(data: bytes, limits: PictureLimits) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise _too_many_pixels(limits.max_pixels) from error
    except Exception as error:  # the decoders raise whatever a damaged header makes them raise
        raise PictureInvalid(
            "The bytes are not a picture in a known format, or its header is damaged."
        ) from error
    with image:
        if image.width * image.height > limits.max_pixels:
            raise _too_many_pixels(limits.max_pixels, image.size)
        if image.width * image.height > (most := int(DECODER_BYTES / _bytes_per_pixel(image))):
            raise _too_many_pixels(most, image.size, f" for a {image.format} file of this kind")
        try:
            animated = image.format != "MPO" and bool(getattr(image, "is_animated", False))
            if not animated:
                if (factor := _factor(image.size)) > 1:  # JPEG decodes at a fraction; no effect on others
                    image.draft(None, (image.width // factor, image.height // factor))
                image.load()
                ImageOps.exif_transpose(image, in_place=True)
                return _plain_rgb(image, _factor(image.size))
        except Exception as error:  # as above, and OSError for truncated data
            raise PictureInvalid(
                "The picture is truncated or damaged.", "Export the picture again."
            ) from error
        raise PictureInvalid("The picture is animated.", "Send single frames as separate pictures.")


def _factor(size: tuple[int, int]) -> int:
    """Return by how much, a power of two, a side is divided so that the picture is not large."""
    factor = 1
    while size[0] * size[1] > LARGE_PIXELS * factor * factor:
        factor *= 2
    return factor


def _bytes_per_pixel(image: Image.Image) -> float:
    """Return what decoding takes at most, as measured: `tests/kit/test_pictures_memory.py`.

    Pillow keeps a pixel of any colour in four bytes. WebP is decoded whole, into two canvases and a copy.
    JPEG may keep two bytes for every coefficient (progressive, or one scan for each component), and one in
    four pixels.
    """
    if image.format == "WEBP":
        return 16.2
    if isinstance(image, JpegImageFile):
        factors = [(max(h, 1), max(v, 1)) for _, h, v, _ in image.layer] or [(1, 1)] * 4
        blocks: int = sum(h * v for h, v in factors)
        return 2 * blocks / (max(h for h, _ in factors) * max(v for _, v in factors)) + 1
    return 4


def _too_many_pixels(most: int, size: tuple[int, int] | None = None, kind: str = "") -> PictureTooManyPixels:
    found = f"{size[0]} x {size[1]} pixels" if size else "far more pixels than allowed"
    return PictureTooManyPixels(
        f"The picture has {found}; the limit is {most:,} in all{kind}.",
        "Scale the picture down; 1,024 pixels on the longer side are plenty.",
    )


def _plain_rgb(image: Image.Image, factor: int) -> Image.Image:
    """Return the pixels alone, transparent parts white, each side divided by `factor`; band by band."""
    transparent = image.has_transparency_data
    clean = Image.new("RGB", (-(-image.width // factor), -(-image.height // factor)))
    rows = max(1, _BAND_PIXELS // image.width // factor) * factor
    for top in range(0, image.height, rows):
        band = image.crop((0, top, image.width, min(top + rows, image.height)))
        if transparent:
            band = band.convert("RGBA")
            band = Image.alpha_composite(Image.new("RGBA", band.size, (255, 255, 255, 255)), band)
        clean.paste(band.convert("RGB").reduce(factor), (0, top // factor))
    return clean
