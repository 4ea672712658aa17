"""Which token comes next: the likeliest, or one drawn with a temperature, row by row."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers import LogitsProcessor


@dataclass(frozen=True, slots=True)
class Sampling:
    """How one answer's tokens are chosen.

    `temperature` 0 is greedy; otherwise softmax(logits / temperature) is sampled, of which only the likeliest
    tokens that reach `top_p` together are kept (Holtzman et al. 2020, nucleus sampling). The same `seed`
    gives the same draws; None: another each time.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None

    @property
    def greedy(self) -> bool:
        """Whether nothing is drawn."""
        return self.temperature == 0.0 or self.top_p == 0.0

    def seeded(self) -> Sampling:
        """Return the same with a seed, so that a second try draws what the first one drew."""
        return self if self.seed is not None or self.greedy else replace(self, seed=secrets.randbits(48))


GREEDY = Sampling()


class Draw:
    """One row's choices, one after the other."""

    def __init__(self, sampling: Sampling) -> None:
        self.sampling = sampling.seeded()
        self._generator = torch.Generator()  # on the CPU: the same draws on every device
        if self.sampling.seed is not None:
            self._generator.manual_seed(self.sampling.seed & (2**63 - 1))

    def token(self, logits: Tensor) -> int:
        """Return the next token, given its logits (vocab,)."""
        if self.sampling.greedy:
            return int(logits.argmax())
        chances = torch.softmax(logits.double().cpu() / self.sampling.temperature, -1)
        if self.sampling.top_p < 1.0:
            ordered, order = chances.sort(descending=True)
            beyond = ordered.cumsum(-1) - ordered >= self.sampling.top_p  # the first is always kept
            chances = chances.scatter(0, order[beyond], 0.0)
        return int(torch.multinomial(chances, 1, generator=self._generator))


class Drawing(LogitsProcessor):
    """Makes a greedy `generate` take the rows' own choices; put it behind all other processors."""

    def __init__(self, samplings: Sequence[Sampling]) -> None:
        self._draws = [None if sampling.greedy else Draw(sampling) for sampling in samplings]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # noqa: ARG002
        """Return `scores` (rows, vocab) with nothing left of a drawn row but its choice."""
        scores = scores.clone()
        for row, draw in enumerate(self._draws):
            if draw is not None:
                token = draw.token(scores[row])
                scores[row] = -torch.inf
                scores[row, token] = 0.0
        return scores
