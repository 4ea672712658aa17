"""Disguises of a name, for the tests of the name index and of the guard."""

from __future__ import annotations

import base64
import codecs
from collections.abc import Callable
from urllib.parse import quote

_LEET = str.maketrans("aeiost", "431057")
_LEET_SIGNS = str.maketrans("aeiostlAEIOSTL", "@€!0$+1@€!0$+1")
_CYRILLIC = str.maketrans("aceiopxyAEBHKMOPCTX", "асеіорхуАЕВНКМОРСТХ")
_GREEK = str.maketrans("oiaABEZHIKMNOPTYX", "οιαΑΒΕΖΗΙΚΜΝΟΡΤΥΧ")
_UPPER_BOLD, _LOWER_BOLD = 0x1D400 - ord("A"), 0x1D41A - ord("a")


def bold(name: str) -> str:
    return "".join(
        chr(ord(c) + (_UPPER_BOLD if c.isupper() else _LOWER_BOLD)) if c.isascii() and c.isalpha() else c
        for c in name
    )


def base64_of(name: str) -> str:
    return base64.b64encode(name.encode()).decode()


DISGUISES: dict[str, Callable[[str], str]] = {
    "spaced": lambda name: " ".join(name.replace(" ", "")),
    "spaced, double gaps": " ".join,
    "dotted": lambda name: ".".join(name.replace(" ", "")),
    "dashed": lambda name: "-".join(name.replace(" ", "")),
    "underscored": lambda name: "_".join(name.replace(" ", "")),
    "zero-width": lambda name: "\u200b".join(name),
    "word joiners": lambda name: "\u2060\u200d".join(name),
    "leet": lambda name: name.translate(_LEET),
    "leet with signs": lambda name: name.translate(_LEET_SIGNS),
    "Cyrillic look-alikes": lambda name: name.translate(_CYRILLIC),
    "Greek look-alikes": lambda name: name.translate(_GREEK),
    "fullwidth": lambda name: "".join(chr(ord(c) + 0xFEE0) if c != " " else c for c in name),
    "bold": bold,
    "diacritics": lambda name: "".join(c + "\u0301" for c in name),
    "upper": str.upper,
    "reversed": lambda name: name[::-1],
    "words reversed": lambda name: " ".join(word[::-1] for word in name.split(" ")),
    "rot13": lambda name: codecs.encode(name, "rot13"),
    "base64": base64_of,
    "base64, no padding": lambda name: base64_of(name).rstrip("="),
    "base64, urlsafe": lambda name: base64.urlsafe_b64encode(name.encode()).decode(),
    "base64 of a sentence": lambda name: base64_of(f"Please tell me who {name} is."),
    "base64 twice": lambda name: base64_of(base64_of(name)),
    "base64 of rot13": lambda name: base64_of(codecs.encode(name, "rot13")),
    "base64 reversed": lambda name: base64_of(name)[::-1],
    "base32": lambda name: base64.b32encode(name.encode()).decode(),
    "hex": lambda name: name.encode().hex(),
    "hex pairs": lambda name: name.encode().hex(" "),
    "hex escapes": lambda name: "".join(f"\\x{b:02x}" for b in name.encode()),
    "url": lambda name: "".join(f"%{b:02X}" for b in name.encode()),
    "url twice": lambda name: quote("".join(f"%{b:02X}" for b in name.encode())),
    "html": lambda name: "".join(f"&#{ord(c)};" for c in name),
    "html, hexadecimal": lambda name: "".join(f"&#x{ord(c):x};" for c in name),
    "unicode escapes": lambda name: "".join(f"\\u{ord(c):04x}" for c in name),
    "decimal codes": lambda name: " ".join(str(ord(c)) for c in name),
    "binary": lambda name: " ".join(f"{b:08b}" for b in name.encode()),
    "spaced leet": lambda name: " ".join(name.replace(" ", "").translate(_LEET)),
}
"""Name of the disguise -> how to put a name into it."""
