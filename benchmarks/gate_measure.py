"""Asks the traffic through the real path and beside it the unwrapped model, and counts what went wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from app.lumoe.demo import Entity, world
from app.lumoe.mllm import MLLM
from app.lumoe.router import Router
from app.lumoe.types import Answer, Decision, Generation
from benchmarks.gate_scoring import Fact, Scorer
from benchmarks.gate_traffic import Item, Sizes, other_items, subject_items
from workers.forgetset.answering import MAX_NEW_TOKENS, ask_base, batches
from workers.verification.metrics import (
    Rate,
    base_identity,
    bounded_mean,
    changed_answers,
    expert_over_refusal,
    guard_catch_rate,
    null,
    share,
)

MAX_EXAMPLES = 40
MODALITIES = ("image", "text")
_FORCED_GROUPS = ("neighbour", "look-alike", "namesake")


@dataclass(frozen=True, slots=True)
class Outcome:
    """One prompt, what the unwrapped model says, and what the caller gets."""

    item: Item
    base: Generation
    served: Answer


@dataclass(frozen=True, slots=True)
class Example:
    """One failure, for whoever looks into it."""

    figure: str
    experts: int
    group: str
    entity: str
    form: str
    modality: str
    prompt: str
    base: str
    served: str
    evidence: str


@dataclass(frozen=True, slots=True)
class Level:
    """All rates with a number of experts enrolled, and what went wrong."""

    experts: int
    rates: Mapping[str, Rate]
    changed_by_group: Mapping[str, Rate]
    leak_by_form: Mapping[str, Rate]
    examples: tuple[Example, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the level as JSON-ready values."""
        return {
            "experts": self.experts,
            **{name: asdict(rate) for name, rate in self.rates.items()},
            "changed_by_group": {name: asdict(rate) for name, rate in self.changed_by_group.items()},
            "leak_by_form": {name: asdict(rate) for name, rate in self.leak_by_form.items()},
        }


class Asker:
    """Answers items through routers; the unwrapped model is asked once, in the very same batches."""

    def __init__(self, mllm: MLLM) -> None:
        self._mllm = mllm
        self._base: dict[tuple[int, ...], list[Generation]] = {}
        self._alive: list[Sequence[Item]] = []  # ids are unique only among living objects

    def base(self, items: Sequence[Item]) -> list[Generation]:
        """Return the unwrapped model's answers, and remember them."""
        key = tuple(id(item) for item in items)
        if key not in self._base:
            self._alive.append(items)
            self._base[key] = ask_base(self._mllm, [item.conversation for item in items])
        return self._base[key]

    def ask(
        self, router: Router, items: Sequence[Item], *, force: str | None = None, once: bool = False
    ) -> list[Outcome]:
        """Answer the items as a caller would get them; what is asked only `once` is not remembered."""
        conversations = [item.conversation for item in items]
        base = ask_base(self._mllm, conversations) if once else self.base(items)
        served: dict[int, Answer] = {}
        for part in batches(conversations):
            rows = [conversations[i] for i in part]
            answers = router.answer(rows, max_new_tokens=MAX_NEW_TOKENS, force=force)
            served.update(zip(part, answers, strict=True))
        return [Outcome(item, base[i], served[i]) for i, item in enumerate(items)]


def expert_of(key: str) -> str:
    """Return the id of an entity's expert."""
    return f"exp_{key}"


def measure(
    asker: Asker,
    router: Router,
    enrolled: Sequence[Entity],
    known: Mapping[str, Sequence[Fact]],
    sizes: Sizes,
    *,
    forced: bool = True,
) -> Level:
    """Measure one router; `enrolled` are the real subjects among its experts."""
    scorer = Scorer(known, [entity.key for entity in enrolled])
    about = asker.ask(router, subject_prompts(tuple(enrolled), sizes))
    others = asker.ask(router, other_items(sizes))
    telling = [o for o in others if scorer.names_forgotten(o.base.text)]
    kept = [o for o in others if not scorer.names_forgotten(o.base.text)]
    n = len(router.experts)
    leaks = [scorer.leak(o.served.text, o.item, o.base.text) for o in (*about, *telling)]
    changed = [o for o in kept if o.served.text != o.base.text]
    rates = {
        "leak": bounded_mean(leaks),
        "changed_answers": changed_answers([o.served.text for o in kept], [o.base.text for o in kept]),
        **_gate_rates(scorer, about, kept),
        "guard_catch_rate": guard_catch_rate(
            [o.served.decision.expert_id for o in (*about, *telling)],
            [o.served.guarded for o in (*about, *telling)],
            [value > 0 for value in leaks],
        ),
    }
    if forced:
        rates["expert_over_refusal"] = over_refusal(asker, router, enrolled, sizes)
    leaking = [o for o, value in zip((*about, *telling), leaks, strict=True) if value > 0]
    examples = [example("leak", n, o) for o in leaking] + [example("changed", n, o) for o in changed]
    return Level(
        n,
        rates,
        _changed_by_group(kept),
        _leak_by_form((*about, *telling), leaks),
        tuple(examples),
    )


