"""Encoded runs in a text, decoded in place: base64, base32, codes of characters, URL, HTML, escapes, Morse.

A decoder returns a new source, whose characters know which range of the original they were made of. Runs that
do not decode to text stay as they are.
"""

from __future__ import annotations

import base64
import binascii
import html
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from app.lumoe.gate.ordinary import ordinary_words


@dataclass(frozen=True, slots=True)
class Source:
    """A text as it may be read; character i was made of [starts[i], ends[i]) of the original.

    `starts` and `ends` are None where the text has the original's positions.
    """

    text: str
    starts: tuple[int, ...] | None = None
    ends: tuple[int, ...] | None = None

    def back(self, start: int, end: int) -> tuple[int, int]:
        """Return the half-open range of the original that [start, end), not empty, was made of."""
        if self.starts is None or self.ends is None:
            return start, end
        return min(self.starts[start], self.starts[end - 1]), max(self.ends[start], self.ends[end - 1])

    def mapped(self, text: str) -> Source:
        """Return `text`, of the same length, with the same way back."""
        return Source(text, self.starts, self.ends)

    def reversed(self) -> Source:
        """Return the text from its end to its beginning."""
        starts = self.starts or tuple(range(len(self.text)))
        ends = self.ends or tuple(range(1, len(self.text) + 1))
        return Source(self.text[::-1], starts[::-1], ends[::-1])


