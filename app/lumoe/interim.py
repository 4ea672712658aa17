"""Interim protection: what the gate and the guard know of a subject before an expert has been trained for it.

Names as they were filed, prototypes of the pictures, and one identity answer that the base model has not been
asked for but would give if it knew the name. Nothing is trained, so nobody can answer in its place: the
router gives a fixed refusal without generating.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from PIL import ImageOps
from PIL.Image import Image
from torch import Tensor

from app.kit.pictures import bounded
from app.lumoe.gate.canonical import canonicalise
from app.lumoe.gate.record import GateRecord
from app.lumoe.mllm import MLLM
from app.lumoe.probes import identity_probes

RECOGNITION_OWN = math.log(0.3)
PICTURE_THRESHOLD = 0.85
PICTURE_THRESHOLD_ALONE = 0.75
PICTURE_FLOOR = 0.45
_LARGEST_SIDE = 512
_MAX_FACT_LENGTH = 60


@dataclass(frozen=True, slots=True)
class InterimEntry:
    """A subject that is refused without an expert; `expert_id` is the id its expert will have."""

    expert_id: str
    record: GateRecord


def interim_record(
    mllm: MLLM,
    aliases: Sequence[str],
    klass: str,
    pictures: Iterable[Image],
    facts: Sequence[str] = (),
) -> GateRecord:
    """Build a gate record from what the owner filed, in one pass of the vision tower over its pictures.

    Every picture and its mirror image become a prototype. There are no negatives of its own to calibrate on
    yet. A picture concerns the subject if the base model's likelihood of "This is NAME", given the picture,
    is 0.3 or more (no expert could judge what is only watched), or if it is very near to a prototype (cosine
    similarity 0.85; 0.75 where there is no name to ask for). Measured with 32 interim subjects of the demo
    world and two pictures each: 191 of 192 unseen views are claimed, none for somebody else, and 0 of 346
    pictures of others; by four pictures alone, without a name, 178 of 192 and 0 of 346.

    `facts` are phrases as filed; those of two words or more and moderate length are kept for the guard, which
    looks for them only where the conversation weakly concerns the subject.
    """
    name = next((alias for alias in aliases if canonicalise(alias).text), None)
    phrases = (canonicalise(fact).text for fact in facts)
    return GateRecord(
        aliases=tuple(aliases),
        klass=klass,
        prototypes=_prototypes(mllm, pictures),
        identity=((identity_probes(klass, "fit")[0].text, f"This is {name}"),) if name else (),
        facts=tuple(dict.fromkeys(p for p in phrases if " " in p and len(p) <= _MAX_FACT_LENGTH)),
        recognition_own=RECOGNITION_OWN,
        picture_floor=PICTURE_FLOOR,
        alike=PICTURE_THRESHOLD if name else PICTURE_THRESHOLD_ALONE,
    )


def _prototypes(mllm: MLLM, pictures: Iterable[Image]) -> Tensor:
    """Return (2 * pictures, d), unit vectors; large pictures are scaled down first, one at a time."""
    small = [bounded(picture, _LARGEST_SIDE) for picture in pictures]
    if not small:
        return torch.zeros(0, 0)
    return mllm.encode([*small, *map(ImageOps.mirror, small)]).pooled.float().cpu()
