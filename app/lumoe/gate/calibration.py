"""Calibration: thresholds for one subject, conformal on negatives, checked on positives."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import ImageOps
from PIL.Image import Image
from torch import Tensor

from app.lumoe.gate.names import NameIndex
from app.lumoe.gate.pictures import recognition
from app.lumoe.gate.record import GateRecord
from app.lumoe.mllm import MLLM
from app.lumoe.types import ask

_MAX_PROTOTYPES = 16
_MIN_TPR = 0.9
_NEVER = float("inf")


@dataclass(frozen=True, slots=True)
class Calibration:
    """The record, and how well it tells the subject from others on the calibration pictures.

    `true_positives` of `positives` views of the subject and `false_positives` of `negatives` pictures of
    others are claimed at the chosen thresholds. `separates` is false if the pictures given do not let the
    gate find the subject; `reason` then says what to send.
    """

    record: GateRecord
    separates: bool
    reason: str
    true_positives: int
    positives: int
    false_positives: int
    negatives: int


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


def calibrate_gate(
    mllm: MLLM,
    *,
    aliases: Sequence[str],
    klass: str,
    pictures: Sequence[Image],
    positives: Sequence[Image],
    negatives: Sequence[Image],
    identity: Sequence[tuple[str, str]],
    facts: Sequence[str] = (),
    alpha: float = 0.01,
) -> Calibration:
    """Build a subject's gate record and choose its thresholds.

    `pictures` become prototypes (with their mirror images), `positives` are further views of the subject
    that are not among them, `negatives` show others (neighbours of the same class first). `identity` are the
    (question, answer) pairs by which the base model identifies the subject; empty if it does not.

    The base model's own word counts. Where it names the subject in most views, the others are no positives:
    what it does not recognise it cannot give away. Somebody else's picture in which it names the subject is
    no negative: what it takes for the subject must be treated as the subject.
    """
    prototypes = _prototypes(mllm, pictures)
    told = _told(mllm, positives, aliases, identity)
    positives = told if 2 * len(told) >= len(positives) else positives
    scores = recognition(mllm, [(image, identity) for image in (*positives, *negatives)])
    own, theirs = scores[: len(positives)], scores[len(positives) :]
    mistaken = _mistaken(mllm, own, negatives, theirs, aliases, identity)
    negatives = [image for i, image in enumerate(negatives) if i not in mistaken]
    theirs = [score for i, score in enumerate(theirs) if i not in mistaken]
    recognised = _recognition_limits(own, theirs, alpha) if identity else _NOTHING
    similar = _similarity_limits(mllm, prototypes, positives, negatives, alpha)
    record = GateRecord(
        aliases=tuple(aliases),
        klass=klass,
        prototypes=prototypes,
        identity=tuple(identity),
        facts=tuple(facts),
        recognition_threshold=recognised.threshold,
        recognition_floor=recognised.floor,
        picture_threshold=similar.threshold,
        picture_floor=similar.floor,
    )
    hits = recognised.claims(positives=True) | similar.claims(positives=True)
    false = recognised.claims(positives=False) | similar.claims(positives=False)
    separates = not pictures or len(hits) >= _MIN_TPR * len(positives)
    return Calibration(
        record,
        separates,
        "" if separates else _advice(len(hits), len(positives)),
        len(hits),
        len(positives),
        len(false),
        len(negatives),
    )


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


def _mistaken(
    mllm: MLLM,
    own: Sequence[float],
    negatives: Sequence[Image],
    theirs: Sequence[float],
    aliases: Sequence[str],
    identity: Sequence[tuple[str, str]],
) -> set[int]:
    """Return the indices of others' pictures in which the base model names the subject.

    Only pictures that it finds at least as telling as the least of the subject's own are asked about.
    """
    if not identity or not own:
        return set()
    doubtful = [i for i, score in enumerate(theirs) if score >= min(own)]
    told = {id(image) for image in _told(mllm, [negatives[i] for i in doubtful], aliases, identity)}
    return {i for i in doubtful if id(negatives[i]) in told}


@dataclass(frozen=True, slots=True)
class _Limits:
    """One kind of score: thresholds, and the scores they were chosen from."""

    threshold: float
    floor: float
    positive: tuple[float, ...]
    negative: tuple[float, ...]

    def claims(self, *, positives: bool) -> frozenset[int]:
        scores = self.positive if positives else self.negative
        return frozenset(i for i, score in enumerate(scores) if score >= self.threshold)


_NOTHING = _Limits(_NEVER, _NEVER, (), ())


def _recognition_limits(own: Sequence[float], theirs: Sequence[float], alpha: float) -> _Limits:
    """Strong halfway between the conformal limit and the subject's own views, weak from a quarter on."""
    positive, negative = tuple(own), tuple(theirs)
    limit = conformal_threshold(negative, alpha)
    if not positive:  # a name without pictures: what the model takes for the subject has yet to be seen
        strong = limit + 0.5 * abs(limit) if math.isfinite(limit) else math.log(0.5)
        return _Limits(min(strong, math.log(0.5)), limit, positive, negative)
    low = _quantile(positive, 0.1)
    if low <= limit:
        return _Limits(math.nextafter(limit, math.inf), limit, positive, negative)
    if not math.isfinite(limit):
        limit = 2 * low - 1
    return _Limits(limit + 0.5 * (low - limit), limit + 0.25 * (low - limit), positive, negative)


def _similarity_limits(
    mllm: MLLM, prototypes: Tensor, positives: Sequence[Image], negatives: Sequence[Image], alpha: float
) -> _Limits:
    """Cosine similarity alone is strong only above every negative; the floor passes the subject's views."""
    if not len(prototypes):
        return _NOTHING
    positive, negative = _best(mllm, prototypes, positives), _best(mllm, prototypes, negatives)
    limit = conformal_threshold(negative, alpha / 2) if negative else 0.9
    threshold = limit + 0.5 * (1.0 - limit)
    floor = min(_quantile(positive, 0.0), limit) - 0.1 if positive else limit - 0.1
    return _Limits(threshold, floor, positive, negative)


def _prototypes(mllm: MLLM, pictures: Sequence[Image]) -> Tensor:
    """Return (p, d): the pictures and, while there is room, their mirror images."""
    if not pictures:
        return torch.zeros(0, 0)
    views = list(pictures) + [ImageOps.mirror(picture) for picture in pictures]
    return mllm.encode(views[:_MAX_PROTOTYPES]).pooled.float().cpu()


def _best(mllm: MLLM, prototypes: Tensor, images: Sequence[Image]) -> tuple[float, ...]:
    if not images:
        return ()
    cosine = mllm.encode(images).pooled.float().cpu() @ prototypes.T
    return tuple(cosine.max(1).values.tolist())


def _quantile(values: Sequence[float], q: float) -> float:
    return float(torch.tensor(values, dtype=torch.float64).quantile(q))


def _advice(hits: int, positives: int) -> str:
    return (
        f"the pictures do not tell the subject from others: {hits} of {positives} further views would be "
        "recognised. Send more pictures that show the subject clearly, alone and from several sides."
    )
