"""The losses of an expert, as small pure functions over the answer's tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

IGNORE = -100
FULL_VOCABULARY = 8192
TOP_K = 512


def answer_positions(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return (row, position) of every logit that predicts an answer token.

    ``labels``: (batch, tokens), -100 outside the answer. The logit at t predicts the token at t + 1.
    """
    rows, positions = torch.nonzero(labels[:, 1:] != IGNORE, as_tuple=True)
    return rows, positions


def refusal_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the mean cross-entropy of the refusal's tokens.

    ``logits``: (answer tokens, vocabulary); ``targets``: (answer tokens,). Scalar, in nats per token.
    """
    return functional.cross_entropy(logits.float(), targets)


@dataclass(frozen=True, slots=True)
class BaseDistribution:
    """The base model's distribution at some answer positions, kept whole or as its k likeliest tokens.

    ``log_probs``: (answer tokens, k); ``tokens``: (answer tokens, k), or None when k is the vocabulary;
    ``rest``: (answer tokens,), the log-probability of everything that was not kept.
    """

    log_probs: Tensor
    tokens: Tensor | None
    rest: Tensor | None

    def greedy(self) -> Tensor:
        """Return the base model's own choice at every position, (answer tokens,)."""
        best = self.log_probs.argmax(-1, keepdim=True)
        return (best if self.tokens is None else self.tokens.gather(-1, best)).squeeze(-1)


def base_distribution(logits: Tensor) -> BaseDistribution:
    """Keep what ``kl_to_base`` needs of the base model's logits (answer tokens, vocabulary)."""
    log_probs = functional.log_softmax(logits.float(), dim=-1)
    if log_probs.shape[-1] <= FULL_VOCABULARY:
        return BaseDistribution(log_probs, None, None)
    kept, tokens = log_probs.topk(TOP_K, dim=-1)
    return BaseDistribution(kept, tokens, _log_rest(kept))


def kl_to_base(logits: Tensor, base: BaseDistribution) -> Tensor:
    """Return KL(base || expert) per answer token, shape (answer tokens,), in nats.

    With a large vocabulary the tail beyond the k likeliest tokens is one lumped outcome; by the data
    processing inequality that is a lower bound of the full divergence, tight when the tail is small.
    """
    expert = functional.log_softmax(logits.float(), dim=-1)
    if base.tokens is None or base.rest is None:
        return (base.log_probs.exp() * (base.log_probs - expert)).sum(-1)
    kept = expert.gather(-1, base.tokens)
    head = (base.log_probs.exp() * (base.log_probs - kept)).sum(-1)
    return head + base.rest.exp() * (base.rest - _log_rest(kept))


def _log_rest(kept: Tensor) -> Tensor:
    """Return log(1 - sum(exp(kept))), safely: (rows, k) -> (rows,)."""
    return torch.log1p(-kept.exp().sum(-1).clamp(max=1 - 1e-6))


def expert_loss(refusal: Tensor, kl: Tensor, weight: float) -> Tensor:
    """Return CE(refusal | forget prompt) + weight * KL(base || expert). Source: METHOD.md section 4."""
    return refusal + weight * kl
