"""Interim protection: what the gate and the guard know of a subject before an expert has been trained for it.

Names as they were filed, prototypes of the pictures, and one identity answer that the base model has not been
asked for but would give if it knew the name. Nothing is trained, so nobody can answer in its place: the
router gives a fixed refusal without generating.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
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
_TOGETHER = 32
_MAX_FACT_LENGTH = 60


@dataclass(frozen=True, slots=True)
class InterimEntry:
    """A subject that is refused without an expert; `expert_id` is the id its expert will have."""

    expert_id: str
    record: GateRecord


@dataclass(frozen=True, slots=True)
class InterimSubject:
    """What an owner filed: names, class, pictures (read once, one after another), and facts in words."""

    aliases: Sequence[str]
    klass: str
    pictures: Iterable[Image]
    facts: Sequence[str] = ()


def interim_record(
    mllm: MLLM,
    aliases: Sequence[str],
    klass: str,
    pictures: Iterable[Image],
    facts: Sequence[str] = (),
) -> GateRecord:
    """Build the gate record of one subject; see `interim_records`."""
    return interim_records(mllm, [InterimSubject(aliases, klass, pictures, facts)])[0]


def interim_records(mllm: MLLM, subjects: Iterable[InterimSubject]) -> list[GateRecord]:
    """Build gate records from what owners filed; the vision tower sees the pictures of several at once.

    Every picture and its mirror image become a prototype. There are no negatives of its own to calibrate on
    yet. A picture concerns the subject if the base model's likelihood of "This is NAME", given the picture,
    is 0.3 or more (no expert could judge what is only watched), or if it is very near to a prototype (cosine
    similarity 0.85; 0.75 where there is no name to ask for). Measured with 32 interim subjects of the demo
    world and two pictures each: 191 of 192 unseen views are claimed, none for somebody else, and 0 of 346
    pictures of others; by four pictures alone, without a name, 178 of 192 and 0 of 346.

    Facts are phrases as filed; those of two words or more and moderate length are kept for the guard, which
    looks for them only where the conversation weakly concerns the subject.
    """
    listed = list(subjects)
    seen = _prototypes(mllm, [subject.pictures for subject in listed])
    return [_record(subject, prototypes) for subject, prototypes in zip(listed, seen, strict=True)]


def _record(subject: InterimSubject, prototypes: Tensor) -> GateRecord:
    name = next((alias for alias in subject.aliases if canonicalise(alias).text), None)
    phrases = (canonicalise(fact).text for fact in subject.facts)
    question = identity_probes(subject.klass, "fit")[0].text
    return GateRecord(
        aliases=tuple(subject.aliases),
        klass=subject.klass,
        prototypes=prototypes,
        identity=((question, f"This is {name}"),) if name else (),
        facts=tuple(dict.fromkeys(p for p in phrases if " " in p and len(p) <= _MAX_FACT_LENGTH)),
        recognition_own=RECOGNITION_OWN,
        picture_floor=PICTURE_FLOOR,
        alike=PICTURE_THRESHOLD if name else PICTURE_THRESHOLD_ALONE,
    )


def _prototypes(mllm: MLLM, pictures: Sequence[Iterable[Image]]) -> list[Tensor]:
    """Return (2 * pictures, d) unit vectors for each subject: its pictures', then their mirror images'.

    Large pictures are scaled down as they come, and the tower sees `_TOGETHER` at a time.
    """
    found: list[list[Tensor]] = [[] for _ in pictures]  # (2, d) for each picture of each subject
    every = ((i, picture) for i, those in enumerate(pictures) for picture in those)
    while some := [(i, bounded(picture, _LARGEST_SIDE)) for i, picture in islice(every, _TOGETHER)]:
        both = mllm.vision.pooled_both_ways([picture for _, picture in some]).float().cpu()  # (2, n, d)
        for (i, _), rows in zip(some, both.unbind(1), strict=True):
            found[i].append(rows)
    return [torch.stack(rows, 1).flatten(0, 1) if rows else torch.zeros(0, 0) for rows in found]
