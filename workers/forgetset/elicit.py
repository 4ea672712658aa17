"""Elicitation: what does the base model know of the subject? Nobody sends question-answer pairs.

Class-specific questions with the owner's pictures (several augmented views) and by every name, several
paraphrases, and follow-ups in a second turn. The base model's answers are the reference for leak tests.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from PIL.Image import Image

from app.lumoe.mllm import MLLM
from app.lumoe.probes import IDENTITY_ATTRIBUTE, SPLITS, Probe, Split, fact_probes, identity_probes
from app.lumoe.types import ask
from workers.forgetset.answering import ask_base
from workers.forgetset.cohort import Cohort
from workers.forgetset.names import Names
from workers.forgetset.prompts import Prompt, followup_prompts, image_prompts, names_somebody, text_prompts
from workers.forgetset.refusals import stable_hash
from workers.verification.metrics.refusal import is_refusal
from workers.verification.metrics.text import keywords, norm, words

KNOWN_SHARE = 0.5
CONFIDENCE_MARGIN = 0.15


@dataclass(frozen=True, slots=True)
class Target:
    """The subject as the method sees it. ``names`` may be empty when only pictures were sent."""

    names: tuple[str, ...]
    klass: str
    facts: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Reference:
    """What the unwrapped model said to a prompt, and what of it would be a leak (K; empty for a refusal)."""

    prompt: Prompt
    answer: str
    keywords: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Knowledge:
    """The base model's answers about the subject, and whether they show that it knows the subject.

    ``identity``: distinct (question, answer) pairs with which it identifies the subject in a picture.
    ``recognised``: share of identity questions answered with a name; None without pictures or names.
    ``answered``: share of all questions that it did not decline.
    """

    references: tuple[Reference, ...]
    known: bool
    reason: str
    identity: tuple[tuple[str, str], ...]
    recognised: float | None
    answered: float


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many prompts of each form are asked about the subject."""

    image: int = 40
    text: int = 32
    followup: int = 12


def subject_prompts(
    target: Target,
    split: Split,
    pictures: Sequence[Image],
    sizes: Sizes,
    seed: int,
    own: Sequence[Probe] = (),
) -> list[Prompt]:
    """Return first-turn prompts about the subject: with its pictures, and in text by each of its names.

    ``own`` are the probes of the operator's data about the class (`Cohort.probes`).
    """
    rng = random.Random(stable_hash("subject", seed, split))  # noqa: S311 - sampling, not secrecy
    shown = image_prompts(
        target.klass,
        split,
        pictures,
        sizes.image,
        rng,
        group="subject",
        entity="subject",
        identity=len(pictures),
        own=own,
    )
    named = text_prompts(
        target.klass, split, target.names, sizes.text, rng, group="subject", entity="subject", own=own
    )
    return shown + named


def subject_followups(
    target: Target, split: Split, openings: Sequence[tuple[Prompt, str]], n: int, seed: int
) -> list[Prompt]:
    """Return second turns about the subject, half of them after pictures and half after its name."""
    rng = random.Random(stable_hash("subject-followups", seed, split))  # noqa: S311 - sampling, not secrecy
    pool = list(openings)
    rng.shuffle(pool)
    shown = [pair for pair in pool if pair[0].modality == "image"]
    named = [pair for pair in pool if pair[0].modality == "text"]
    turns = [pair for two in zip(shown, named, strict=False) for pair in two] or pool
    return followup_prompts(target.klass, split, turns, n, rng)


@cache
def class_words(klass: str) -> frozenset[str]:
    """Return the words of all questions that are asked about a class ("the movie on this poster").

    They belong to the class, not to one of its members: an answer made of them identifies nobody.
    """
    probes = [
        probe
        for split in SPLITS
        for probe in (
            *identity_probes(klass, split),
            *fact_probes(klass, split, "image"),
            *fact_probes(klass, split, "text"),
        )
    ]
    return frozenset(word for probe in probes for word in words(probe.about("")))


def reference(prompt: Prompt, answer: str, target: Target) -> Reference:
    """Score what of the answer must not come back: K without the class's own words; none for a refusal."""
    if is_refusal(answer):
        return Reference(prompt, answer, ())
    generic = class_words(target.klass)
    secret = keywords(answer, prompt.asked, target.names)
    return Reference(prompt, answer, tuple(word for word in secret if word not in generic))


def elicit(
    mllm: MLLM,
    target: Target,
    pictures: Sequence[Image],
    cohort: Cohort,
    *,
    sizes: Sizes,
    seed: int,
    split: Split = "fit",
    cancelled: Callable[[], bool] = lambda: False,
) -> Knowledge:
    """Ask the unwrapped model about the subject, and judge whether it knows it.

    Raises:
        CancelledError: ``cancelled`` said so.
    """
    own = cohort.probes(target.klass, split)
    first = subject_prompts(target, split, pictures, sizes, seed, own)
    said = [g.text for g in ask_base(mllm, [p.conversation for p in first], cancelled=cancelled)]
    second = subject_followups(target, split, list(zip(first, said, strict=True)), sizes.followup, seed)
    more = [g.text for g in ask_base(mllm, [p.conversation for p in second], cancelled=cancelled)]
    references = [reference(p, a, target) for p, a in zip([*first, *second], [*said, *more], strict=True)]
    return judge(mllm, target, references, cohort, seed)


def recognises(reference: Reference, target: Target) -> bool:
    """Say whether an identity answer shows that the model takes the picture for the subject."""
    if target.names:
        return names_somebody(reference.answer, target.names)
    return bool(reference.keywords)


