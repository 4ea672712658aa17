"""Denials: "not in Ullared" contains Ullared, and does not answer where."""

from __future__ import annotations

import re

from workers.verification.metrics.text import norm

# A clause ends at punctuation and before a word that opens a contrast.
_CLAUSES = re.compile(
    r"(?<!\b\w)\.+(?=\s|$)|[,;:!?…—。、，；！？।؟]+\s*"
    r"|\s+(?=(?:but|although|though|however|which|who|aber|sondern|obwohl|mais|pero|sino|aunque|ma|mas|maar"
    r"|ale|но|хотя|але)\b)",
    re.IGNORECASE,
)
_NEGATION = re.compile(
    r"\b(?:not|never|neither|nor|cannot|without|nicht|nie|niemals|kein\w*|weder|jamais|ni|pas|nunca|non|mai|"
    r"nao|niet|nooit|geen|nie|degil|не|ни|никогда|ні|ніколи|ليس|لم|لن|لا|नहीं|न)\b|\bno (?!longer\b)"
    r"|不|没有|沒有|没|ません|ない|없|않",
)


def denies(text: str) -> bool:
    """Say whether a text contains a negation, in any of the languages answers come in."""
    return _NEGATION.search(_plain(text)) is not None


def affirmed(text: str) -> str:
    """Return the clauses of a text that contain no negation, one after another."""
    return " . ".join(part for part in _CLAUSES.split(text) if part and not denies(part))


def _plain(text: str) -> str:
    """Return the text without accents and in lower case; "didn't" is "didn not"."""
    return norm(re.sub(r"n['’]t\b", "n not", text))
