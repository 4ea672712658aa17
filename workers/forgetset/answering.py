"""Asking the unwrapped base model, in batches of like length."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from app.lumoe.mllm import MLLM
from app.lumoe.types import Conversation, Generation

MAX_NEW_TOKENS = 48
BATCH = 64


class CancelledError(Exception):
    """Somebody asked for this work to stop."""


def batches(conversations: Sequence[Conversation], size: int = BATCH) -> list[list[int]]:
    """Return batches of indices; conversations of like length (pictures, then words) go together."""

    def length(i: int) -> tuple[int, int]:
        turns = conversations[i]
        return sum(len(m.images) for m in turns), sum(len(m.text) for m in turns)

    order = sorted(range(len(conversations)), key=length)
    return [order[k : k + size] for k in range(0, len(order), size)]


def ask_base(
    mllm: MLLM,
    conversations: Sequence[Conversation],
    *,
    max_new_tokens: int = MAX_NEW_TOKENS,
    cancelled: Callable[[], bool] = lambda: False,
) -> list[Generation]:
    """Return the model's own greedy answers, in the order asked.

    Raises:
        CancelledError: ``cancelled`` said so between two batches.
    """
    answers: dict[int, Generation] = {}
    for part in batches(conversations):
        if cancelled():
            raise CancelledError
        generations = mllm.generate([conversations[i] for i in part], max_new_tokens=max_new_tokens)
        answers.update(zip(part, generations, strict=True))
    return [answers[i] for i in range(len(conversations))]
