"""Interim protection: what the gate and the guard know of a subject before an expert has been trained for it.

Names as they were filed, and prototypes of the pictures. Nothing has been asked of the base model and nothing
is trained, so nobody can answer in its place: the router gives a fixed refusal without generating.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import ImageOps
from PIL.Image import Image
from torch import Tensor

from app.lumoe.gate.canonical import canonicalise
from app.lumoe.gate.record import GateRecord
from app.lumoe.mllm import MLLM

PICTURE_THRESHOLD = 0.9
_MAX_FACT_LENGTH = 60
_NEVER = float("inf")


@dataclass(frozen=True, slots=True)
class InterimEntry:
    """A subject that is refused without an expert; `expert_id` is the id its expert will have."""

    expert_id: str
    record: GateRecord


def interim_record(
    mllm: MLLM,
    aliases: Sequence[str],
    klass: str,
    pictures: Sequence[Image],
    facts: Sequence[str] = (),
) -> GateRecord:
    """Build a gate record from what the owner filed, in one pass of the vision tower.

    Every picture and its mirror image become a prototype. There are no negatives to calibrate on yet, so a
    picture must be nearer to a prototype than `PICTURE_THRESHOLD` (cosine similarity). `facts` are phrases as
    filed; those of two words or more and moderate length are kept for the guard, which looks for them only
    where the conversation weakly concerns the subject.
    """
    phrases = (canonicalise(fact).text for fact in facts)
    return GateRecord(
        aliases=tuple(aliases),
        klass=klass,
        prototypes=_prototypes(mllm, pictures),
        identity=(),
        facts=tuple(dict.fromkeys(p for p in phrases if " " in p and len(p) <= _MAX_FACT_LENGTH)),
        recognition_threshold=_NEVER,
        recognition_floor=_NEVER,
        picture_threshold=PICTURE_THRESHOLD,
        picture_floor=PICTURE_THRESHOLD,
    )


def _prototypes(mllm: MLLM, pictures: Sequence[Image]) -> Tensor:
    """Return (2 * pictures, d), unit vectors."""
    if not pictures:
        return torch.zeros(0, 0)
    views = [view for picture in pictures for view in (picture, ImageOps.mirror(picture))]
    return mllm.encode(views).pooled.float().cpu()
