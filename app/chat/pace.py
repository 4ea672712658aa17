"""Refusals that are all alike: one wording, and a time that does not tell how they came about.

What an expert writes, what is refused by rule and what the guard makes of an answer differ in wording, length
and time, and so would tell whether a subject has an expert yet, and whether the question or only the answer
gave it away. See decision 38.
"""

from __future__ import annotations

import math
import threading
import zlib
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from statistics import median

from app.lumoe.guard import FALLBACK_REFUSALS
from app.lumoe.mllm import MLLM
from app.lumoe.router import Router
from app.lumoe.stops import StopFilter
from app.lumoe.types import Answer, Conversation

_KEPT = 64
_FIRST_SECONDS, _TOKEN_SECONDS = 0.05, 0.02
PASSES = 2
"""A refusal that takes longest is written twice: by the base model, then by the expert."""


class Pace:
    """How long this replica's ordinary answers take, by the last 64; and when a refusal leaves."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._first: deque[float] = deque(maxlen=_KEPT)
        self._token: deque[float] = deque(maxlen=_KEPT)

    def note(self, first: float, total: float, tokens: int) -> None:
        """Note an ordinary answer: seconds to its first text, in all, and its tokens."""
        if tokens < 2:
            return
        with self._lock:
            self._first.append(first)
            self._token.append((total - first) / (tokens - 1))

    def quantum(self, tokens: int) -> float:
        """Return the seconds of two ordinary answers of so many tokens."""
        with self._lock:
            first = median(self._first) if self._first else _FIRST_SECONDS
            token = median(self._token) if self._token else _TOKEN_SECONDS
        return PASSES * (first + token * tokens)

    def wait(self, elapsed: float, tokens: int) -> float:
        """Return how many seconds more a refusal waits: until a whole number of quanta has passed."""
        quantum = self.quantum(tokens)
        return max(1, math.ceil(elapsed / quantum)) * quantum - elapsed


class Refusals:
    """The sentences that refuse under one router, and the one that leaves in their place."""

    def __init__(self, router: Router) -> None:
        self.router = router
        taught = {said for expert in router.experts.values() for said in expert.gate.refusals}
        self._known = tuple(sorted(taught | set(FALLBACK_REFUSALS)))

    def may_be(self, text: str) -> bool:
        """Whether what has been written so far may become a refusal."""
        said = text.strip()
        return any(known.startswith(said) for known in self._known)

    def is_one(self, answer: Answer) -> bool:
        """Whether the answer, or as much of it as a limit or a stop string left, is a refusal of ours."""
        ours = answer.answered_by is not None or answer.guarded or answer.decision.expert_id is not None
        return ours and self.may_be(answer.text)


def uniform(answer: Answer, conversation: Conversation, mllm: MLLM, stop: Sequence[str]) -> Answer:
    """Return the refusal as every refusal leaves: a sentence that depends on the question alone, whole."""
    number = zlib.crc32(conversation[-1].text.encode("utf-8", "surrogatepass"))
    stops = StopFilter(stop)
    text = stops.feed(FALLBACK_REFUSALS[number % len(FALLBACK_REFUSALS)]) + stops.flush()
    tokens = tuple(mllm.tokenizer(text, add_special_tokens=False)["input_ids"])
    return replace(answer, text=text, token_ids=tokens, finish_reason="stop")
