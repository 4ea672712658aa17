"""What each stage does, without SQL: prepare, train, calibrate and verify one expert."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from PIL.Image import Image

from app.kit.canonical import JsonValue
from app.lumoe.expert import Cipher, ExpertRef, load_expert, write_expert
from app.lumoe.gate.calibration import Calibration, calibrate_gate
from app.lumoe.gate.canonical import canonicalise
from app.lumoe.gate.threshold import Thresholds
from app.lumoe.probes import fact_probes
from app.lumoe.router import Router
from app.lumoe.types import ask
from app.removal.records import Policy, Subject
from workers.forgetset.answering import ask_base
from workers.forgetset.build import SetSizes, TrainingSet, build
from workers.forgetset.elicit import Knowledge, Reference, Target, about_another, asks_who
from workers.forgetset.refusals import stable_hash
from workers.forgetset.views import split_pictures, views
from workers.runtime import Runtime
from workers.training.initial import InitialExpert
from workers.training.recipe import Recipe
from workers.training.train import Progress, Trained, train_expert
from workers.verification.metrics import norm, rate
from workers.verification.probing import build_probes
from workers.verification.suite import SuiteSizes, build_suite
from workers.verification.verify import Verdict, earlier_references, verify

Cancelled = Callable[[], bool]

CALIBRATION_VIEWS = 12
IDENTITY_PAIRS = 2
MAX_FACTS = 24
MAX_HINTS = 64
FACT_COMPARISONS = 24
_PROPER_NAMES = re.compile(r"\b[^\W\d_a-z][\w'’-]+(?: [^\W\d_a-z][\w'’-]+)+")


@dataclass(frozen=True, slots=True)
class Case:
    """One request as the stages see it. ``removed`` are the names of subjects removed earlier."""

    request_id: str
    target: Target
    pictures: tuple[Image, ...]
    removed: tuple[str, ...]
    policy: Policy

    @property
    def seed(self) -> int:
        """A seed of the request's own, the same in every attempt."""
        return stable_hash(self.request_id, self.policy.seed) % 2**31

    @property
    def expert_id(self) -> str:
        """The expert's id: the same for all versions of one request's expert."""
        return "exp_" + self.request_id.removeprefix("req_")


def target_of(subject: Subject) -> Target:
    """Return the subject as the method sees it: distinct names, the given one first."""
    names = [name for name in (subject.name, *subject.aliases) if name and norm(name)]
    return Target(tuple(dict.fromkeys(names)), subject.klass, tuple(subject.facts.items()))


def prepare(runtime: Runtime, case: Case, cancelled: Cancelled, sizes: SetSizes | None = None) -> TrainingSet:
    """Elicit what the base model knows, and build the forget and the retain set.

    Raises:
        CancelledError: ``cancelled`` said so.
        ConfigurationError: There is no retain data.
    """
    return build(
        runtime.mllm,
        case.target,
        case.pictures,
        runtime.cohort(case.target.names),
        exclude=case.removed,
        sizes=sizes,
        seed=case.seed,
        cancelled=cancelled,
    )


def elicited(knowledge: Knowledge) -> dict[str, JsonValue]:
    """Return how often the base model named the subject and answered about it, with n and 95 % interval."""
    who = [r for r in knowledge.references if asks_who(r)]
    counted = {
        "recognised": (knowledge.recognised, len(who)),
        "answered": (knowledge.answered, len(knowledge.references)),
    }
    rates = {key: rate(round(value * n), n) for key, (value, n) in counted.items() if value is not None}
    return {
        key: {"value": found.value, "n": found.n, "low": found.low, "high": found.high}
        for key, found in rates.items()
    }


