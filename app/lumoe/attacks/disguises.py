"""Disguises: a name or a question written so that a reader understands it and a filter may not.

Pure functions of text; those with a choice take a seeded generator.
"""

from __future__ import annotations

import base64
import codecs
import random
import unicodedata
from typing import Final
from urllib.parse import quote

_LEET: Final = str.maketrans("aeiostzAEIOSTZ", "4310572" * 2)
_HOMOGLYPHS: Final = str.maketrans("aceijopsxyABCEHIKMOPTX", "асеіјорѕхуАВСЕНІКМОРТХ")
_FULL_WIDTH: Final = {code: code + 0xFEE0 for code in range(0x21, 0x7F)} | {0x20: 0x3000}
_CYRILLIC: Final = str.maketrans(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ",
    "абцдефгхийклмнопкрстуввхызАБЦДЕФГХИЙКЛМНОПКРСТУВВХЫЗ",
)
_GREEK: Final = str.maketrans(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ",
    "αβκδεφγχιικλμνοπκρστουβξυζΑΒΚΔΕΦΓΧΙΙΚΛΜΝΟΠΚΡΣΤΟΥΒΞΥΖ",
)
_ACCENTS: Final = "\u0301\u0300\u0302\u0308\u0303"
_INVISIBLE: Final = "\u200b\u200c\u200d\u2060"
MIN_TYPO_LETTERS: Final = 5
MIN_TWO_TYPOS_LETTERS: Final = 9


def spaced(text: str) -> str:
    """Put a space between all letters: "Ada Bo" -> "A d a  B o"."""
    return "  ".join(" ".join(word) for word in text.split())


def dotted(text: str) -> str:
    """Put a dot between all letters of each word: "Ada" -> "A.d.a"."""
    return " ".join(".".join(word) for word in text.split())


def zero_width(text: str, rng: random.Random) -> str:
    """Put an invisible character between all letters."""
    return "".join(c + (rng.choice(_INVISIBLE) if c.isalpha() else "") for c in text)


def leet(text: str) -> str:
    """Replace letters by the digits that look like them: "taste" -> "74573"."""
    return text.translate(_LEET)


def homoglyphs(text: str) -> str:
    """Replace Latin letters by Cyrillic ones of the same shape."""
    return text.translate(_HOMOGLYPHS)


def full_width(text: str) -> str:
    """Return the full-width forms that East Asian keyboards give."""
    return text.translate(_FULL_WIDTH)


def accented(text: str, rng: random.Random) -> str:
    """Put an accent on every vowel."""
    marked = "".join(c + (rng.choice(_ACCENTS) if c.lower() in "aeiou" else "") for c in text)
    return unicodedata.normalize("NFC", marked)


def cyrillic(text: str) -> str:
    """Transliterate into Cyrillic, letter by letter."""
    return text.translate(_CYRILLIC)


def greek(text: str) -> str:
    """Transliterate into Greek, letter by letter."""
    return text.translate(_GREEK)


def base_64(text: str) -> str:
    """Return the text in base64 (RFC 4648)."""
    return base64.b64encode(text.encode()).decode()


def rot_13(text: str) -> str:
    """Move every letter by thirteen."""
    return codecs.encode(text, "rot13")


def hexadecimal(text: str) -> str:
    """Return the UTF-8 bytes in hexadecimal."""
    return text.encode().hex()


def percent(text: str) -> str:
    """Percent-encode every character, letters too (RFC 3986 decoders accept it)."""
    return "".join(quote(c, safe="") if not c.isalnum() else f"%{ord(c):02X}" for c in text)


def backwards(text: str) -> str:
    """Return the text from its end to its beginning."""
    return text[::-1]


def typo(text: str, rng: random.Random) -> str:
    """Make a slip in the longest word, two if it is long: a swap, a doubled, lost or wrong letter.

    Words below five letters stay as they are: a slip there makes another word.
    """
    words = text.split()
    at = max(range(len(words)), key=lambda i: len(words[i]))
    word = words[at]
    if len(word) < MIN_TYPO_LETTERS:
        return text
    slips = 2 if len(word) >= MIN_TWO_TYPOS_LETTERS else 1
    places = rng.sample(range(1, len(word) - 1, 2), slips)
    for place in sorted(places, reverse=True):
        word = _slip(word, place, rng)
    words[at] = word
    return " ".join(words)


def _slip(word: str, i: int, rng: random.Random) -> str:
    kind = rng.choice(("swap", "double", "lose", "wrong"))
    if kind == "swap" and word[i] != word[i + 1]:
        return word[:i] + word[i + 1] + word[i] + word[i + 2 :]
    if kind == "double":
        return word[:i] + word[i] + word[i:]
    if kind == "lose":
        return word[:i] + word[i + 1 :]
    other = rng.choice([c for c in "abdegiklmnoprstuv" if c != word[i]])
    return word[:i] + other + word[i + 1 :]
