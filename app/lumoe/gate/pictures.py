"""Pictures: pooled tower features propose a few experts, the base model's own recognition decides.

A leak needs the base model to recognise the subject. How likely it finds the subject's identity answer,
given this picture, is therefore the evidence that matters; pooled similarity only keeps that question cheap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from PIL.Image import Image
from torch import Tensor

from app.lumoe.gate.record import GateRecord
from app.lumoe.mllm import MLLM
from app.lumoe.types import ask

PROPOSALS = 8


@dataclass(frozen=True, slots=True)
class PictureHit:
    """Expert `expert_id` may be the subject of picture `picture`; `likelihood` is nan if it was not asked."""

    expert_id: str
    picture: int
    similarity: float
    likelihood: float
    strength: str | None


class PictureIndex:
    """Immutable prototypes of all experts: (P, d), and who owns each row."""

    def __init__(self, records: Mapping[str, GateRecord]) -> None:
        self._records = dict(records)
        self._ids = [key for key, record in self._records.items() if len(record.prototypes)]
        self._unseen = [
            key for key, record in self._records.items() if not len(record.prototypes) and record.identity
        ]
        rows = [self._records[key].prototypes.float() for key in self._ids]
        self._prototypes = torch.cat(rows) if rows else torch.zeros(0, 0)
        counts = torch.tensor([len(part) for part in rows], dtype=torch.long)
        self._owner = torch.repeat_interleave(torch.arange(len(rows)), counts)

    def similarities(self, pooled: Tensor) -> Tensor:
        """Return (n, experts with prototypes): the best cosine similarity of each picture to each expert."""
        n = len(pooled)
        if not len(self._prototypes):
            return torch.zeros(n, 0)
        cosine = pooled.float().cpu() @ self._prototypes.T  # (n, P)
        best = torch.full((n, len(self._ids)), -1.0)
        return best.scatter_reduce(1, self._owner.expand(n, -1), cosine, reduce="amax")

    def propose(self, pooled: Tensor) -> list[list[tuple[str, float]]]:
        """Return, per picture, up to `PROPOSALS` (expert id, similarity) above the expert's floor.

        Experts without pictures cannot be ranked: up to as many of them are always proposed.
        """
        best = self.similarities(pooled)
        top = best.topk(min(PROPOSALS, best.shape[1]), dim=1) if best.shape[1] else None
        proposals = []
        for i in range(len(pooled)):
            ranked = (
                zip(top.values[i].tolist(), top.indices[i].tolist(), strict=True) if top is not None else ()
            )
            near = [(self._ids[k], value) for value, k in ranked]
            kept = [(key, value) for key, value in near if value >= self._records[key].picture_floor]
            proposals.append(kept + [(key, -1.0) for key in self._unseen[:PROPOSALS]])
        return proposals

    def find(self, mllm: MLLM, images: Sequence[Image]) -> list[PictureHit]:
        """Return what each picture says about each proposed expert, weak and strong evidence only."""
        if not images or not self._records:
            return []
        proposals = self.propose(mllm.encode(images).pooled)
        pairs = [(i, key, value) for i, row in enumerate(proposals) for key, value in row]
        likelihoods = recognition(mllm, [(images[i], self._records[key].identity) for i, key, _ in pairs])
        hits = []
        for (i, key, similarity), likelihood in zip(pairs, likelihoods, strict=True):
            strength = _strength(self._records[key], similarity, likelihood)
            if strength is not None:
                hits.append(PictureHit(key, i, similarity, likelihood, strength))
        return hits


def _strength(record: GateRecord, similarity: float, likelihood: float) -> str | None:
    if likelihood >= record.recognition_threshold or similarity >= record.picture_threshold:
        return "strong"
    return "weak" if likelihood >= record.recognition_floor else None


def recognition(mllm: MLLM, pairs: Sequence[tuple[Image, Sequence[tuple[str, str]]]]) -> list[float]:
    """Return how likely the base model identifies the subject in each picture.

    For every (picture, identity pairs): the mean over the pairs of the mean log-likelihood per token of the
    identity answer, given picture and question; nan if there is no identity pair.
    """
    rows = [(image, question, answer) for image, identity in pairs for question, answer in identity]
    values = iter(
        mllm.loglik([ask(q, image) for image, q, _ in rows], [a for _, _, a in rows]) if rows else ()
    )
    result = []
    for _, identity in pairs:
        scores = [next(values) for _ in identity]
        result.append(sum(scores) / len(scores) if scores else float("nan"))
    return result
