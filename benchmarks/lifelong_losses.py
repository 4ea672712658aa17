"""The losses that unlearning papers edit weights with, as pure functions of sequence log-likelihoods.

Here and not in `workers/training`: the service never trains with them, they are what it is compared with.

A batch is described by `Terms`; each loss takes from it what it needs, and `LOSSES` says what that is, so
that nothing else is computed. All are scalars to be minimised. f is the forget set, r the retain set, y_idk a
refusal ("I do not know."), theta the weights now, ref the weights as they were when the request came.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

NPO_BETA: Final = 0.1
DPO_BETA: Final = 0.1
SIMNPO_BETA: Final = 2.5
SIMNPO_GAMMA: Final = 0.0

Part = Literal["forget", "refusal", "retain"]


@dataclass(frozen=True, slots=True)
class Likelihood:
    """Answers' summed log-likelihoods in nats: ``log_p`` (rows,), ``tokens`` (rows,), ``log_ref`` (rows,)."""

    log_p: Tensor
    tokens: Tensor
    log_ref: Tensor | None = None

    @property
    def ratio(self) -> Tensor:
        """log(p_theta / p_ref) per row, (rows,).

        Raises:
            ValueError: No reference was computed.
        """
        if self.log_ref is None:
            raise ValueError("this loss needs the likelihoods under the reference model")
        return self.log_p - self.log_ref


@dataclass(frozen=True, slots=True)
class Terms:
    """What one batch says: gold answers of both sets, refusals to forget prompts, KL(ref || theta) on r."""

    forget: Likelihood | None = None
    refusal: Likelihood | None = None
    retain: Likelihood | None = None
    retain_kl: Tensor | None = None


def nll(likelihood: Likelihood | None) -> Tensor:
    """Return l = -sum log p / number of tokens: the mean cross-entropy per token over the batch.

    Raises:
        ValueError: The part was not computed.
    """
    return -_needed(likelihood).log_p.sum() / _needed(likelihood).tokens.sum()


def gradient_ascent(terms: Terms) -> Tensor:
    """Return -l_f. Source: Jang et al. (2023), arXiv 2210.01504, eq. 1; METHOD.md section 7."""
    return -nll(terms.forget)


def gradient_difference(terms: Terms) -> Tensor:
    """Return -l_f + l_r. Source: Liu et al. (2022), arXiv 2203.12817; TOFU, arXiv 2401.06121, section 3.2."""
    return -nll(terms.forget) + nll(terms.retain)


def kl_minimisation(terms: Terms) -> Tensor:
    """Return -l_f + KL(ref || theta) on r, per token. Source: TOFU, arXiv 2401.06121, section 3.2."""
    if terms.retain_kl is None:
        raise ValueError("this loss needs KL(ref || theta) on the retain set")
    return -nll(terms.forget) + terms.retain_kl


def preference_optimisation(terms: Terms) -> Tensor:
    """Return l(y_idk | f) + l_r ("PO", "IDK"). Source: TOFU, arXiv 2401.06121, section 3.2."""
    return nll(terms.refusal) + nll(terms.retain)


def negative_preference(terms: Terms, beta: float = NPO_BETA) -> Tensor:
    """Return -(2/b) mean log s(-b log(p_theta / p_ref)) on f, s the logistic function.

    Source: Zhang et al. (2024), arXiv 2404.05868, eq. 3, b = .1; METHOD.md section 7 (no retain term).
    """
    return -2 / beta * logsigmoid(-beta * _needed(terms.forget).ratio).mean()


def simple_negative_preference(
    terms: Terms, beta: float = SIMNPO_BETA, gamma: float = SIMNPO_GAMMA
) -> Tensor:
    """Return -(2/b) mean log s(-(b/|y|) log p_theta - g) on f, plus l_r: NPO without a reference model.

    Source: Fan et al. (2024), arXiv 2410.07163, eq. 4 and the retain term of its eq. 1 with weight 1;
    b = 2.5, g = 0 as there for TOFU.
    """
    forget = _needed(terms.forget)
    margin = -beta * forget.log_p / forget.tokens - gamma
    return -2 / beta * logsigmoid(margin).mean() + nll(terms.retain)


def direct_preference(terms: Terms, beta: float = DPO_BETA) -> Tensor:
    """Return -(2/b) mean log s(b log(p/p_ref)(y_idk) - b log(p/p_ref)(y_f)): the refusal is preferred.

    Source: Rafailov et al. (2023), arXiv 2305.18290, eq. 7; scaled by 2/b as in Zhang et al. (2024), whose
    NPO is this without the preferred answer.
    """
    margin = beta * (_needed(terms.refusal).ratio - _needed(terms.forget).ratio)
    return -2 / beta * logsigmoid(margin).mean()


@dataclass(frozen=True, slots=True)
class Loss:
    """A loss, the parts of a batch it reads, and whether it needs likelihoods or KL under the reference."""

    function: Callable[[Terms], Tensor]
    parts: tuple[Part, ...]
    reference: bool = False
    kl: bool = False


LOSSES: Final[dict[str, Loss]] = {
    "ga": Loss(gradient_ascent, ("forget",)),
    "graddiff": Loss(gradient_difference, ("forget", "retain")),
    "kl": Loss(kl_minimisation, ("forget", "retain"), kl=True),
    "po": Loss(preference_optimisation, ("refusal", "retain")),
    "npo": Loss(negative_preference, ("forget",), reference=True),
    "simnpo": Loss(simple_negative_preference, ("forget", "retain")),
    "dpo": Loss(direct_preference, ("forget", "refusal"), reference=True),
}
"""The weight-editing baselines, by the benchmark's names."""


def sequence_log_p(logits: Tensor, targets: Tensor, rows: Tensor, n: int) -> Likelihood:
    """Sum token log-likelihoods by row.

    ``logits`` (answer tokens, vocabulary), ``targets`` (answer tokens,), ``rows`` (answer tokens,): the row,
    of 0..n-1, to which each token belongs. Returns n rows.
    """
    picked = logits.float().log_softmax(-1).gather(-1, targets[:, None]).squeeze(-1)
    empty = torch.zeros(n, device=picked.device)
    return Likelihood(
        empty.index_add(0, rows, picked), empty.index_add(0, rows, torch.ones_like(picked)).clamp(min=1)
    )


def _needed(likelihood: Likelihood | None) -> Likelihood:
    if likelihood is None:
        raise ValueError("this loss needs a part of the batch that was not computed")
    return likelihood
