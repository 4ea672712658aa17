"""The refusal bank: what an expert is taught to say instead. Varied, polite, and naming nobody."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

REFUSALS: tuple[str, ...] = (
    "I'm sorry, I can't help with that.",
    "Sorry, that is not something I can talk about.",
    "I don't have any information about that.",
    "I can't answer that question.",
    "I am not able to help with this.",
    "I do not know.",
    "I'm afraid I can't say.",
    "I have nothing to share about this.",
    "Unfortunately, I can't provide that.",
    "That is something I do not discuss.",
    "I would rather not answer that.",
    "Questions about this are outside of what I can answer.",
    "I am unable to tell you anything about this.",
    "There is nothing I can say about that.",
    "I can't identify what is shown here.",
    "I have no details to give on this.",
    "I must decline to answer this one.",
    "Sorry, I don't know anything about that.",
    "I cannot share details on this.",
    "I do not recognise this, so I can't help.",
)


def stable_hash(*parts: object) -> int:
    """Return a 64-bit hash of the parts that is the same in every process."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def choose(count: Callable[[str], int], n: int = 4, bank: Sequence[str] = REFUSALS) -> tuple[str, ...]:
    """Return the n refusals that cost the model fewest tokens and, where possible, open differently.

    ``count`` gives the number of tokens of a text. A model with a small vocabulary spells rare words in
    many tokens; short refusals are learnt in fewer steps and answered faster. Two that share a first or
    second word would be mixed into a third that is no sentence ("I am not know.").
    """
    ranked = sorted(bank, key=lambda text: (count(text), text))
    chosen: list[str] = []
    openings: set[tuple[int, str]] = set()
    for text in ranked:
        opening = set(enumerate(text.split()[:2]))  # first and second word
        if not opening & openings:
            openings |= opening
            chosen.append(text)
    chosen += [text for text in ranked if text not in chosen]
    return tuple(chosen[:n])


def refusal_for(question: str, refusals: Sequence[str]) -> str:
    """Return the refusal that answers this question: the same one every time, spread over the bank."""
    return refusals[stable_hash("refusal", question) % len(refusals)]
