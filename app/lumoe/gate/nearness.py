"""Nearness: how like a subject a picture is, less how like others of its kind.

    nearness(x) = max over prototypes p of cos(x, p) - WEIGHT * max over rivals r of cos(x, r)

The rivals are the pictures in the negative set that are most like the prototypes (adaptive cohort
normalisation, Sturim and Reynolds 2005, with the one best competitor in place of mean and deviation). A
look-alike is like the subject and more like its own picture; a bad view of the subject is like neither.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

RIVALS = 8
WEIGHT = 0.45
MARGIN = 0.13
COARSE_MARGIN = 0.1
"""Chosen on views, strangers and general pictures that nothing else uses (decision 21)."""


def rivals_of(prototypes: Tensor, pooled: Tensor, own: Sequence[bool]) -> Tensor:
    """Return (r, d), r <= RIVALS: the rows of `pooled` (n, d) nearest to a prototype, without `own` ones."""
    theirs = pooled[~torch.tensor(list(own), dtype=torch.bool)].float().cpu()
    if not len(prototypes) or not len(theirs):
        return torch.zeros(0, 0)
    nearest = (theirs @ prototypes.T).amax(1).topk(min(RIVALS, len(theirs))).indices
    return theirs[nearest].half().float()  # as they are stored


def nearness(similarity: Tensor, rivals: Tensor, pooled: Tensor) -> Tensor:
    """Return (n,) from the best similarity to a prototype (n,), the rivals (r, d) and the pictures (n, d)."""
    if not len(rivals):
        return similarity
    return similarity - WEIGHT * (pooled.float().cpu() @ rivals.T).amax(1)


def nearness_floors(lowest: Tensor) -> Tensor:
    """Return (experts,): the nearness from which the base model is asked.

    `lowest` is the least of each subject's own views, nan where that is not known. A dozen views tell the
    least one badly, so each is drawn half-way to the mean of all (James and Stein 1961).
    """
    unknown = lowest.isnan()
    known = lowest[~unknown]
    mean = float(known.mean()) if len(known) else -math.inf
    return 0.5 * (lowest.masked_fill(unknown, mean) + mean) - MARGIN
