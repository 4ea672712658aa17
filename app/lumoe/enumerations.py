"""Lists in running text: a name as one item among others, and what the list reads like without it."""

from __future__ import annotations

import re

_SEPARATOR = r"(?:\s*[,;]\s*(?:(?:and|or)\s+)?|\s+(?:and|or|&)\s+)"
_BEFORE = re.compile(rf"{_SEPARATOR}$")
_AFTER = re.compile(rf"[^,;.!?\n]{{0,40}}?({_SEPARATOR})(?=[^\W_a-z])")
_ASIDE = re.compile(r"^\s*\([^)\n]*\)")
_BULLET = re.compile(r"^\s*(?:[-*\u2022]|\d{1,3}[.)])\s+")
_LAST_COMMA = re.compile(r"\s*[,;]\s*(?!.*[,;])", re.DOTALL)


def is_item(text: str, start: int, end: int) -> bool:
    """Say whether text[start:end], a name, stands in a list: as a bullet, or between commas and "and"."""
    if _BULLET.match(_line(text, start)[2]):
        return True
    return bool(_BEFORE.search(text[:start]) or _AFTER.match(text, end))


def without_item(text: str, start: int, end: int) -> str | None:
    """Return the text without the item that text[start:end] names; None if it is no list or nothing is left.

    "A, B and C." without C is "A and B."; a bullet goes with its line.
    """
    first, last, line = _line(text, start)
    if _BULLET.match(line):
        rest = text[:first] + text[last + 1 :]
        return rest.strip() if any(_BULLET.match(part) for part in rest.split("\n")) else None
    before = _BEFORE.search(text[:start])
    after = _AFTER.match(text, end)
    if after is not None:
        if before is None:  # the first item
            return text[:start] + text[after.end() :]
        ending = after.group(1) if re.search(r"\w", after.group(1)) else before.group()
        return text[: before.start()] + (ending if ending.strip() else ", ") + text[after.end() :]
    if before is None:
        return None
    tail = _ASIDE.sub("", text[end:])
    head = text[: before.start()]
    if not re.search(r"\s(?:and|or|&)\s", _sentence(head)):  # "A, B" was the beginning of "A, B and C"
        word = re.search(r"and|or|&", before.group())
        joined = _LAST_COMMA.sub(f" {word.group() if word else 'and'} ", _sentence(head), count=1)
        head = head[: len(head) - len(_sentence(head))] + joined
    return head + tail


def _line(text: str, at: int) -> tuple[int, int, str]:
    first = text.rfind("\n", 0, at) + 1
    last = text.find("\n", at)
    last = len(text) if last < 0 else last
    return first, last, text[first:last]


def _sentence(text: str) -> str:
    """Return the end of `text` from its last sentence's beginning on."""
    return text[max(text.rfind(mark) for mark in ".!?\n") + 1 :]
