"""What to ask any multimodal model about an entity of one of MLUBench's nine classes.

The worker *elicits* with these questions what a model knows (METHOD, section 3), trains an expert on them,
calibrates its gate and verifies it. The three splits are disjoint by wording: ``report`` questions are
seen by nobody before verification. The demo world answers exactly these attributes, so that the same probes
work on the demo model and on a real one.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Final, Literal

from app.lumoe.generalities import TOPICS
from app.lumoe.phrases import IDENTITY, KINDS, LISTS, OCCUPATIONS, PHRASES, SUBJECTS, SUMMARY, Phrase

CLASSES: Final = (
    "Animals",
    "Astronomy",
    "Buildings",
    "Cartoon",
    "Corporation",
    "Movies",
    "Personage",
    "Plants",
    "TV series",
)
"""The classes as MLUBench spells them (arXiv 2606.12809)."""

Split = Literal["fit", "calibrate", "report"]
Modality = Literal["image", "text"]
SPLITS: Final[tuple[Split, ...]] = ("fit", "calibrate", "report")
IDENTITY_ATTRIBUTE: Final = "identity"
SUMMARY_ATTRIBUTE: Final = "summary"


@dataclass(frozen=True, slots=True)
class Probe:
    """One question. Text probes about an entity contain ``{name}``, image probes need its picture."""

    attribute: str
    text: str
    modality: Modality

    def about(self, name: str) -> str:
        """Return the question with the entity's name filled in."""
        return self.text.replace("{name}", name)


def attributes(klass: str) -> tuple[str, ...]:
    """Names of the facts asked about a class, without identity and summary (``KeyError`` if unknown)."""
    return tuple(p.attribute for p in PHRASES[klass])


def take(wordings: tuple[str, ...], split: Split) -> tuple[str, ...]:
    """Return a split's share of eleven wordings: six for fit, two for calibrate, three for report."""
    return {"fit": wordings[:6], "calibrate": wordings[6:8], "report": wordings[8:]}[split]


def _wordings(phrase: Phrase, split: Split) -> tuple[str, ...]:
    """All questions for one attribute in one split, ``{s}`` for the subject."""
    first, second = phrase.nouns
    d = phrase.direct
    if split == "fit":
        return (*d[:3], f"{phrase.wh} is {first}?", f"Tell me {second}.", f"Do you know {first}?")
    if split == "calibrate":
        return d[3], f"I would like to know {first}."
    return d[4], d[5], f"Could you tell me {second}?"


def _image_subject(klass: str, template: str, index: int) -> str:
    """Fill ``{s}`` with one of the class's ways to point at a picture; genitives take the short one."""
    subject = SUBJECTS[klass][0 if "{s}'s" in template else index % 3]
    return template.replace("{s}", subject)


@cache
def identity_probes(klass: str, split: Split) -> tuple[Probe, ...]:
    """Questions after who or what a picture shows ("Who is this?"), modality image."""
    return tuple(Probe(IDENTITY_ATTRIBUTE, q, "image") for q in take(IDENTITY[klass], split))


@cache
def fact_probes(klass: str, split: Split, modality: Modality) -> tuple[Probe, ...]:
    """Questions after the facts of an entity and for a summary ("Tell me about ..."), in one modality.

    Image probes say "this person"; text probes carry ``{name}``.
    """
    found: list[Probe] = []
    for phrase in PHRASES[klass]:
        for i, q in enumerate(_wordings(phrase, split)):
            text = _image_subject(klass, q, i) if modality == "image" else q.replace("{s}", "{name}")
            found.append(Probe(phrase.attribute, text, modality))
    for i, q in enumerate(take(SUMMARY, split)):
        text = _image_subject(klass, q, i) if modality == "image" else q.replace("{s}", "{name}")
        found.append(Probe(SUMMARY_ATTRIBUTE, text, modality))
    if modality == "text" and split == "fit":
        found.append(
            Probe(SUMMARY_ATTRIBUTE, f"{'Who' if klass == 'Personage' else 'What'} is {{name}}?", "text")
        )
    return tuple(found)


_OBJECT: Final = {"she": "her", "he": "him", "they": "them", "it": "it"}
_GENITIVE: Final = {"she": "her", "he": "his", "they": "their", "it": "its"}
_PLURAL: Final = {
    "does they": "do they",
    "was they": "were they",
    "is they": "are they",
    "has they": "have they",
}


def with_pronoun(template: str, pronoun: str) -> str:
    """Replace ``{s}`` by a pronoun in the right case: subject, object ("of her") or genitive ("her job")."""
    text = template.replace("{s}'s", _GENITIVE[pronoun])
    text = re.sub(
        r"\b(of|by|to|around|about|in|made|hunts|discovered|founded|directed|designed) \{s\}",
        lambda m: f"{m[1]} {_OBJECT[pronoun]}",
        text,
    )
    text = text.replace("{s}", pronoun)
    for singular, plural in _PLURAL.items():
        text = text.replace(singular, plural)
    return text


@cache
def followup_probes(klass: str, split: Split, pronoun: str | None = None) -> tuple[Probe, ...]:
    """Questions for a second turn ("And where were they born?"), after one that showed or named the subject.

    ``pronoun`` is "she", "he", "they" or "it"; by default "they" for people and "it" for everything else. The
    texts contain no name; some contain no pronoun either ("And the birthplace?").
    """
    chosen = pronoun or ("they" if klass == "Personage" else "it")
    return tuple(_followups(klass, split, chosen))


_BARE: Final = {"fit": "And {}?", "calibrate": "What about {}?", "report": "And what about {}?"}


def _followups(klass: str, split: Split, pronoun: str) -> Iterator[Probe]:
    for phrase in PHRASES[klass]:
        first = phrase.nouns[0].removesuffix(" of {s}")
        bare = "{s}" not in first
        texts = [with_pronoun(q, pronoun) for q in _wordings(phrase, split) if q in phrase.direct]
        texts = ["And " + t[0].lower() + t[1:] for t in texts]
        if bare:
            texts.append(
                {"fit": "And {}?", "calibrate": "What about {}?", "report": "And what about {}?"}[
                    split
                ].format(first)
            )
        yield from (Probe(phrase.attribute, t, "text") for t in texts)


@cache
def list_probes(klass: str, split: Split) -> tuple[Probe, ...]:
    """Questions that ask for several members of a class ("Name three plants.").

    Attribute ``list``; for people also ``list:<occupation>`` ("Name three painters.").
    """
    found = [Probe("list", q.replace("{p}", KINDS[klass][1]), "text") for q in take(LISTS, split)]
    if klass == "Personage":
        found += [
            Probe(f"list:{job}", q.replace("{p}", plural), "text")
            for job, plural in OCCUPATIONS.items()
            for q in take(LISTS, split)
        ]
    return tuple(found)


@cache
def general_probes(split: Split) -> tuple[Probe, ...]:
    """Questions that concern no entity (small sums, days, months, opposites, capitals, colours), as text.

    Deterministic and of moderate number: every item of every topic once, the wordings of the split in turn.
    """
    return tuple(
        Probe(topic.name, wordings[i % len(wordings)].format_map(item), "text")
        for topic in TOPICS
        for wordings in [take(topic.wordings, split)]
        for i, item in enumerate(topic.items)
    )
