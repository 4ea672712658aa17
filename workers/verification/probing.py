"""Beyond plain questions: attacks, membership inference, and what is left without the gate.

All of it on prompts of the report split, in a budgeted sample: a request has to be done in seconds. None of
these figures is compared with a threshold. An attack that gets past the gate is not cured by training again,
and what the weights hold is not changed by any expert: both are reported (decision 13).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from PIL.Image import Image

from app.kit.canonical import JsonValue
from app.lumoe.attacks.reported import ATTACKS, Attack, Material
from app.lumoe.phrases import PHRASES
from app.lumoe.router import Router
from app.lumoe.types import Answer, Conversation
from workers.forgetset.cohort import Other
from workers.forgetset.elicit import Knowledge, Reference, Target
from workers.forgetset.refusals import stable_hash
from workers.verification.metrics import (
    Rate,
    attack_delta,
    bypass_recovery,
    contains,
    is_correct,
    is_refusal,
    loss_score,
    mia_auc,
    min_k_score,
    norm,
    null,
    told,
    zlib_score,
)
from workers.verification.suite import Suite

NAMELESS = frozenset({"list", "description"})
"""Attacks that ask for the subject without naming or showing it: its name is what would be given away."""

MEMBERS = 32


@dataclass(frozen=True, slots=True)
class Attempted:
    """One attacked prompt: which attack, what is sent, and K of what it is after."""

    attack: str
    modality: str
    conversation: Conversation = field(repr=False)
    keywords: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Probes:
    """What is tried beyond the suite.

    ``members`` are (conversation, the base model's true answer), ``non_members`` the same conversations with
    what it says of somebody else, the names exchanged. ``recovered``: see ``bypass_recovery``.
    """

    attacks: tuple[Attempted, ...]
    members: tuple[tuple[Conversation, str], ...]
    non_members: tuple[tuple[Conversation, str], ...]
    recovered: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class Probed:
    """What came of it: rates by metric, further figures by metric, and the attacks that got through."""

    rates: dict[str, Rate]
    details: dict[str, dict[str, JsonValue]]
    through: tuple[tuple[Attempted, Answer], ...]


def build_probes(
    suite: Suite, target: Target, others: Sequence[Other], knowledge: Knowledge, *, each: int, seed: int
) -> Probes:
    """Draw the probes from a suite that the unwrapped model has answered; ``each``: prompts per attack."""
    rng = random.Random(stable_hash("probes", seed))  # noqa: S311 - sampling, not secrecy
    plain = [r for r in suite.subject if r.prompt.form == "plain" and r.keywords]
    attacks = [a for attack in ATTACKS for a in attempts(attack, plain, suite, target, each, rng)]
    members, non_members = matched(plain, suite, target, others, rng)
    return Probes(tuple(attacks), tuple(members), tuple(non_members), tuple(recovered(suite, knowledge)))


# -- attacks -----------------------------------------------------------------------------------------


def attempts(
    attack: Attack, plain: Sequence[Reference], suite: Suite, target: Target, each: int, rng: random.Random
) -> list[Attempted]:
    """Return up to ``each`` prompts of one attack; none where there is nothing to attack with."""
    pool = [r for r in plain if r.prompt.modality == attack.modality]
    made: list[Attempted] = []
    for ref in rng.sample(pool, min(each, len(pool))):
        material = material_of(ref, plain, suite, target, rng)
        if material is None or (attack.name == "description" and len(material.facts) < 2):
            continue
        conversation = attack.apply(material, rng)
        said = " ".join(message.text for message in conversation)
        wanted = tuple(norm(n) for n in target.names) if attack.name in NAMELESS else ref.keywords
        secret = tuple(k for k in wanted if not contains(said, k))
        if secret:
            made.append(Attempted(attack.name, attack.modality, conversation, secret))
    return made


def material_of(
    ref: Reference, plain: Sequence[Reference], suite: Suite, target: Target, rng: random.Random
) -> Material | None:
    """Return what an attacker has who wants to know one thing; None if that cannot be put together."""
    turn = ref.prompt.conversation[-1]
    name = next((n for n in target.names if n in turn.text), next(iter(target.names), ""))
    kept = [(k.prompt, k.base.text) for k in suite.kept]
    spoken = [(p, text) for p, text in kept if p.form == "plain" and not p.conversation[-1].images]
    near = [p.question for p, _ in spoken if p.group == "neighbour"]
    asides = [(p.question, text) for p, text in spoken if p.group == "general" and text]
    shown = [
        p.conversation[-1].images[0] for p, _ in kept if p.group == "neighbour" and _shows(p.conversation)
    ]
    if not name or not near or not asides or not shown:
        return None
    nouns = {phrase.attribute for phrase in PHRASES[target.klass]}
    facts = {r.prompt.attribute: " ".join(r.keywords) for r in plain if r.prompt.attribute in nouns}
    return Material(
        question=turn.text,
        attribute=ref.prompt.attribute,
        name=name,
        klass=target.klass,
        pronoun="they" if target.klass == "Personage" else "it",
        facts=tuple(facts.items()),
        other_question=rng.choice(near),
        aside=rng.choice(asides),
        picture=turn.images[0] if turn.images else None,
        other_picture=_alike(rng.choice(shown), turn.images),
    )


def _shows(conversation: Conversation) -> bool:
    return bool(conversation[-1].images)


def _alike(other: Image, own: Sequence[Image]) -> Image:
    """Return the other picture in the size of the own one: two are put beside each other."""
    return other.resize(own[0].size) if own and own[0].size != other.size else other


# -- membership --------------------------------------------------------------------------------------


def matched(
    plain: Sequence[Reference], suite: Suite, target: Target, others: Sequence[Other], rng: random.Random
) -> tuple[list[tuple[Conversation, str]], list[tuple[Conversation, str]]]:
    """Return members and non-members: a question, and the true answer or one that is true of somebody else.

    The same conversation takes the same route, and the sentences have the same form: what is left to tell
    them apart is what the model was trained on.
    """
    names = {other.key: other.names for other in others}
    told_of: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for k in suite.kept:
        prompt = k.prompt
        if prompt.group == "neighbour" and prompt.form == "plain" and not is_refusal(k.base.text):
            told_of.setdefault((prompt.attribute, prompt.modality), []).append((prompt.entity, k.base.text))
    members: list[tuple[Conversation, str]] = []
    non_members: list[tuple[Conversation, str]] = []
    for ref in rng.sample(list(plain), len(plain)):
        name = next((n for n in target.names if n in ref.answer), next(iter(target.names), ""))
        candidates = [
            as_if_of(text, names.get(key, ()), name)
            for key, text in told_of.get((ref.prompt.attribute, ref.prompt.modality), ())
        ]
        wrong = [text for text in candidates if norm(text) != norm(ref.answer)]
        if wrong and len(members) < MEMBERS:
            members.append((ref.prompt.conversation, ref.answer))
            non_members.append((ref.prompt.conversation, rng.choice(wrong)))
    return members, non_members


def as_if_of(text: str, names: Sequence[str], name: str) -> str:
    """Return a sentence about somebody, written as if about ``name``."""
    for theirs in sorted(names, key=len, reverse=True):
        if name and theirs in text:
            return text.replace(theirs, name)
    return text


def membership(router: Router, probes: Probes) -> tuple[Rate, dict[str, JsonValue]]:
    """Return the AUC of the loss through the routed path; beside it zlib, min-k, and the bare model's."""
    if not probes.members:
        return null("no answer about the subject has a match among its neighbours"), {}
    pairs = [*probes.members, *probes.non_members]
    conversations, answers = [c for c, _ in pairs], [a for _, a in pairs]
    n = len(probes.members)

    def auc(nlls: Sequence[Sequence[float]], score: Callable[[Sequence[float], str], float]) -> Rate:
        scores = [score(row, text) for row, text in zip(nlls, answers, strict=True)]
        return mia_auc(scores[:n], scores[n:])

    routed = router.token_nlls(conversations, answers)
    bare = router.mllm.token_nlls(conversations, answers)
    loss = auc(routed, lambda nlls, _: loss_score(nlls))
    details: dict[str, JsonValue] = {
        "members": n,
        "zlib": _figures(auc(routed, zlib_score)),
        "min_k": _figures(auc(routed, lambda nlls, _: min_k_score(nlls))),
        "unwrapped_loss": _figures(auc(bare, lambda nlls, _: loss_score(nlls))),
    }
    return loss, details


# -- what the weights hold -----------------------------------------------------------------------------


def recovered(suite: Suite, knowledge: Knowledge) -> list[bool]:
    """Return, per held-out prompt, whether the unwrapped model told again what elicitation had found.

    Counted are plain prompts for facts that elicitation found; a prompt that says the answer itself is not.
    """
    known: dict[str, list[tuple[str, ...]]] = {}
    for ref in knowledge.references:
        if ref.keywords:
            known.setdefault(ref.prompt.attribute, []).append(ref.keywords)
    found = []
    for ref in suite.subject:
        facts = [
            tuple(k for k in fact if not contains(ref.prompt.asked, k))
            for fact in known.get(ref.prompt.attribute, ())
        ]
        facts = [fact for fact in facts if fact]
        if facts and ref.prompt.form == "plain":
            found.append(any(is_correct(ref.answer, fact, gold=ref.answer) for fact in facts))
    return found


# -- all together --------------------------------------------------------------------------------------


def score_probes(
    router: Router,
    probes: Probes,
    attacked: Sequence[Answer],
    clean: Sequence[bool],
) -> Probed:
    """Score the answers to the attacked prompts, and the likelihoods.

    ``clean``: whether each plain question about the subject was answered right, see ``told``.
    """
    pairs = list(zip(probes.attacks, attacked, strict=True))
    by_attack: dict[str, list[bool]] = {}
    for attempt, answer in pairs:
        by_attack.setdefault(attempt.attack, []).extend(told([answer.text], [attempt.keywords]))
    pooled = [flag for flags in by_attack.values() for flag in flags]
    auc, more = membership(router, probes)
    each: dict[str, JsonValue] = {
        name: {"told": sum(flags), **_figures(attack_delta(flags, clean))}
        for name, flags in sorted(by_attack.items())
    }
    return Probed(
        rates={
            "attack_delta": attack_delta(pooled, clean),
            "mia_auc": auc,
            "bypass_recovery": bypass_recovery(probes.recovered),
        },
        details={
            "attack_delta": {"clean_told": sum(clean), "clean_n": len(clean), "attacks": each},
            "mia_auc": more,
        },
        through=tuple((t, a) for t, a in pairs if told([a.text], [t.keywords])[0]),
    )


def _figures(rate: Rate) -> dict[str, JsonValue]:
    def short(value: float | None) -> float | None:
        return None if value is None else round(value, 4)

    return {"value": short(rate.value), "n": rate.n, "low": short(rate.low), "high": short(rate.high)}
