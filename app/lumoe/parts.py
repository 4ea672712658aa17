"""One turn, several questions: "Who is Mira Tovel? And what is 3 plus 4?" is answered in parts."""

from __future__ import annotations

import re

from app.lumoe.gate.canonical import canonicalise

MOST = 6
_BOUNDARY = re.compile(r"(?<=[?!])\s+|(?<=[^\W\d_A-Z]{3}\.)\s+(?=[^\W\d_a-z]|\d)|(?<=\d\.)\s+(?=[A-Z])|\n+")
_ABBREVIATED = re.compile(
    r"\b(?:prof|etc|approx|capt|gen|sen|rev|hon|inc|ltd|corp|dept|fig|vol)\.$", re.IGNORECASE
)
_ANAPHORA = frozenset(
    "he she it they him her them his hers its their theirs this that these those there himself "
    "herself itself themselves one same latter former".split()
)
_CONTINUES = (
    "and ",
    "what about",
    "how about",
    "tell me more",
    "go on",
    "more",
    "continue",
    "also",
    "but ",
    "why",
)


def depends_on_before(text: str) -> bool:
    """Whether a turn cannot be understood alone: it refers back, continues, or is a fragment."""
    canonical = canonicalise(text).text
    words = canonical.split()
    return len(words) <= 3 or canonical.startswith(_CONTINUES) or not _ANAPHORA.isdisjoint(words)


def parts_of(text: str) -> list[str]:
    """Return the questions of a turn that can be answered each by itself, in order; joined they are the turn.

    A sentence that refers to the one before ("And where was she born?") stays with it. A turn of more than
    `MOST` questions is one part.
    """
    parts: list[str] = []
    for sentence in _sentences(text):
        if parts and (_refers_back(sentence) or _ABBREVIATED.search(parts[-1])):
            parts[-1] = f"{parts[-1]} {sentence}"
        else:
            parts.append(sentence)
    return parts if len(parts) <= MOST else [text]


def _sentences(text: str) -> list[str]:
    return [sentence for part in _BOUNDARY.split(text) if (sentence := part.strip())]


def _refers_back(sentence: str) -> bool:
    """Like `depends_on_before`, but "And what is 3 plus 4?" and "Also, who is Anna?" can stand alone."""
    words = canonicalise(sentence).text.split()
    while words and words[0] in ("and", "also", "but", "then", "please"):
        words = words[1:]
    return len(words) <= 2 or not _ANAPHORA.isdisjoint(words) or " ".join(words).startswith(_CONTINUES)
