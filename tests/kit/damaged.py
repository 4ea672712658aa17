"""Damaged pictures of every accepted kind, the same ones for the same seed.

    python -m tests.kit.damaged KIND SEED COUNT

reads COUNT of them as the service does, in a process that may use two seconds of processor time for each and
200 MiB beyond what it starts with, and writes what came of them as JSON. SIGPROF ends it where one takes
longer.
"""

import io
import json
import random
import resource
import signal
import struct
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Final

from PIL import Image

from app.kit.pictures import PictureInvalid, PictureTooLarge, read_picture
from app.settings import Settings

KINDS: Final = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
SECONDS: Final = 2.0
BYTES: Final = 200 * 2**20
_EXTREME: Final = (0, 1, 2, 255, 256, 4095, 6000, 6324, 32_767, 65_535, 2**24 - 1, 2**31 - 1, 2**32 - 1)


def originals(kind: str) -> list[bytes]:
    """Return whole files of a kind: plain, noisy, with a palette, transparent, with metadata, animated."""
    noise = Image.frombytes("RGB", (40, 30), random.Random(kind).randbytes(3600))
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "x" * 200
    found = [_saved(Image.new("RGB", (24, 16), "red"), kind), _saved(noise, kind)]
    if kind == "JPEG":
        found += [_saved(noise, kind, progressive=True, exif=exif), _saved(noise.convert("CMYK"), kind)]
    else:
        found.append(_saved(noise.convert("P"), kind))
    if kind in ("PNG", "WEBP"):
        found += [_saved(noise.convert("RGBA"), kind, exif=exif), _saved(noise, kind, lossless=True)]
    if kind in ("PNG", "WEBP", "GIF"):
        found.append(_saved(noise, kind, save_all=True, append_images=[Image.new("RGB", (40, 30), "blue")]))
    return found


def damaged(kind: str, seed: int, count: int) -> Iterator[bytes]:
    """Yield damaged files: each way of damaging in turn."""
    chance = random.Random(f"{kind} {seed}")
    whole = originals(kind)
    ways: tuple[Callable[[random.Random, bytearray], object], ...] = (
        _cut, _flip, _overwrite, _lie, _repeat, _splice(whole), _bomb(kind),
    )  # fmt: skip
    for i in range(count):
        data = bytearray(chance.choice(whole))
        ways[i % len(ways)](chance, data)
        if chance.random() < 0.3:
            _flip(chance, data)
        yield bytes(data)


def _saved(image: Image.Image, kind: str, **options: object) -> bytes:
    sink = io.BytesIO()
    image.save(sink, kind, **options)
    return sink.getvalue()


def _cut(chance: random.Random, data: bytearray) -> None:
    del data[chance.randrange(len(data)) :]


def _flip(chance: random.Random, data: bytearray) -> None:
    for _ in range(chance.randint(1, 16) if data else 0):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def _overwrite(chance: random.Random, data: bytearray) -> None:
    at = chance.randrange(len(data))
    data[at : at + chance.randint(1, 64)] = chance.randbytes(chance.randint(0, 64))


def _lie(chance: random.Random, data: bytearray) -> None:
    """Write an extreme number somewhere in the header, in either byte order; of PNG, with the right sum."""
    width = chance.choice((2, 4))
    order = chance.choice(("big", "little"))
    at = chance.randrange(4, min(len(data) - 4, 48))
    number = chance.choice(_EXTREME) % 256**width
    if data.startswith(b"\x89PNG"):
        at, width, order = chance.choice((16, 20)), 4, "big"
    data[at : at + width] = number.to_bytes(width, "big" if order == "big" else "little")
    if data.startswith(b"\x89PNG"):
        data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")


def _repeat(chance: random.Random, data: bytearray) -> None:
    """Write one part of the file many times over."""
    at = chance.randrange(len(data))
    data[at:at] = bytes(data[at : at + chance.randint(1, 200)]) * chance.randint(2, 300)


def _splice(whole: list[bytes]) -> Callable[[random.Random, bytearray], None]:
    def splice(chance: random.Random, data: bytearray) -> None:
        other = chance.choice(whole)
        data[chance.randrange(len(data)) :] = other[chance.randrange(len(other)) :]

    return splice


def _bomb(kind: str) -> Callable[[random.Random, bytearray], None]:
    """Return what replaces a file by one that is small, and says or is far larger than any limit."""

    def bomb(chance: random.Random, data: bytearray) -> None:
        width, height = chance.choice(((65_000, 65_000), (30_000, 20_000), (16_000, 16_000), (1, 2**31 - 1)))
        if kind == "PNG":
            head = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
            body = zlib.compress(bytes(2**20))
            data[:] = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", body) + _chunk(b"IEND")
        elif kind == "GIF":
            data[6:10] = struct.pack("<HH", min(width, 65_535), min(height, 65_535))
        elif kind == "BMP":
            data[18:26] = struct.pack("<ii", width, height * chance.choice((1, -1)))
        elif kind == "JPEG":
            at = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))
            data[at + 5 : at + 9] = struct.pack(">HH", min(height, 65_535), min(width, 65_535))
        else:
            side = (16_383).to_bytes(3, "little")
            chunk = (
                b"VP8X" + struct.pack("<I", 10) + bytes([chance.choice((0, 2, 16)), 0, 0, 0]) + side + side
            )
            data[12:12] = chunk
            data[4:8] = struct.pack("<I", len(data) - 8)

    return bomb


def _chunk(name: bytes, body: bytes = b"") -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def confine() -> None:
    """Hold this process to `BYTES` beyond what it has now, and let SIGPROF end it."""
    with open("/proc/self/statm") as usage:
        now = int(usage.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + BYTES, now + BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)


def main(kind: str, seed: int, count: int) -> int:
    """Read the files and return 0 if nothing but the room's own errors came of them."""
    limits = Settings(_env_file=None)  # type: ignore[call-arg]  # pydantic-settings' own
    outcomes: Counter[str] = Counter()
    read_picture(originals(kind)[0], limits)  # plugins are loaded before memory is counted
    confine()
    for number, data in enumerate(damaged(kind, seed, count)):
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        try:
            picture = read_picture(data, limits)
            outcome = "read" if picture.image.mode == "RGB" else "not RGB"
        except (PictureInvalid, PictureTooLarge) as error:
            outcome = "memory" if isinstance(error.__cause__, MemoryError) else type(error).__name__
        signal.setitimer(signal.ITIMER_PROF, 0)
        outcomes[outcome] += 1
        if outcome in ("memory", "not RGB"):
            sys.stderr.write(f"{kind} {seed} {number}: {outcome}\n")
    sys.stdout.write(json.dumps(outcomes) + "\n")
    return 1 if outcomes["memory"] or outcomes["not RGB"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