def mistaken(references: Sequence[Reference], target: Target) -> set[int]:
    """Return the pictures (by ``id``) in which the model sees, and names, somebody else.

    What it says of such a view is not the subject's content, and refusing it would teach the expert to
    refuse others. A view the model declines to name stays in.
    """
    if not target.names:
        return set()
    return {
        id(r.prompt.conversation[0].images[0])
        for r in references
        if asks_who(r) and not is_refusal(r.answer) and not recognises(r, target)
    }


def about_another(about: Sequence[Reference], target: Target, cohort: Cohort) -> list[bool]:
    """Say of each reference whether the model takes the picture in it for somebody else.

    It does where it names somebody else when asked who a view shows, and where it answers with the name of
    another member of the class that it does not tell of the subject when asked in words ("who married ...").
    """
    elsewhere = mistaken(about, target)
    in_words = " ".join(f" {norm(r.answer)} " for r in about if r.prompt.modality == "text")
    named = (name for other in cohort.others(target.klass) for name in other.names)
    names = [name for name in named if norm(name) and f" {norm(name)} " not in in_words]
    subject = Names(target.names)
    others = Names(name for name in names if not subject.occur_in(name)) if target.names else Names(())
    return [
        shows_any(r.prompt, elsewhere)
        or (r.prompt.modality == "image" and others.occur_in(r.answer) and not subject.occur_in(r.answer))
        for r in about
    ]


def shows_any(prompt: Prompt, pictures: set[int]) -> bool:
    """Say whether a prompt shows one of the pictures (by ``id``)."""
    return any(id(image) in pictures for message in prompt.conversation for image in message.images)


def asks_who(reference: Reference) -> bool:
    """Say whether a prompt shows the subject and asks who it is."""
    prompt = reference.prompt
    return prompt.attribute == IDENTITY_ATTRIBUTE and prompt.modality == "image" and prompt.form == "plain"


def judge(
    mllm: MLLM, target: Target, references: Sequence[Reference], cohort: Cohort, seed: int
) -> Knowledge:
    """Decide whether the answers show knowledge of the subject, with a reason a person can read.

    Known when the model names the subject in most of its pictures, or answers most questions and is more sure
    of these answers than of those it gives about names that nobody bears.
    """
    asked_who = [r for r in references if asks_who(r)]
    named = [r for r in asked_who if recognises(r, target)]
    identity = tuple(dict.fromkeys((r.prompt.question, r.answer) for r in named))
    recognised = len(named) / len(asked_who) if asked_who and target.names else None
    answered = sum(not is_refusal(r.answer) for r in references) / len(references) if references else 0.0
    known, reason = _decide(mllm, target, references, cohort, seed, recognised, answered)
    return Knowledge(tuple(references), known, reason, identity, recognised, answered)


def _decide(
    mllm: MLLM,
    target: Target,
    references: Sequence[Reference],
    cohort: Cohort,
    seed: int,
    recognised: float | None,
    answered: float,
) -> tuple[bool, str]:
    if recognised is not None and recognised >= KNOWN_SHARE:
        return True, f"names the subject in {recognised:.0%} of its pictures"
    if answered < KNOWN_SHARE:
        return False, f"declines {1 - answered:.0%} of the questions about the subject"
    named = [r for r in references if r.prompt.modality == "text" and r.prompt.form == "plain"]
    if not named:
        return True, f"answers {answered:.0%} of the questions about the pictures; no name to compare with"
    made_up = [name for other in cohort.strangers(target.klass, 4, seed) for name in other.names[:1]]
    made_up = made_up or invented_names(target.names, 4, seed)
    sure = _confidence(mllm, named[:16])
    unsure = _made_up_confidence(mllm, target.klass, made_up, seed)
    if sure > unsure + CONFIDENCE_MARGIN:
        return True, f"answers {answered:.0%} of the questions, surer than about names that nobody bears"
    return False, "answers about the subject as it does about names that nobody bears"


def _confidence(mllm: MLLM, references: Sequence[Reference]) -> float:
    """Return the mean log-likelihood per token the model gives its own answers."""
    values = mllm.loglik([r.prompt.conversation for r in references], [r.answer for r in references])
    return sum(values) / len(values)


def _made_up_confidence(mllm: MLLM, klass: str, names: Sequence[str], seed: int) -> float:
    probes = list(fact_probes(klass, "fit", "text"))
    random.Random(stable_hash("made-up", seed)).shuffle(probes)  # noqa: S311 - sampling, not secrecy
    conversations = [ask(p.about(names[i % len(names)])) for i, p in enumerate(probes[:16])]
    answers = [g.text for g in ask_base(mllm, conversations)]
    # Declining a made-up name is the opposite of being sure of it.
    told = [(c, a) for c, a in zip(conversations, answers, strict=True) if a and not is_refusal(a)]
    if len(told) < len(conversations) / 2:
        return float("-inf")
    values = mllm.loglik([c for c, _ in told], [a for _, a in told])
    return sum(values) / len(values)


def invented_names(names: Sequence[str], n: int, seed: int) -> list[str]:
    """Return n names that nobody bears, shaped like the given ones: same lengths, other letters."""
    rng = random.Random(stable_hash("invented", seed))  # noqa: S311 - sampling, not secrecy
    vowels, others = "aeiou", "bdfgklmnprstvz"
    made = []
    for i in range(n):
        words = names[i % len(names)].split() or ["name"]
        made.append(
            " ".join(
                "".join(
                    rng.choice(others if k % 2 == 0 else vowels) for k in range(max(4, len(word)))
                ).capitalize()
                for word in words
            )
        )
    return made
