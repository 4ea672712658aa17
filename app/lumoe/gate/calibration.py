"""Calibration: one subject's gate record, its scores on the negative set, and whether it is told apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from PIL import ImageOps
from PIL.Image import Image
from torch import Tensor

from app.lumoe.gate.names import NameIndex
from app.lumoe.gate.nearness import nearness, rivals_of
from app.lumoe.gate.negatives import NegativeSet
from app.lumoe.gate.pictures import PictureIndex, centres, recognition
from app.lumoe.gate.record import GateRecord, NegativeScores
from app.lumoe.gate.threshold import ALPHA, MISTAKEN, WEAK_RATIO, Thresholds, conformal_threshold
from app.lumoe.mllm import MLLM
from app.lumoe.types import ask

_MAX_PICTURES = 16
_MIN_TPR = 0.9
_FLOOR_MARGIN = 0.12
_NEVER = math.inf


@dataclass(frozen=True, slots=True)
class Calibration:
    """The record, and how well it tells the subject from others on the calibration pictures.

    `true_positives` of `positives` views of the subject are claimed or watched, and `false_positives` of
    `negatives` pictures of others are claimed, at the gate's thresholds. `separates` is false if the pictures
    given do not let the gate find the subject; `reason` then says what to send.
    """

    record: GateRecord
    separates: bool
    reason: str
    true_positives: int
    positives: int
    false_positives: int
    negatives: int


def calibrate_gate(
    mllm: MLLM,
    *,
    aliases: Sequence[str],
    klass: str,
    pictures: Sequence[Image],
    positives: Sequence[Image],
    negatives: NegativeSet,
    identity: Sequence[tuple[str, str]],
    facts: Sequence[str] = (),
    hints: Sequence[str] = (),
    refusals: Sequence[str] = (),
    known: bool | None = None,
    others: Thresholds | None = None,
    alpha: float = ALPHA,
) -> Calibration:
    """Build a subject's gate record and measure it at the thresholds that it leads to.

    `pictures` become prototypes (with their mirror images), `positives` are further views of the subject that
    are not among them, `negatives` show others. `identity` are the (question, answer) pairs by which the
    base model identifies the subject; empty if it does not. `others` are the thresholds of the experts that
    are live already.

    The base model's own word counts. Views in which it does not name the subject are no positives: what it
    does not recognise it cannot give away. Somebody else's picture in which it rather names the
    subject than not is no negative: what it takes for the subject must be treated as the subject.
    """
    prototypes = _prototypes(mllm, pictures)
    asked = tuple((question, up_to_name(answer, aliases)) for question, answer in identity)
    told = _told(mllm, positives, aliases, identity)
    positives = told or _told(mllm, pictures, aliases, identity) or positives
    own = negatives.own(aliases)
    alone = not identity if known is None else not (known and identity)
    rivals = rivals_of(prototypes, negatives.pooled, own)
    draft = GateRecord(
        aliases=tuple(aliases),
        klass=klass,
        prototypes=prototypes,
        rivals=rivals if asked else torch.zeros(0, 0),
        nearness=_nearness(mllm, prototypes, rivals, positives) if asked else -_NEVER,
        identity=asked,
        facts=tuple(facts),
        hints=tuple(hints),
        refusals=tuple(refusals),
        picture_floor=_floor(mllm, prototypes, positives),
        alike=_alike(prototypes, negatives, own, alpha) if alone else _NEVER,
    )
    record = with_negatives(mllm, draft, negatives, own)
    thresholds = (others or Thresholds(alpha=alpha)).with_record(record)
    found = sum(_noticed(mllm, record, thresholds, positives))
    false = _false_claims(record, thresholds)
    separates = not pictures or found >= _MIN_TPR * len(positives)
    return Calibration(
        record,
        separates,
        "" if separates else _advice(found, len(positives)),
        found,
        len(positives),
        false,
        len(own) - sum(own),
    )


def with_negatives(
    mllm: MLLM, record: GateRecord, negatives: NegativeSet, own: Sequence[bool] | None = None
) -> GateRecord:
    """Return the record with its scores on the negative set; the subject's own pictures get +inf."""
    own = negatives.own(record.aliases) if own is None else own
    likeness = _likeness(record.prototypes, negatives.pooled)
    recognised = torch.full((len(own),), -_NEVER)
    near = [i for i, mine in enumerate(own) if not mine and float(likeness[i]) >= record.picture_floor]
    if not len(record.prototypes):
        near = [i for i, mine in enumerate(own) if not mine]
    if record.identity and near:
        found = recognition(mllm, [(negatives.images[i], record.identity) for i in near])
        recognised[near] = torch.tensor(found)
    mine = torch.tensor(list(own), dtype=torch.bool)
    scores = NegativeScores(
        negatives.digest, recognised.masked_fill(mine, _NEVER), likeness.masked_fill(mine, _NEVER)
    )
    return replace(record, negatives=scores)


