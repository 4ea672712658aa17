"""The gate's thresholds on pictures: conformal on the maximum over all experts, made anew with each expert.

Every expert's record holds its scores on the same negative set. Their running maximum is what a picture of
nobody on the list would have to beat, so the false-positive rate is bounded for all experts together,
however many there are (METHOD.md, section 5.4).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from app.lumoe.gate.record import GateRecord

ALPHA = 0.01
LEAST = math.log(0.05)
"""A picture that the base model would name with a chance of 5 % or less is at most watched."""
MISTAKEN = math.log(0.5)
"""A picture in which the base model rather names the subject than not is the subject's, not a negative."""
WEAK_RATIO = math.log(8.0)


def conformal_threshold(negatives: Sequence[float], alpha: float) -> float:
    """Return the least t with P(score of a new negative > t) <= alpha, marginally.

    Split conformal prediction (Vovk et al. 2005): the ceil((n + 1)(1 - alpha))-th smallest of n scores. With
    n < 1/alpha - 1 no finite value has that guarantee; the largest score is returned, the best the sample can
    say (rate at most 1/(n + 1)).
    """
    if not negatives:
        return -math.inf
    ranked = sorted(negatives)
    k = min(math.ceil((len(ranked) + 1) * (1 - alpha)), len(ranked))
    return ranked[k - 1]


@dataclass(frozen=True, slots=True)
class _Maxima:
    """Running maxima over experts on one negative set; +inf where a picture became somebody's own."""

    recognition: Tensor
    likeness: Tensor


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Thresholds of one registry generation; adding an expert costs one comparison per negative.

    `recognition`: log-likelihood in nats from which a picture is the subject's; from `WEAK_RATIO` less the
    guard watches. `likeness`: cosine similarity from which it is, for subjects the base model does not know.
    """

    recognition: float = LEAST
    likeness: float = -math.inf
    alpha: float = ALPHA
    _maxima: dict[str, _Maxima] = field(default_factory=dict)

    def of(self, record: GateRecord) -> float:
        """Return the log-likelihood from which a picture is this record's subject's."""
        own = record.recognition_own
        return own if math.isfinite(own) else self.recognition

    def negatives(self) -> Tensor:
        """Return (n,): for every picture of others, the highest score that any expert gives it, in nats.

        -inf where nobody would be asked; pictures that are somebody's own are left out. This is what
        `recognition` was chosen from.
        """
        held = [maxima.recognition for maxima in self._maxima.values()]
        scores = torch.cat(held) if held else torch.zeros(0)
        return scores[scores < MISTAKEN]

    def with_record(self, record: GateRecord) -> Thresholds:
        """Return the thresholds with one more expert."""
        if not len(record.negatives.recognition):
            return self
        digest = record.negatives.digest
        maxima = _Maxima(record.negatives.recognition, _deciding_likeness(record))
        held = self._maxima.get(digest)
        if held is not None:
            maxima = _Maxima(
                torch.maximum(held.recognition, maxima.recognition),
                torch.maximum(held.likeness, maxima.likeness),
            )
        return Thresholds._of({**self._maxima, digest: maxima}, self.alpha)

    @classmethod
    def over(cls, records: Sequence[GateRecord], alpha: float = ALPHA) -> Thresholds:
        """Return the thresholds of all records together."""
        by_set: dict[str, list[GateRecord]] = {}
        for record in records:
            if len(record.negatives.recognition):
                by_set.setdefault(record.negatives.digest, []).append(record)
        maxima = {
            digest: _Maxima(
                torch.stack([record.negatives.recognition for record in some]).amax(0),
                torch.stack([_deciding_likeness(record) for record in some]).amax(0),
            )
            for digest, some in by_set.items()
        }
        return cls._of(maxima, alpha)

    @classmethod
    def _of(cls, maxima: dict[str, _Maxima], alpha: float) -> Thresholds:
        recognition, likeness = LEAST, -math.inf
        for held in maxima.values():
            others = held.recognition[held.recognition < MISTAKEN].tolist()
            recognition = max(recognition, conformal_threshold(others, alpha))
            apart = held.likeness[~torch.isposinf(held.likeness)].tolist()
            likeness = max(likeness, conformal_threshold(apart, alpha / 2))
        return cls(min(recognition, MISTAKEN), likeness, alpha, maxima)


def _deciding_likeness(record: GateRecord) -> Tensor:
    """Return (n,): likeness where it can decide; where it never does, it cannot go wrong either."""
    scores = record.negatives
    if math.isfinite(record.alike):
        return scores.likeness
    return torch.where(torch.isposinf(scores.recognition), math.inf, -math.inf)