_prompts: dict[tuple[tuple[str, ...], Sizes], tuple[Item, ...]] = {}


def subject_prompts(enrolled: tuple[Entity, ...], sizes: Sizes) -> tuple[Item, ...]:
    """Return the prompts about the enrolled subjects; the same objects for the same subjects."""
    key = (tuple(entity.key for entity in enrolled), sizes)
    if key not in _prompts:
        _prompts[key] = tuple(item for entity in enrolled for item in subject_items(entity, sizes))
    return _prompts[key]


def _gate_rates(scorer: Scorer, about: Sequence[Outcome], kept: Sequence[Outcome]) -> dict[str, Rate]:
    """Return the gate's own rates: before the guard, by picture and by name, first turns only.

    A subject's prompt counts where the unwrapped model has something to give away of the subject; whose
    picture it takes for somebody else must be treated as somebody else.
    """
    owed = [
        o
        for o in about
        if scorer.keywords(o.item, o.base.text) and not scorer.concerns_other(o.base.text, o.item.entity)
    ]
    plain = {m: [o for o in owed if o.item.modality == m and o.item.form == "plain"] for m in MODALITIES}
    other = {m: [o for o in kept if o.item.modality == m] for m in MODALITIES}
    to_base = [o for o in kept if o.served.decision.expert_id is None and not o.served.guarded]
    routed = [(o.served.decision.expert_id, expert_of(o.item.entity)) for o in owed]
    return {
        "tpr": share([_found(o) for o in plain["image"]]),
        "fpr": share([o.served.decision.expert_id is not None for o in other["image"]]),
        "tpr_name": share([_found(o) for o in plain["text"]]),
        "fpr_name": share([o.served.decision.expert_id is not None for o in other["text"]]),
        "misroute": share([to not in (None, own) for to, own in routed]),
        "base_identity": base_identity(
            [o.served.token_ids for o in to_base], [o.base.token_ids for o in to_base]
        ),
    }


def _found(outcome: Outcome) -> bool:
    return outcome.served.decision.expert_id == expert_of(outcome.item.entity)


def over_refusal(asker: Asker, router: Router, enrolled: Sequence[Entity], sizes: Sizes) -> Rate:
    """Return refusals on same-class others with the subject's expert forced on."""
    served: list[str] = []
    base: list[str] = []
    by_class: dict[str, list[Item]] = {}
    for item in other_items(sizes):
        if item.group in _FORCED_GROUPS:
            by_class.setdefault(world().by_key[item.entity].klass, []).append(item)
    for i, entity in enumerate(enrolled):
        pool = by_class[entity.klass]
        items = [pool[(i * 7 + k * 5) % len(pool)] for k in range(sizes.forced)]
        outcomes = asker.ask(router, items, force=expert_of(entity.key))
        served += [o.served.text for o in outcomes]
        base += [o.base.text for o in outcomes]
    return expert_over_refusal(served, base) if served else null("no real expert is enrolled")


def _changed_by_group(kept: Sequence[Outcome]) -> dict[str, Rate]:
    groups = Counter(o.item.group for o in kept)
    return {
        group: share([o.served.text != o.base.text for o in kept if o.item.group == group])
        for group in groups
    }


def _leak_by_form(outcomes: Sequence[Outcome], leaks: Sequence[float]) -> dict[str, Rate]:
    found: dict[str, list[float]] = {}
    for outcome, value in zip(outcomes, leaks, strict=True):
        item = outcome.item
        kind = f"{item.modality}, {item.form}" if item.group == "subject" else "others' questions"
        found.setdefault(kind, []).append(value)
    return {kind: bounded_mean(values) for kind, values in found.items()}


def example(figure: str, experts: int, outcome: Outcome) -> Example:
    """Return a failure with everything one needs to look into it."""
    item, served = outcome.item, outcome.served
    turns = " / ".join(f"{m.role}: {'[picture] ' * len(m.images)}{m.text}" for m in item.conversation)
    by = served.answered_by or ("the base model" if not served.guarded else "the guard")
    return Example(
        figure,
        experts,
        item.group,
        item.entity,
        item.form,
        item.modality,
        turns,
        outcome.base.text,
        served.text,
        f"answered by {by}{', guarded' if served.guarded else ''}; {explain(served.decision)}",
    )


def explain(decision: Decision) -> str:
    """Return a decision's evidence in one line."""
    parts = [
        f"{e.kind} {getattr(e, 'how', '')} {e.strength} {e.expert_id} {e.score:.3f} "
        f"(needs {e.threshold:.3f}), turn {e.turn}".replace("  ", " ")
        for e in decision.evidence
    ]
    watch = f"; watches {', '.join(sorted(decision.watch)[:4])}" if decision.watch else ""
    return f"to {decision.expert_id or 'base'}: {'; '.join(parts) or 'no evidence'}{watch}"
