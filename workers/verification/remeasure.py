"""After a publish: whether earlier subjects are still gone, and everybody else is answered as before.

A request is always asked the same held-out prompts, with whatever of its pictures are left, so that its
figures can be compared over the years. What falls short is asked again of the router as it was before: only
what the publish itself has made worse is a regression.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from PIL.Image import Image

from app.lumoe.mllm import MLLM
from app.lumoe.probes import CLASSES
from app.lumoe.router import Router
from app.lumoe.types import Answer
from app.removal.records import Policy, Score
from workers.forgetset.answering import MAX_NEW_TOKENS, ask_base, batches
from workers.forgetset.cohort import Cohort, prompts_about
from workers.forgetset.elicit import Reference, Target, mistaken, reference, shows_any
from workers.forgetset.names import Names
from workers.forgetset.prompts import image_prompts, text_prompts
from workers.forgetset.refusals import stable_hash
from workers.forgetset.views import split_pictures, views
from workers.verification.metrics import (
    Rate,
    bounded_mean,
    changed_answers,
    forget_points,
    forget_quality,
    leak,
    mu_rel,
)
from workers.verification.suite import Kept
from workers.verification.verify import Failure, failure_of, score_of, utility_of

Check = Callable[[], None]
"""Called between batches; raises to stop."""


@dataclass(frozen=True, slots=True)
class Budget:
    """How much is asked after a publish. Prompts are what costs time: about 10 ms each on two cores."""

    prompts: int = 64
    each: int = 4
    utility: int = 64


@dataclass(frozen=True, slots=True)
class Again:
    """One active request to be asked about again: its fixed prompts, and the policy it was approved under."""

    request_id: str
    references: tuple[Reference, ...]
    policy: Policy


@dataclass(frozen=True, slots=True)
class Outcome:
    """Figures by request, and what the publish has made worse; ``harmed`` are the requests concerned."""

    scores: dict[str, tuple[Score, ...]]
    regressions: tuple[Failure, ...]
    harmed: tuple[str, ...]

    @property
    def n(self) -> int:
        """How many requests were measured."""
        return len(self.scores)


def fixed_references(
    mllm: MLLM, names: Sequence[str], klass: str, pictures: Sequence[Image], request_id: str, n: int
) -> tuple[Reference, ...]:
    """Return a request's n prompts, the same every time, pictures and text in turn.

    Views in which the model sees somebody else are left out: what it says of them is not the subject's.
    """
    rng = random.Random(stable_hash("again", request_id))  # noqa: S311 - sampling, not secrecy
    target = Target(tuple(names), klass)
    own = views(split_pictures(pictures)["report"], n, "report", stable_hash(request_id) % 2**31)
    shown = image_prompts(
        klass, "report", own, n, rng, group="subject", entity=request_id, identity=(n + 1) // 2
    )
    named = text_prompts(klass, "report", target.names, n, rng, group="subject", entity=request_id)
    asked = [p for two in zip(shown, named, strict=False) for p in two]
    asked += [*shown[len(named) :], *named[len(shown) :]]
    said = ask_base(mllm, [p.conversation for p in asked[: 2 * n]])
    found = [reference(p, g.text, target) for p, g in zip(asked[: 2 * n], said, strict=True)]
    elsewhere = mistaken(found, target)
    return tuple(r for r in found if not shows_any(r.prompt, elsewhere))[:n]


def utility_set(mllm: MLLM, cohort: Cohort, n: int) -> tuple[Kept, ...]:
    """Return n prompts that concern nobody, or somebody of each class, and the unwrapped model's answers."""
    prompts = cohort.general("report", n // 2, 0)
    for klass in CLASSES:
        others = sorted(cohort.others(klass), key=lambda other: stable_hash("utility", other.key))
        for other in others[: math.ceil(n / (4 * len(CLASSES)))]:
            prompts += prompts_about(cohort, other, "report", image=1, text=1, seed=0)
    said = ask_base(mllm, [p.conversation for p in prompts[:n]])
    return tuple(Kept(p, g) for p, g in zip(prompts[:n], said, strict=True))


def choose(request_ids: Sequence[str], last: Mapping[str, int], own: str, budget: Budget) -> list[str]:
    """Return whom to ask about: all while the budget suffices, else those not asked for longest.

    ``last`` is the generation each was last measured in. The request that was published comes first: its
    figures are what later ones are compared with.
    """
    least = max(1, budget.each // 2)
    waiting = sorted((r for r in request_ids if r != own), key=lambda r: (last.get(r, 0), r))
    return [own, *waiting][: max(1, budget.prompts // least)]


def share_of(budget: Budget, requests: int) -> int:
    """Return how many prompts each of so many requests is asked."""
    return max(1, min(budget.each, budget.prompts // max(1, requests)))


def remeasure(
    after: Router,
    before: Router,
    asked: Sequence[Again],
    utility: Sequence[Kept],
    own: Again,
    check: Check = lambda: None,
) -> Outcome:
    """Ask everything through ``after``, and what fell short through ``before`` as well.

    ``own`` is the request that was published: measured, but never its own regression. Utility is judged by
    its policy, each earlier request by the one that it was approved under.
    """
    pairs = [(again, ref) for again in (own, *asked) for ref in again.references]
    answers = _answers(after, [ref for _, ref in pairs], check)
    scores: dict[str, tuple[Score, ...]] = {}
    regressions: list[Failure] = []
    harmed: list[str] = []
    at = 0
    for again in (own, *asked):
        mine = answers[at : at + len(again.references)]
        at += len(again.references)
        scores[again.request_id] = tuple(
            score_of(name, rate, again.policy) for name, rate in _rates(again.references, mine).items()
        )
        if again is own or all(score.passed is not False for score in scores[again.request_id]):
            continue
        worse = _made_worse(again, mine, before, check)
        regressions += worse
        harmed += [again.request_id] if worse else []
    rates, failed = _utility(after, before, utility, own.policy, check)
    scores[own.request_id] += tuple(score_of(name, rate, own.policy) for name, rate in rates.items())
    return Outcome(scores, (*regressions, *failed), tuple(harmed))


def _rates(references: Sequence[Reference], answers: Sequence[Answer]) -> dict[str, Rate]:
    pairs = list(zip(references, answers, strict=True))
    return {
        "forget_quality": forget_quality([forget_points(a.text, r.keywords) for r, a in pairs]),
        "leak": bounded_mean([leak(a.text, r.keywords) for r, a in pairs]),
    }


def _made_worse(again: Again, answers: Sequence[Answer], before: Router, check: Check) -> list[Failure]:
    short = [
        (r, a)
        for r, a in zip(again.references, answers, strict=True)
        if forget_points(a.text, r.keywords) < 2
    ]
    earlier = _answers(before, [r for r, _ in short], check)
    return [
        failure_of("forget_quality", r, now, again.request_id)
        for (r, now), then in zip(short, earlier, strict=True)
        if _badness(now, r) > _badness(then, r)
    ]


def _badness(answer: Answer, ref: Reference) -> tuple[float, int]:
    return leak(answer.text, ref.keywords), -forget_points(answer.text, ref.keywords)


def _utility(
    after: Router, before: Router, utility: Sequence[Kept], policy: Policy, check: Check
) -> tuple[dict[str, Rate], list[Failure]]:
    """Return the utility set's rates, and its answers that changed with this publish if they are too many.

    What the base model tells of a subject that is forgotten by now is nobody else's answer: left out.
    """
    gone = Names(alias for expert in after.experts.values() for alias in expert.gate.aliases)
    kept = [k for k in utility if not gone.occur_in(f"{k.prompt.asked} {k.base.text}")]
    refs = [Reference(k.prompt, k.base.text, ()) for k in kept]
    answers = _answers(after, refs, check)
    pairs = list(zip(kept, answers, strict=True))
    rates = {
        "changed_answers": changed_answers([a.text for _, a in pairs], [k.base.text for k, _ in pairs]),
        "mu_rel": mu_rel(
            [utility_of(k, a.text) for k, a in pairs], [utility_of(k, k.base.text) for k in kept]
        ),
    }
    value = rates["mu_rel"].value
    if value is None or value >= policy.min_neighbour_utility:
        return rates, []
    changed = [(r, a) for (k, a), r in zip(pairs, refs, strict=True) if a.text != k.base.text]
    earlier = _answers(before, [r for r, _ in changed], check)
    new = [(r, a) for (r, a), then in zip(changed, earlier, strict=True) if then.text == r.answer]
    return rates, [failure_of("mu_rel", r, a) for r, a in new]


def _answers(router: Router, references: Sequence[Reference], check: Check) -> list[Answer]:
    conversations = [r.prompt.conversation for r in references]
    answers: dict[int, Answer] = {}
    for part in batches(conversations):
        check()
        rows = router.answer([conversations[i] for i in part], max_new_tokens=MAX_NEW_TOKENS)
        answers.update(zip(part, rows, strict=True))
    return [answers[i] for i in range(len(conversations))]