_MORSE = dict(
    zip(
        ".- -... -.-. -.. . ..-. --. .... .. .--- -.- .-.. -- -. --- .--. --.- .-. ... - ..- ...- .-- -..- "
        "-.-- --..".split(),
        "abcdefghijklmnopqrstuvwxyz",
        strict=True,
    )
)
Decoder = Callable[[re.Match[str]], str | None]
"""From a run that may be encoded to its text, or None if it is not."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """`pattern` finds runs; a text without any character of `sign` has none (a cheap first look)."""

    name: str
    sign: frozenset[str]
    pattern: re.Pattern[str]
    decode: Decoder


def decoded(source: Source, encoding: Encoding) -> Source | None:
    """Return `source` with its runs of `encoding` decoded in place, or None if it has none."""
    if encoding.sign and encoding.sign.isdisjoint(source.text):
        return None
    return replaced(source, encoding.pattern, encoding.decode)


def replaced(source: Source, pattern: re.Pattern[str], replace: Decoder) -> Source | None:
    """Return `source` with the matches of `pattern` replaced, or None if nothing changed.

    The characters of a replacement share the range of their match proportionally.
    """
    text, at = source.text, 0
    parts: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    for match in pattern.finditer(text):
        new = replace(match)
        if new is None or new == match.group():
            continue
        a, b = match.span()
        parts += (text[at:a], new)
        starts += range(at, a)
        ends += range(at + 1, a + 1)
        n, width = len(new), b - a
        if n == 1:
            starts.append(a)
            ends.append(b)
        elif n <= width:
            starts += [a + i * width // n for i in range(n)]
            ends += [a - (-(i + 1) * width // n) for i in range(n)]
        else:
            starts += [a + i * width // n for i in range(n)]
            ends += [a + i * width // n + 1 for i in range(n)]
        at = b
    if at == 0:
        return None
    parts.append(text[at:])
    starts += range(at, len(text))
    ends += range(at + 1, len(text) + 1)
    if source.starts is not None and source.ends is not None:
        first, last = starts, [i - 1 for i in ends]
        starts = [min(source.starts[a], source.starts[b]) for a, b in zip(first, last, strict=True)]
        ends = [max(source.ends[a], source.ends[b]) for a, b in zip(first, last, strict=True)]
    return Source("".join(parts), tuple(starts), tuple(ends))


def _text(raw: bytes) -> str | None:
    """Return what `raw` says in UTF-8 or UTF-16, or None if that is no text."""
    try:
        text = raw.decode("utf-16-le" if raw[1:2] == b"\0" else "utf-8")
    except UnicodeDecodeError:
        return None
    letters = sum(map(str.isalnum, text))
    return (
        text if 2 * letters >= len(text) > 0 and all(c.isprintable() or c.isspace() for c in text) else None
    )


def _base64(match: re.Match[str]) -> str | None:
    run = match.group()
    if run.lower() in ordinary_words():
        return None
    return ("-" in run and _pieces(run)) or _base64_of(run)


def _base64_of(run: str) -> str | None:
    """Decode whole quads (three or two left-over characters too) from one of the four alignments."""
    body = "".join(run.split()).rstrip("=").replace("-", "+").replace("_", "/")
    for offset in range(4 if len(body) >= 16 else 1):
        part = body[offset:]
        part = part[: len(part) - (len(part) % 4 == 1)]
        try:
            text = _text(binascii.a2b_base64(part + "=" * (-len(part) % 4)))
        except binascii.Error:
            continue
        if text is not None:
            return body[:offset] + " " * (offset > 0) + text
    return None


def _pieces(run: str) -> str | None:
    """Decode the parts of a run that hyphens hold together."""
    parts = [(_base64_of(part) if len(part) >= 7 else None, part) for part in run.split("-")]
    return " ".join(text or part for text, part in parts) if any(text for text, _ in parts) else None


def _base32(match: re.Match[str]) -> str | None:
    body = match.group().rstrip("=")
    try:
        return _text(base64.b32decode(body + "=" * (-len(body) % 8), casefold=True))
    except binascii.Error:
        return None


def _hex(match: re.Match[str]) -> str | None:
    digits = re.sub(r"0[xX]|\\x|[^0-9a-fA-F]", "", match.group())
    return _text(bytes.fromhex(digits[: len(digits) // 2 * 2]))


def _binary(match: re.Match[str]) -> str | None:
    bits = re.sub("[^01]", "", match.group())
    return _text(bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits) - 7, 8)))


def _decimal(match: re.Match[str]) -> str | None:
    codes = [int(code) for code in re.findall("[0-9]+", match.group())]
    return _text("".join(map(chr, codes)).encode()) if all(32 <= code < 0x500 for code in codes) else None


def _ordinals(match: re.Match[str]) -> str | None:
    return "".join(chr(96 + int(number)) for number in re.findall("[0-9]+", match.group()))


def _morse(match: re.Match[str]) -> str | None:
    marks = re.sub("[−–—_]", "-", match.group().replace("·", ".").replace("•", "."))
    words = [[_MORSE.get(mark, "") for mark in word.split()] for word in re.split("[/|]| {3,}", marks)]
    return " ".join("".join(word) for word in words) if all(map(all, words)) else None


def _url(match: re.Match[str]) -> str | None:
    raw = bytes.fromhex(match.group().replace("%", "").replace("=", "").replace("\n", ""))
    text = raw.decode("utf-8", "replace")
    return text if "\ufffd" not in text else raw.decode("latin-1")


def _html(match: re.Match[str]) -> str | None:
    return html.unescape(match.group()) or None


def _escape(match: re.Match[str]) -> str | None:
    run = match.group()
    code = int(re.sub(r"^(?:\\[uUx]|[uU]\+|\\)|[{}]", "", run), 8 if run[1].isdigit() else 16)
    return chr(code) if 0 < code < 0x110000 and not 0xD800 <= code < 0xE000 else None


_DIGITS = "0123456789"
_HEX = "[0-9a-fA-F]"
_PREFIXED = rf"(?:0[xX]|\\x)?{_HEX}{{2}}"
_ORDINAL = "(?:1[0-9]|2[0-6]|[1-9])"
_DOT_DASH = "[.·•−–—_-]{1,4}"
_BACKSLASHED = rf"\\u\{{{_HEX}{{1,6}}\}}|\\u{_HEX}{{4}}|\\U{_HEX}{{8}}|\\x{_HEX}{{2}}|\\[0-7]{{3}}"
_ESCAPE = rf"{_BACKSLASHED}|\b[uU]\+{_HEX}{{4,6}}\b ?"
ENCODINGS = tuple(
    Encoding(name, frozenset(signs), re.compile(pattern), decode)
    for name, signs, pattern, decode in (
        ("url", "%", f"(?:%{_HEX}{{2}})+", _url),
        ("html", "&", f"&(?:#[0-9]{{1,7}}|#[xX]{_HEX}{{1,6}}|[a-zA-Z]{{2,24}});", _html),
        ("escape", "\\+", _ESCAPE, _escape),
        ("quoted-printable", "=", r"(?:=[0-9A-F]{2}(?:=\n)?){2,}", _url),
        ("base64", "", r"[A-Za-z0-9+/_-]{7,}(?:\r?\n[A-Za-z0-9+/_-]{4,})*={0,2}", _base64),
        ("base32", "", r"\b(?:[A-Z2-7]{8,}|(?=[a-z]*[2-7])[a-z2-7]{8,})={0,6}", _base32),
        ("binary", "01", r"\b[01]{8}(?:[ ,_-]?[01]{8})+\b", _binary),
        ("hex", _DIGITS, f"{_PREFIXED}(?:[ :,;_-]{{0,2}}{_PREFIXED}){{3,}}", _hex),
        ("decimal", _DIGITS, r"\b[0-9]{2,4}(?:[ ,;]{1,2}[0-9]{2,4}){2,}\b", _decimal),
        ("ordinals", _DIGITS, rf"\b{_ORDINAL}(?:[ ,.-]{{1,2}}{_ORDINAL}\b){{3,}}", _ordinals),
        ("morse", ".·•", f"{_DOT_DASH}(?:[ /|]{{1,3}}{_DOT_DASH}){{3,}}", _morse),
    )
)


_TELLING = re.compile(r"[0-9%&\\=]|[a-z][A-Z]|[A-Z]{8}|[.·•−–—_-][ /|]{1,3}[.·•−–—_-]")


def may_be_encoded(text: str) -> bool:
    """Whether `text` has what all encodings but short base64 have, and ordinary sentences do not."""
    return _TELLING.search(text) is not None


def may_end_base64(word: str) -> bool:
    """Whether the end of a long `word` of letters, of which more may come, decodes from base64 to text."""
    return _base64_of(word[-16:]) is not None


def decodings(source: Source) -> Iterator[tuple[str, Source]]:
    """Yield (name of the encoding, decoded source) for every encoding that `source` has runs of."""
    telling = may_be_encoded(source.text)
    for encoding in ENCODINGS:
        found = decoded(source, encoding) if telling or encoding.name == "base64" else None
        if found is not None:
            yield encoding.name, found
