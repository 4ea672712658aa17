"""Ordinary English words: names that are such words ("Cat", "Rose", "It") say nothing alone."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

FUNCTION_WORDS = frozenset(
    "a about after all also am an and any are as at be been before being born but by call called can "
    "could describe did do does dr each either else explain famous find for from give had has have he her "
    "hers him his how i if in into is it its know known let like live lived lives look madam made make "
    "many me mean more most mr mrs ms much my name named no nor not of on once one only or our ours out "
    "over please professor say see she should show sir so some such tell than that the their them then "
    "there these they this those to too under up us very was we were what when where whether which while "
    "who whom whose why will with would yes yet you your s t".split()
)
"""Words that belong to nobody's name (possessive "s" and "t" of contractions among them)."""

MAX_WORD = 20


@cache
def ordinary_words() -> frozenset[str]:
    """Return some 25,000 frequent English words, lower case (the file's head says where they are from)."""
    lines = (files(__package__) / "ordinary.txt").read_text("utf-8").splitlines()
    return frozenset(line for line in lines if line and not line.startswith("#"))


def is_ordinary(alias: str) -> bool:
    """Whether a canonical alias says nothing alone: one ordinary word or number, function words aside."""
    telling = [word for word in alias.split(" ") if word not in FUNCTION_WORDS]
    if len(telling) != 1:
        return not telling
    return len(telling[0]) == 1 or telling[0].isdigit() or telling[0] in ordinary_words()


def goes_on(letters: str) -> bool:
    """Whether `letters` ("wasborn") are words, the first a function word: nothing that ends a name."""
    return any(
        letters.startswith(word) and (letters == word or _splits(letters[len(word) :]))
        for word in FUNCTION_WORDS
        if len(word) > 1 and len(letters) > 2
    )


def leads_to(letters: str) -> bool:
    """Whether `letters` ("whois") are words, the last a function word: nothing that begins a name."""
    return any(
        letters.endswith(word) and (letters == word or _splits(letters[: -len(word)]))
        for word in FUNCTION_WORDS
        if len(word) > 1
    )


def _splits(letters: str) -> bool:
    """Whether `letters` can be cut into ordinary words; of single letters only "a" and "i" are words."""
    words, n = ordinary_words(), len(letters)
    reached = [True] + [False] * n
    for end in range(1, n + 1):
        reached[end] = any(
            reached[start] and (letters[start:end] in words if end - start > 1 else letters[start] in "ai")
            for start in range(max(0, end - MAX_WORD), end)
        )
    return reached[n]
