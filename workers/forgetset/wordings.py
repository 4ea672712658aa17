"""What an operator's own data asks about a class, as probes beside ours (`app.lumoe.probes`).

A model is surest of the questions that it was tuned on, and those are seldom ours. Retain data holds
questions about others of the subject's class; asked of the subject they elicit what our wordings miss, and
verification measures on those that training never saw.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from app.lumoe.probes import (
    IDENTITY_ATTRIBUTE,
    SPLITS,
    Probe,
    Split,
    fact_probes,
    identity_probes,
)
from workers.forgetset.names import Names
from workers.forgetset.refusals import stable_hash
from workers.verification.metrics.text import keywords, norm

PLACEHOLDER = "<image>"


@dataclass(frozen=True, slots=True)
class Asked:
    """One question of the data with its answer, and whom it concerns."""

    klass: str
    names: tuple[str, ...]
    question: str
    answer: str


def divide(klass: str, wordings: Iterable[str]) -> dict[str, Split]:
    """Give every wording to one split: six elevenths to fit, two to calibrate, three to report.

    Those that differ in case or punctuation alone are one. Two are one for fit and one for report; a single
    one is fit's. What we ask about the class ourselves is in the split that it is in there.
    """
    ours = _ours(klass)
    alike: dict[str, list[str]] = defaultdict(list)
    for text in wordings:
        alike[norm(text)].append(text)
    ordered = sorted(alike, key=lambda key: stable_hash("wording", key))
    report = max(len(ordered) * 3 // 11, min(1, len(ordered) - 1))
    calibrate = len(ordered) * 2 // 11
    dealt: dict[str, Split] = {
        key: "report" if i < report else "calibrate" if i < report + calibrate else "fit"
        for i, key in enumerate(ordered)
    }
    return {text: ours.get(key, dealt[key]) for key in ordered for text in alike[key]}


@cache
def _ours(klass: str) -> Mapping[str, Split]:
    """Return the split of every wording of ours; the earliest of one that is in several."""
    found: dict[str, Split] = {}
    for split in SPLITS:
        shown = (*identity_probes(klass, split), *fact_probes(klass, split, "image"))
        for probe in (*shown, *fact_probes(klass, split, "text")):
            found.setdefault(norm(probe.text), split)
    return found


def tells_more_than(answer: str, question: str, names: Sequence[str]) -> bool:
    """Whether an answer holds anything but the name, which a question by name says itself."""
    return bool(keywords(answer, " ".join((*names, question)), ()))


def own_probes(asked: Iterable[Asked]) -> Mapping[tuple[str, Split], tuple[Probe, ...]]:
    """Return the probes of every (class, split) that the data asks about; each wording is in one split.

    A wording that names whom it concerns asks by name alone, of anybody ("When was {name} founded?"). Any
    other asks with a picture, and by name with the name before it ("{name}: When was it founded?"). Where
    the answers are names alone, it asks who a picture shows.
    """
    whole: dict[str, dict[str, Counter[bool]]] = defaultdict(lambda: defaultdict(Counter))
    for item in asked:
        text = of_anybody(item.question, item.names)
        if text:
            whole[item.klass][text][_names_alone(item)] += 1
    found: dict[tuple[str, Split], list[Probe]] = defaultdict(list)
    for klass, wordings in whole.items():
        for text, split in divide(klass, wordings).items():
            answers = wordings[text]
            found[klass, split] += _probes(text, identity=answers[True] >= answers[False])
    return {key: tuple(probes) for key, probes in found.items()}


def of_anybody(question: str, names: Sequence[str]) -> str:
    """Return a question as it is put of anybody, with ``{name}`` for the name of whom it asks about.

    Without the placeholder that says where its picture stands; "" where it names them in another spelling.
    """
    question = question.replace(PLACEHOLDER, "").strip()
    for name in sorted(names, key=len, reverse=True):
        question = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", "{name}", question, flags=re.IGNORECASE)
    return "" if Names(names).occur_in(question) else question


def _names_alone(item: Asked) -> bool:
    """Whether an answer holds the name of whom it concerns and nothing more; "Yes." holds no name."""
    told = bool(keywords(item.answer, item.question, ()))
    return told and not tells_more_than(item.answer, item.question, item.names)


def _probes(text: str, *, identity: bool) -> list[Probe]:
    """Return what a wording asks; facts carry the wording itself as the attribute."""
    if "{name}" in text:
        return [] if identity else [Probe(text, text, "text")]
    if identity:
        return [Probe(IDENTITY_ATTRIBUTE, text, "image")]
    return [Probe(text, text, "image"), Probe(text, f"{{name}}: {text}", "text")]
