"""The negative set of a base model: everybody and nobody, of the calibrate split, once per process."""

from __future__ import annotations

from collections.abc import Iterator

from PIL.Image import Image

from app.lumoe.gate.negatives import NegativeSet
from app.lumoe.mllm import MLLM
from app.lumoe.probes import CLASSES
from app.lumoe.types import pictures_of
from workers.forgetset.cohort import Cohort

SEED = 20_26
OTHERS = 600
STRANGERS_PER_CLASS = 16
GENERAL = 60


def negative_set(mllm: MLLM, cohort: Cohort) -> NegativeSet:
    """Return the negative set: one picture of everybody there is data about, of strangers, and of nobody.

    ``cohort`` excludes nobody; the pictures of a subject are left out of its own calibration by name. Always
    the same for the same data, so that the scores of experts made years apart can be compared.
    """
    return NegativeSet.encode(mllm, list(_pictures(cohort)))


def _pictures(cohort: Cohort) -> Iterator[tuple[Image, tuple[str, ...]]]:
    everybody = sorted(cohort.others(), key=lambda other: other.key)[:OTHERS]
    unknown = [other for klass in CLASSES for other in cohort.strangers(klass, STRANGERS_PER_CLASS, SEED)]
    for other in (*everybody, *unknown):
        for image in cohort.pictures(other, "calibrate", 1):
            yield image, other.names
    for image in pictures_of([p.conversation for p in cohort.general("calibrate", GENERAL, SEED)]):
        yield image, ()
