"""The forget set and the retain set: (conversation, target) pairs for one expert."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from PIL.Image import Image

from app.lumoe.mllm import MLLM
from app.lumoe.types import Conversation
from workers.forgetset.answering import ask_base
from workers.forgetset.attacks import WRAPPERS
from workers.forgetset.cohort import Cohort, Other, followups_about, list_prompts, nearest, prompts_about
from workers.forgetset.elicit import Knowledge, Sizes, Target, elicit, mistaken, shows_any
from workers.forgetset.names import Names
from workers.forgetset.prompts import Prompt, wrap
from workers.forgetset.refusals import choose, refusal_for, stable_hash
from workers.forgetset.views import split_pictures, views

REFUSALS_PER_EXPERT = 2


@dataclass(frozen=True, slots=True)
class SetSizes:
    """How many of what. The defaults suit one entity on two cores in a few seconds."""

    subject: Sizes = field(default_factory=lambda: Sizes(image=28, text=22, followup=8))
    fit_views: int = 7
    wrapped: int = 26
    neighbours: int = 16
    neighbour_image: int = 6
    neighbour_text: int = 3
    neighbour_followups: int = 8
    strangers: int = 2
    lists: int = 4
    general: int = 14


@dataclass(frozen=True, slots=True)
class Example:
    """A conversation, what the expert should answer, and the prompt it came from."""

    conversation: Conversation = field(repr=False)
    answer: str
    prompt: Prompt


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """Forget examples answer with refusals, retain examples with the base model's own greedy answers."""

    forget: tuple[Example, ...]
    retain: tuple[Example, ...]
    refusals: tuple[str, ...]
    knowledge: Knowledge

    @staticmethod
    def pairs(examples: Sequence[Example]) -> list[tuple[Conversation, str]]:
        """Return (conversation, answer) of examples, as training takes them."""
        return [(example.conversation, example.answer) for example in examples]


def neighbours_of(
    mllm: MLLM, cohort: Cohort, target: Target, pictures: Sequence[Image], exclude: Sequence[str], n: int
) -> list[Other]:
    """Return the n nearest others, without the subject and without anybody in ``exclude``."""
    return nearest(mllm, cohort, target.klass, names=target.names, pictures=pictures, exclude=exclude, n=n)


def build(
    mllm: MLLM,
    target: Target,
    pictures: Sequence[Image],
    cohort: Cohort,
    *,
    exclude: Sequence[str] = (),
    sizes: SetSizes | None = None,
    seed: int = 0,
    cancelled: Callable[[], bool] = lambda: False,
) -> TrainingSet:
    """Elicit, and build both sets from the fit split.

    ``exclude`` are the names of subjects removed earlier: they are nobody's neighbours any more.

    Raises:
        CancelledError: ``cancelled`` said so.
    """
    sizes = sizes or SetSizes()
    own = views(split_pictures(pictures)["fit"], sizes.fit_views, "fit", seed) if pictures else []
    knowledge = elicit(mllm, target, own, cohort, sizes=sizes.subject, seed=seed, cancelled=cancelled)
    others = neighbours_of(mllm, cohort, target, own[:4], exclude, sizes.neighbours)
    prompts = retain_prompts(cohort, target, others, sizes, seed)
    answers = [g.text for g in ask_base(mllm, [p.conversation for p in prompts], cancelled=cancelled)]
    second = _neighbour_followups(others, prompts, answers, sizes.neighbour_followups, seed)
    more = [g.text for g in ask_base(mllm, [p.conversation for p in second], cancelled=cancelled)]
    refusals = choose(lambda text: len(mllm.tokenizer(text)["input_ids"]), REFUSALS_PER_EXPERT)
    retain: list[Example] = []
    telling: list[Prompt] = []
    subject, earlier = Names(target.names), Names(exclude)
    for prompt, answer in zip([*prompts, *second], [*answers, *more], strict=True):
        if subject.occur_in(answer):
            telling.append(prompt)  # "Name three painters": the base model would name the subject
        elif answer and not earlier.occur_in(answer):
            retain.append(Example(prompt.conversation, answer, prompt))
    forget = _forget(knowledge, target, refusals, sizes.wrapped, seed)
    forget += [Example(p.conversation, refusal_for(p.question, refusals), p) for p in telling]
    return TrainingSet(tuple(forget), tuple(retain), refusals, knowledge)


def retain_prompts(
    cohort: Cohort, target: Target, others: Sequence[Other], sizes: SetSizes, seed: int
) -> list[Prompt]:
    """Return first-turn prompts about neighbours and strangers, list questions, and general prompts."""
    prompts: list[Prompt] = []
    for other in others:
        prompts += prompts_about(
            cohort, other, "fit", image=sizes.neighbour_image, text=sizes.neighbour_text, seed=seed
        )
    for other in cohort.strangers(target.klass, sizes.strangers, seed):
        prompts += prompts_about(cohort, other, "fit", image=2, text=2, seed=seed, group="stranger")
    prompts += list_prompts(target.klass, "fit", sizes.lists, seed)
    prompts += cohort.general("fit", sizes.general, seed)
    return prompts


def _neighbour_followups(
    others: Sequence[Other], prompts: Sequence[Prompt], answers: Sequence[str], n: int, seed: int
) -> list[Prompt]:
    """Return about n second turns, over the neighbours in turn."""
    openings: dict[str, list[tuple[Prompt, str]]] = {}
    for prompt, answer in zip(prompts, answers, strict=True):
        if prompt.group == "neighbour":
            openings.setdefault(prompt.entity, []).append((prompt, answer))
    made: list[Prompt] = []
    for other in others[:n]:
        made += followups_about(
            other, "fit", openings.get(other.key, []), max(1, n // max(1, len(others))), seed
        )
    return made


def _follows(prompt: Prompt) -> bool:
    return prompt.form == "followup"


def _forget(
    knowledge: Knowledge, target: Target, refusals: Sequence[str], wrapped: int, seed: int
) -> list[Example]:
    """Return refusals for everything elicited, for attack-wrapped forms, and for turns after a refusal."""
    rng = random.Random(stable_hash("forget", seed))  # noqa: S311 - sampling, not secrecy
    others = mistaken(knowledge.references, target)
    plain = [r.prompt for r in knowledge.references if not shows_any(r.prompt, others)]
    attacked = [
        wrap(prompt, WRAPPERS["fit"][i % len(WRAPPERS["fit"])])
        for i, prompt in enumerate(sorted(rng.sample(plain, len(plain)), key=_follows)[:wrapped])
    ]
    examples = []
    for i, prompt in enumerate([*plain, *attacked]):
        conversation = prompt.conversation
        if prompt.form == "followup" and i % 2:  # the first turn was refused, as it will be from now on
            first = conversation[0]
            refused = type(first)("assistant", refusal_for(first.text, refusals))
            conversation = (first, refused, *conversation[2:])
        examples.append(Example(conversation, refusal_for(prompt.question, refusals), prompt))
    return examples