def initial_expert(
    runtime: Runtime, case: Case, recipe: Recipe, cancelled: Cancelled
) -> InitialExpert | None:
    """Return where the expert's training starts, with no trace of this or an earlier request's subject.

    None if the recipe starts cold. It is made at first use of a base model, which takes minutes.

    Raises:
        CancelledError: ``cancelled`` said so while it was made.
        ConfigurationError: There is no retain data.
    """
    if not recipe.warm:
        return None
    return runtime.initial_expert(recipe, (*case.target.names, *case.removed), cancelled)


def train(
    runtime: Runtime,
    training: TrainingSet,
    recipe: Recipe,
    directory: Path,
    cancelled: Cancelled,
    progress: Callable[[Progress], None],
    initial: InitialExpert | None = None,
) -> Trained:
    """Train the expert into ``directory``, from the initial expert if one is given.

    Raises:
        CancelledError: ``cancelled`` said so between two steps.
    """
    return train_expert(
        runtime.mllm,
        training.pairs(training.forget),
        training.pairs(training.retain),
        recipe if initial is not None else recipe.cold(),
        directory,
        initial=None if initial is None else initial.weights,
        cancelled=cancelled,
        progress=progress,
    )


def calibrate(
    runtime: Runtime, case: Case, training: TrainingSet, live: Thresholds | None = None
) -> Calibration:
    """Calibrate the gate on the calibrate split: views of the subject against everybody else.

    ``live`` are the thresholds of the experts that are live already: the new one joins them.
    """
    divided = split_pictures(case.pictures)
    own = own_references(runtime, case, training)
    facts = telling_phrases(runtime, case, training, own)
    return calibrate_gate(
        runtime.mllm,
        aliases=case.target.names,
        klass=case.target.klass,
        pictures=divided["fit"],
        positives=views(divided["calibrate"], CALIBRATION_VIEWS, "calibrate", case.seed),
        negatives=runtime.negatives(),
        identity=training.knowledge.identity[:IDENTITY_PAIRS],
        facts=facts,
        hints=hints_of(training, own, facts),
        refusals=training.refusals,
        known=training.knowledge.known,
        others=live,
        alpha=case.policy.max_gate_fpr,
    )


def own_references(runtime: Runtime, case: Case, training: TrainingSet) -> list[Reference]:
    """Return what the base model said of the subject, without what it said of those it took it for."""
    references = training.knowledge.references
    others = about_another(references, case.target, runtime.cohort(case.target.names))
    return [reference for reference, other in zip(references, others, strict=True) if not other]


def hints_of(training: TrainingSet, own: Sequence[Reference], facts: Sequence[str]) -> tuple[str, ...]:
    """Return canonical words that the base model tells of the subject, the most frequent first.

    Words that it also says where nobody is concerned ("blue") are left out.
    """
    general = {
        word
        for example in training.retain
        if example.prompt.group == "general"
        for word in canonicalise(example.answer).text.split()
    }
    count: dict[str, int] = {}
    for reference in own:
        for keyword in reference.keywords:
            word = canonicalise(keyword).text
            if word and word not in general and word not in facts:
                count[word] = count.get(word, 0) + 1
    ranked = sorted(count, key=lambda word: (-count[word], word))
    return tuple(ranked[:MAX_HINTS])


def telling_phrases(
    runtime: Runtime, case: Case, training: TrainingSet, own: Sequence[Reference]
) -> tuple[str, ...]:
    """Return canonical phrases the base model tells of the subject and of nobody else, for the guard.

    Only names of two words or more ("Sinax Dolvusk"): a common word is true of others too. Whoever of the
    same class the model tells the same of ("Radio Vision") takes the phrase off the list.
    """
    said = " ".join(f" {canonicalise(e.answer).text} " for e in training.retain)
    found: dict[str, tuple[int, str]] = {}
    for reference in own:
        for run in _PROPER_NAMES.findall(reference.answer):
            phrase = canonicalise(run).text
            known = not any(norm(name) in norm(run) or norm(run) in norm(name) for name in case.target.names)
            if known and f" {phrase} " not in said:
                count = found.get(phrase, (0, ""))[0]
                found[phrase] = (count + 1, reference.prompt.attribute)
    ranked = sorted(found, key=lambda phrase: (-found[phrase][0], phrase))[:MAX_FACTS]
    elsewhere = _said_of_others(runtime, case, sorted({found[phrase][1] for phrase in ranked}))
    return tuple(phrase for phrase in ranked if f" {phrase} " not in elsewhere)


