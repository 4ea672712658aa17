"""The cohort: everybody else. Neighbours, strangers and general prompts, by split.

The same protocol serves the demo world and a directory of an operator's own retain data. Fit, calibrate
and report never share a picture or a paraphrase. Nothing is ever drawn of the subject itself: whoever bears
one of the excluded names is left out.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from PIL.Image import Image
from rapidfuzz import fuzz

from app.lumoe.mllm import MLLM
from app.lumoe.probes import Probe, Split, list_probes
from app.lumoe.types import ask
from workers.forgetset.names import Names
from workers.forgetset.prompts import Group, Prompt, followup_prompts, image_prompts, text_prompts
from workers.forgetset.refusals import stable_hash
from workers.verification.metrics.text import norm


@dataclass(frozen=True, slots=True)
class Other:
    """Somebody who is not the subject. ``key`` finds the pictures again."""

    key: str
    klass: str
    names: tuple[str, ...]
    pronoun: str | None = None


class Cohort(Protocol):
    """A source of others and of general prompts. Deterministic for the same arguments."""

    def others(self, klass: str | None = None) -> Sequence[Other]:
        """Return everybody there is data about, of one class or of all."""
        ...

    def practice(self) -> Sequence[Other]:
        """Return those whom nobody is expected to ask to forget: the initial expert practises on them."""
        ...

    def strangers(self, klass: str, n: int, seed: int) -> Sequence[Other]:
        """Return n people the base model has never seen; empty where such data cannot be had."""
        ...

    def pictures(self, other: Other, split: Split, n: int) -> list[Image]:
        """Return up to n pictures of somebody, of this split alone."""
        ...

    def probes(self, klass: str, split: Split) -> Sequence[Probe]:
        """Return what the data itself asks about a class, in this split's wordings; often nothing."""
        ...

    def general(self, split: Split, n: int, seed: int) -> list[Prompt]:
        """Return n prompts that concern nobody, with and without pictures."""
        ...


def nearest(
    mllm: MLLM,
    cohort: Cohort,
    klass: str,
    *,
    names: Sequence[str],
    pictures: Sequence[Image],
    exclude: Sequence[str],
    n: int,
) -> list[Other]:
    """Return the n same-class others most like the subject, by look and by name: the hard negatives.

    Looks are compared with the vision tower's pooled features (one picture of each other against all the
    owner's), names by shared words and letters; the two rankings are taken in turn, looks first.
    """
    gone = Names((*names, *exclude))
    candidates = [other for other in cohort.others(klass) if not gone.borne_by(other.names)]
    by_name = sorted(candidates, key=lambda other: (-_name_likeness(other.names, names), other.key))
    by_look = by_name
    if pictures and candidates:
        shown = [(other, cohort.pictures(other, "fit", 1)) for other in candidates]
        shown = [(other, images) for other, images in shown if images]
        own = mllm.encode(list(pictures)).pooled.float()
        theirs = mllm.encode([images[0] for _, images in shown]).pooled.float()
        likeness = (theirs @ own.T).max(dim=1).values if len(shown) else torch.zeros(0)
        order = sorted(range(len(shown)), key=lambda i: (-float(likeness[i]), shown[i][0].key))
        by_look = [shown[i][0] for i in order]
    ranked: dict[str, Other] = {}
    for i in range(len(candidates)):
        for ranking in (by_look, by_look, by_name):  # two by look for each by name
            pick = next((other for other in ranking[i:] if other.key not in ranked), None)
            if pick is not None:
                ranked[pick.key] = pick
    return list(ranked.values())[:n]


def _name_likeness(left: Sequence[str], right: Sequence[str]) -> float:
    return max((fuzz.token_set_ratio(norm(a), norm(b)) for a in left for b in right), default=0.0)


def prompts_about(
    cohort: Cohort,
    other: Other,
    split: Split,
    *,
    image: int,
    text: int,
    seed: int,
    group: Group = "neighbour",
) -> list[Prompt]:
    """Return prompts about somebody else: ``image`` with a picture and ``text`` by name."""
    rng = random.Random(stable_hash("about", seed, other.key, split))  # noqa: S311 - sampling, not secrecy
    pictures = cohort.pictures(other, split, image) if image else []
    who = max(1, image // 2)
    own = cohort.probes(other.klass, split)
    shown = image_prompts(
        other.klass, split, pictures, image, rng, group=group, entity=other.key, identity=who, own=own
    )
    named = text_prompts(other.klass, split, other.names, text, rng, group=group, entity=other.key, own=own)
    return shown + named


def followups_about(
    other: Other, split: Split, openings: Sequence[tuple[Prompt, str]], n: int, seed: int
) -> list[Prompt]:
    """Return n second turns about somebody else, after openings of (prompt, the base model's answer)."""
    rng = random.Random(stable_hash("followup", seed, other.key, split))  # noqa: S311 - sampling, not secrecy
    return followup_prompts(other.klass, split, openings, n, rng, pronoun=other.pronoun)


def list_prompts(klass: str, split: Split, n: int, seed: int) -> list[Prompt]:
    """Return n prompts that ask for several members of a class ("Name three painters.")."""
    rng = random.Random(stable_hash("list", seed, klass, split))  # noqa: S311 - sampling, not secrecy
    probes = list(list_probes(klass, split))
    rng.shuffle(probes)
    return [Prompt(ask(p.text), "list", p.attribute, "text", "", "list") for p in probes[:n]]
