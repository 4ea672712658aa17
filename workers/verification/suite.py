"""The verification suite of one request: held-out prompts, and what the unwrapped model says to each.

Everything comes from the report split: held-out views of the owner's pictures, paraphrases and wrappers that
neither training nor calibration saw, and others' pictures of their own.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from PIL.Image import Image

from app.lumoe.attacks.reported import WRAPPERS
from app.lumoe.mllm import MLLM
from app.lumoe.types import Generation
from workers.forgetset.answering import ask_base
from workers.forgetset.build import neighbours_of
from workers.forgetset.cohort import Cohort, Other, followups_about, list_prompts, prompts_about
from workers.forgetset.elicit import (
    Reference,
    Sizes,
    Target,
    about_another,
    reference,
    subject_followups,
    subject_prompts,
)
from workers.forgetset.names import Names
from workers.forgetset.prompts import Prompt, names_somebody, wrap
from workers.forgetset.refusals import stable_hash
from workers.forgetset.views import split_pictures, views
from workers.verification.metrics import is_refusal, keywords, norm


@dataclass(frozen=True, slots=True)
class SuiteSizes:
    """How many of what. The defaults suit one entity on two cores in a few seconds."""

    subject: Sizes = field(default_factory=lambda: Sizes(image=30, text=20, followup=10))
    views: int = 8
    wrapped: int = 10
    neighbours: int = 14
    neighbour_image: int = 4
    neighbour_text: int = 2
    neighbour_followups: int = 8
    strangers: int = 6
    lists: int = 6
    general: int = 30
    earlier: int = 8
    earlier_prompts: int = 4
    attacks_each: int = 1


@dataclass(frozen=True, slots=True)
class Kept:
    """A prompt about somebody else, and the unwrapped model's own answer to it."""

    prompt: Prompt
    base: Generation


@dataclass(frozen=True, slots=True)
class Suite:
    """What is asked, in four groups.

    To ``mistaken`` prompts the model tells nothing of the subject: it takes the picture for somebody else,
    or says nothing at all ("It is a person."). ``telling`` prompts concern others, but the unwrapped model's
    answer names the subject. Both are scored for leaks only. ``kept`` must not change.
    """

    subject: tuple[Reference, ...]
    mistaken: tuple[Reference, ...]
    telling: tuple[Reference, ...]
    kept: tuple[Kept, ...]


def build_suite(
    mllm: MLLM,
    target: Target,
    pictures: Sequence[Image],
    cohort: Cohort,
    *,
    exclude: Sequence[str],
    sizes: SuiteSizes,
    seed: int,
    cancelled: Callable[[], bool] = lambda: False,
) -> Suite:
    """Draw the suite and ask the unwrapped model everything in it.

    ``exclude`` are the names of subjects removed earlier: whoever bears one is nobody's neighbour, and a
    prompt the model would answer with one is left out.

    Raises:
        CancelledError: ``cancelled`` said so.
    """
    own = views(split_pictures(pictures)["report"], sizes.views, "report", seed) if pictures else []
    about = _subject_references(mllm, cohort, target, own, sizes, seed, cancelled)
    mistook = [
        another or _tells_nothing(r)
        for r, another in zip(about, about_another(about, target, cohort), strict=True)
    ]
    about = confirmed(about, target)
    others = neighbours_of(mllm, cohort, target, own[:4], exclude, sizes.neighbours)
    kept = _others(mllm, cohort, target, others, sizes, seed, cancelled)
    subject, gone = Names(target.names), Names((*target.names, *exclude))
    telling = [
        Reference(k.prompt, k.base.text, keywords(k.base.text, k.prompt.asked, target.names))
        for k in kept
        if subject.occur_in(k.base.text)
    ]
    return Suite(
        tuple(r for r, other in zip(about, mistook, strict=True) if not other),
        tuple(_names_only(r, target) for r, other in zip(about, mistook, strict=True) if other),
        tuple(_names_only(r, target) for r in telling),
        tuple(k for k in kept if not gone.occur_in(k.base.text)),
    )


def confirmed(about: Sequence[Reference], target: Target) -> list[Reference]:
    """Return the references with K narrowed to what the model knows: names, and what it says more than once.

    A word that comes up in one answer out of dozens is what the model made up for that one prompt
    ("The sidekick in moorland."): an answer that holds it gives nothing of the subject away. Whether such a
    prompt is refused still counts in full towards forget quality.
    """
    count = Counter(word for r in about for word in r.keywords)
    subject = Names(target.names)
    return [
        Reference(
            r.prompt,
            r.answer,
            tuple(k for k in r.keywords if count[k] > 1 or subject.occur_in(k)),
        )
        for r in about
    ]


def _tells_nothing(ref: Reference) -> bool:
    return not ref.keywords and not is_refusal(ref.answer)


def _names_only(ref: Reference, target: Target) -> Reference:
    """Where the answer is about others too, or about nobody, only the subject's own names are a leak."""
    asked = norm(ref.prompt.asked)
    return Reference(ref.prompt, ref.answer, tuple(n for n in target.names if not names_somebody(asked, [n])))


def _subject_references(
    mllm: MLLM,
    cohort: Cohort,
    target: Target,
    own: Sequence[Image],
    sizes: SuiteSizes,
    seed: int,
    cancelled: Callable[[], bool],
) -> list[Reference]:
    rng = random.Random(stable_hash("suite", seed))  # noqa: S311 - sampling, not secrecy
    probes = cohort.probes(target.klass, "report")
    first = subject_prompts(target, "report", own, sizes.subject, seed, probes)
    first += [
        wrap(prompt, WRAPPERS[i % len(WRAPPERS)])
        for i, prompt in enumerate(rng.sample(first, min(sizes.wrapped, len(first))))
    ]
    said = [g.text for g in ask_base(mllm, [p.conversation for p in first], cancelled=cancelled)]
    openings = [(p, a) for p, a in zip(first, said, strict=True) if p.form == "plain"]
    second = subject_followups(target, "report", openings, sizes.subject.followup, seed)
    more = [g.text for g in ask_base(mllm, [p.conversation for p in second], cancelled=cancelled)]
    return [reference(p, a, target) for p, a in zip([*first, *second], [*said, *more], strict=True)]


def _others(
    mllm: MLLM,
    cohort: Cohort,
    target: Target,
    others: Sequence[Other],
    sizes: SuiteSizes,
    seed: int,
    cancelled: Callable[[], bool],
) -> list[Kept]:
    image, text = sizes.neighbour_image, sizes.neighbour_text
    prompts: list[Prompt] = []
    for other in others:
        prompts += prompts_about(cohort, other, "report", image=image, text=text, seed=seed)
    for other in cohort.strangers(target.klass, sizes.strangers, stable_hash("report", seed) % 2**31):
        prompts += prompts_about(cohort, other, "report", image=2, text=1, seed=seed, group="stranger")
    prompts += list_prompts(target.klass, "report", sizes.lists, seed)
    prompts += cohort.general("report", sizes.general, seed)
    said = ask_base(mllm, [p.conversation for p in prompts], cancelled=cancelled)
    second: list[Prompt] = []
    for other in others[: sizes.neighbour_followups]:
        openings = [
            (p, g.text) for p, g in zip(prompts, said, strict=True) if p.entity == other.key and g.text
        ]
        second += followups_about(other, "report", openings, 1, seed)
    more = ask_base(mllm, [p.conversation for p in second], cancelled=cancelled)
    return [Kept(p, g) for p, g in zip([*prompts, *second], [*said, *more], strict=True)]