def up_to_name(answer: str, aliases: Sequence[str]) -> str:
    """Return the beginning of an identity answer up to and including the subject's name.

    What comes after it does not say who it is. Without a name in it, the whole answer without its full stop.
    """
    hits = [h for h in NameIndex({"subject": aliases}).find(answer, fuzzy=False) if h.whole]
    return answer[: max(hit.end for hit in hits)] if hits else answer.rstrip(" .!")


def _told(
    mllm: MLLM, images: Sequence[Image], aliases: Sequence[str], identity: Sequence[tuple[str, str]]
) -> Sequence[Image]:
    """Return the pictures in which the base model names the subject."""
    if not identity or not images:
        return images
    names = NameIndex({"subject": aliases})
    answers = mllm.generate([ask(identity[0][0], image) for image in images])
    return [
        image
        for image, answer in zip(images, answers, strict=True)
        if any(hit.whole for hit in names.find(answer.text, fuzzy=False))
    ]


def _noticed(mllm: MLLM, record: GateRecord, thresholds: Thresholds, images: Sequence[Image]) -> list[bool]:
    """Return, per picture, whether the gate would find the subject in it, surely or weakly."""
    if not images:
        return []
    pooled = mllm.encode(images).pooled.float().cpu()
    likeness = _likeness(record.prototypes, pooled)
    alike = max(record.alike, thresholds.likeness)
    asked = recognition(mllm, [(image, record.identity) for image in images])
    limit = thresholds.of(record) - WEAK_RATIO
    # Whoever has no prototypes cannot be ranked and is always asked about.
    proposed = [["subject"]] * len(images)
    if len(record.prototypes):
        proposed = PictureIndex({"subject": record}, thresholds).propose(pooled, likeness[:, None])
    return [
        bool(like >= alike) or (value >= limit and bool(near))
        for like, value, near in zip(likeness.tolist(), asked, proposed, strict=True)
    ]


def _false_claims(record: GateRecord, thresholds: Thresholds) -> int:
    """Return how many pictures of others would be claimed, those taken for the subject left out."""
    scores = record.negatives
    limit = thresholds.of(record)
    named = (scores.recognition >= limit) & (scores.recognition < MISTAKEN)
    alike = (scores.likeness >= max(record.alike, thresholds.likeness)) & ~torch.isposinf(scores.likeness)
    return int((named | alike).sum())


def _floor(mllm: MLLM, prototypes: Tensor, positives: Sequence[Image]) -> float:
    """Return the similarity from which the base model is asked: well below every view of the subject."""
    if not len(prototypes):
        return -_NEVER
    if not positives:
        return 0.5
    return min(float(_likeness(prototypes, mllm.encode(positives).pooled).min()) - _FLOOR_MARGIN, 0.6)


def _nearness(mllm: MLLM, prototypes: Tensor, rivals: Tensor, positives: Sequence[Image]) -> float:
    """Return the least nearness of the subject's own views; -inf without any."""
    if not len(rivals) or not positives:
        return -_NEVER
    pooled = mllm.encode(positives).pooled
    return float(nearness(_likeness(prototypes, pooled), rivals, pooled).min())


def _alike(prototypes: Tensor, negatives: NegativeSet, own: Sequence[bool], alpha: float) -> float:
    """Return the similarity that decides alone: halfway from the conformal limit of the others to 1."""
    if not len(prototypes):
        return _NEVER
    likeness = _likeness(prototypes, negatives.pooled).tolist()
    apart = [value for value, mine in zip(likeness, own, strict=True) if not mine]
    limit = conformal_threshold(apart, alpha / 2) if apart else 0.7
    return limit + 0.5 * (1.0 - limit)


def _prototypes(mllm: MLLM, pictures: Sequence[Image]) -> Tensor:
    """Return (p, d): centres of the pictures and their mirror images."""
    if not pictures:
        return torch.zeros(0, 0)
    chosen = list(pictures)[:_MAX_PICTURES]
    return centres(mllm.encode([*chosen, *(ImageOps.mirror(picture) for picture in chosen)]).pooled)


def _likeness(prototypes: Tensor, pooled: Tensor) -> Tensor:
    """Return (n,): each picture's cosine similarity to the nearest prototype; -1 without prototypes."""
    if not len(prototypes) or not len(pooled):
        return torch.full((len(pooled),), -1.0)
    return (pooled.float().cpu() @ prototypes.T).amax(1)


def _advice(hits: int, positives: int) -> str:
    return (
        f"the pictures do not tell the subject from others: {hits} of {positives} further views would be "
        "recognised. Send more pictures that show the subject clearly, alone and from several sides."
    )