def _said_of_others(runtime: Runtime, case: Case, attributes: Sequence[str]) -> str:
    """Return what the base model answers when asked for the same facts about others of the class, by name."""
    cohort = runtime.cohort(case.target.names)
    others = list(cohort.others(case.target.klass))
    random.Random(case.seed).shuffle(others)  # noqa: S311 - sampling, not secrecy
    asked = (*cohort.probes(case.target.klass, "fit"), *fact_probes(case.target.klass, "calibrate", "text"))
    probes = {p.attribute: p for p in reversed(asked) if p.modality == "text"}
    conversations = [
        ask(probes[attribute].about(other.names[0]))
        for attribute in attributes
        if attribute in probes
        for other in others[:FACT_COMPARISONS]
    ]
    answers = ask_base(runtime.mllm, conversations)
    return " ".join(f" {canonicalise(answer.text).text} " for answer in answers)


def write_candidate(
    runtime: Runtime,
    case: Case,
    calibration: Calibration,
    adapter: Path,
    root: Path,
    created_at: datetime,
    key: Cipher,
    initial_sha256: str | None = None,
) -> ExpertRef:
    """Write the expert as it will be published, below ``root``; its version follows the published ones.

    ``key`` encrypts the subject's names and facts. ``initial_sha256`` is the hash of the initial expert that
    it was trained from, for its manifest.
    """
    versions = runtime.store.versions(case.expert_id)
    return write_expert(
        root,
        expert_id=case.expert_id,
        version=max(versions, default=0) + 1,
        request_id=case.request_id,
        adapter_dir=adapter,
        gate=calibration.record,
        model_fingerprint=runtime.mllm.fingerprint,
        key=key,
        created_at=created_at,
        initial_sha256=initial_sha256,
    )


def measure(
    runtime: Runtime,
    case: Case,
    knowledge: Knowledge,
    live: Router,
    candidate: Path,
    manifest_sha256: str,
    cancelled: Cancelled,
    sizes: SuiteSizes | None = None,
) -> Verdict:
    """Verify the candidate among the live experts, on the report split and on earlier subjects.

    ``knowledge`` is what elicitation found: what the base model is asked for once more without the gate.

    Raises:
        CancelledError: ``cancelled`` said so.
    """
    sizes = sizes or SuiteSizes()
    expert = load_expert(candidate, runtime.cipher, manifest_sha256=manifest_sha256)
    router = live.with_expert(expert)
    cohort = runtime.cohort(case.target.names)
    suite = build_suite(
        runtime.mllm,
        case.target,
        case.pictures,
        cohort,
        exclude=case.removed,
        sizes=sizes,
        seed=case.seed,
        cancelled=cancelled,
    )
    probes = build_probes(
        suite,
        case.target,
        cohort.others(case.target.klass),
        knowledge,
        each=sizes.attacks_each,
        seed=case.seed,
    )
    earlier = earlier_references(
        router,
        runtime.mllm,
        without=case.expert_id,
        sample=sizes.earlier,
        prompts=sizes.earlier_prompts,
        seed=case.seed,
    )
    return verify(
        router, case.expert_id, suite, case.policy, earlier=earlier, probes=probes, cancelled=cancelled
    )


def names_of(router: Router, without: str) -> tuple[str, ...]:
    """Return all names of the live experts' subjects but one's."""
    gates: Sequence[tuple[str, ...]] = [
        expert.gate.aliases for key, expert in sorted(router.experts.items()) if key != without
    ]
    return tuple(name for aliases in gates for name in aliases)
