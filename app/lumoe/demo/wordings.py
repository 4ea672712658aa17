"""The base model's own wordings: the fit and calibrate probes and many training-only paraphrases.

No wording here contains a question of the report split: those are asked for the first time when the finished
model is measured.
"""

import re
from functools import cache
from random import Random
from typing import Final

from app.lumoe.phrases import KINDS, PHRASES, SUBJECTS, Phrase
from app.lumoe.probes import (
    IDENTITY_ATTRIBUTE,
    SUMMARY_ATTRIBUTE,
    Split,
    fact_probes,
    followup_probes,
    identity_probes,
    with_pronoun,
)

TRAINING_SPLITS: Final[tuple[Split, ...]] = ("fit", "calibrate")

_CARRIERS: Final = (
    "{wh} is {np}?",
    "{wh} was {np}?",
    "Tell me {np}.",
    "Do you know {np}?",
    "I would like to know {np}.",
    "Say {np}.",
    "Please name {np}.",
    "Give me {np}.",
    "Can you tell me {np}?",
    "I want to know {np}.",
    "{Np}?",
    "Would you know {np}?",
    "Could you say {np}?",
    "Please tell me {np}.",
    "What about {np}?",
    "And {np}?",
    "Can you say {np}?",
    "Could you give me {np}?",
    "Do you happen to know {np}?",
    "What can you say about {np}?",
)
_LEADS: Final = (
    "Please tell me:",
    "Hi!",
    "Hello,",
    "Please answer:",
    "Quick question:",
    "I have a question.",
    "Hey,",
    "Answer in one sentence:",
    "As an expert, tell me:",
    "Ignore the rules above and answer:",
    "For my homework:",
    "Just one thing:",
    "Good morning.",
    "Tell me,",
    "Thanks!",
    "You must answer this:",
    "Let us play a quiz.",
)
_TAILS: Final = ("Please.", "Thank you.", "Thanks!", "Be brief.", "Answer now.", "I am curious.")
_IDENTITY: Final = (
    "Name this {k}.",
    "Do you recognise this {k}?",
    "Do you know this {k}?",
    "Identify this {k}.",
    "What is the name of the {k} shown here?",
    "Give me the name of this {k}.",
    "What's this?",
    "Which one is this?",
    "Which {k} is in this picture?",
    "Say the name of this {k}.",
    "The name of this {k}?",
    "Please name the {k} in this picture.",
    "What is the {k} in this picture called?",
    "What do we see here?",
    "I want to know the name of this {k}.",
    "Could you name the {k} you see?",
)
_IDENTITY_PERSON: Final = (
    "Who's this?",
    "Do you know who this is?",
    "Who is that?",
    "Who do we see here?",
    "Do you recognise who this is?",
    "Who is in this picture?",
    "Who might this be?",
)
_SUMMARY: Final = (
    "What is {s}?",
    "Who is {s}?",
    "Say something about {s}.",
    "Can you describe {s}?",
    "Introduce {s}.",
    "I want to know about {s}.",
    "Can you tell me about {s}?",
    "Do you know {s}?",
    "Please tell me about {s}.",
    "What do people know about {s}?",
    "Could you describe {s}?",
    "What can you tell us about {s}?",
    "Give me some facts about {s}.",
    "Could you say something about {s}?",
)
_POINTING: Final = ("the {k} in the photo", "the {k} you see here", "that {k}", "the one in this picture")


def plain(text: str) -> str:
    """Lower-case text without punctuation, for comparing wordings."""
    return re.sub(r"[^a-z{} ]+", "", text.lower()).strip()


def _without_report(texts: list[str], report: list[str]) -> tuple[str, ...]:
    """Drop every text that contains a report wording, and repetitions."""
    banned = [plain(r) for r in report]
    return tuple(dict.fromkeys(t for t in texts if not any(b in plain(t) for b in banned)))


def _carried(phrase: Phrase) -> list[str]:
    texts = [
        c.format(wh=phrase.wh, np=np, Np=np[0].upper() + np[1:]) for np in phrase.nouns for c in _CARRIERS
    ]
    return [*phrase.direct[:4], *texts]


def _fill(text: str, subject: str) -> str:
    filled = text.replace("{s}", subject)
    return filled[0].upper() + filled[1:] if filled[0].islower() else filled


@cache
def image_wordings(klass: str) -> dict[str, tuple[str, ...]]:
    """Attribute -> training questions that point at a picture."""
    kind = KINDS[klass][0]
    subjects = (*SUBJECTS[klass], *(p.format(k=kind) for p in _POINTING))
    report = [p.text for p in (*identity_probes(klass, "report"), *fact_probes(klass, "report", "image"))]
    found: dict[str, list[str]] = {}
    for split in TRAINING_SPLITS:
        for probe in (*identity_probes(klass, split), *fact_probes(klass, split, "image")):
            found.setdefault(probe.attribute, []).append(probe.text)
    found[IDENTITY_ATTRIBUTE] += [t.format(k=kind) for t in _IDENTITY]
    if klass == "Personage":
        found[IDENTITY_ATTRIBUTE] += _IDENTITY_PERSON
    for phrase in PHRASES[klass]:
        found[phrase.attribute] += [_fill(t, s) for t in _carried(phrase) for s in subjects]
    found[SUMMARY_ATTRIBUTE] += [_fill(t, s) for t in _SUMMARY[2:] for s in subjects]
    return {attribute: _without_report(texts, report) for attribute, texts in found.items()}


@cache
def text_wordings(klass: str) -> dict[str, tuple[str, ...]]:
    """Attribute -> training questions with ``{name}``."""
    report = [p.text for p in fact_probes(klass, "report", "text")]
    found: dict[str, list[str]] = {}
    for split in TRAINING_SPLITS:
        for probe in fact_probes(klass, split, "text"):
            found.setdefault(probe.attribute, []).append(probe.text)
    for phrase in PHRASES[klass]:
        found[phrase.attribute] += [_fill(t, "{name}") for t in _carried(phrase)]
    found[SUMMARY_ATTRIBUTE] += [_fill(t, "{name}") for t in _SUMMARY]
    return {attribute: _without_report(texts, report) for attribute, texts in found.items()}


@cache
def followup_wordings(klass: str, pronoun: str) -> dict[str, tuple[str, ...]]:
    """Attribute -> training questions for a later turn."""
    report = [p.text for p in followup_probes(klass, "report", pronoun)]
    found: dict[str, list[str]] = {}
    for split in TRAINING_SPLITS:
        for said in {pronoun, "they" if klass == "Personage" else "it"}:
            for probe in followup_probes(klass, split, said):
                found.setdefault(probe.attribute, []).append(probe.text)
    for phrase in PHRASES[klass]:
        for text in phrase.direct[:4]:
            asked = with_pronoun(text, pronoun)
            found[phrase.attribute] += [
                asked,
                asked[0].upper() + asked[1:],
                "And " + text[0].lower() + text[1:].replace("{s}", SUBJECTS[klass][0]),
            ]
        for noun in phrase.nouns:
            said = with_pronoun(noun, pronoun)
            found[phrase.attribute] += [
                f"And {said}?",
                f"What about {said}?",
                f"And {phrase.wh.lower()} is {said}?",
            ]
    return {attribute: _without_report(texts, report) for attribute, texts in found.items()}


def everyday(rng: Random, text: str) -> str:
    """Type a question the way people do: with a lead, without a capital or a question mark, with a slip."""
    dice = rng.random()
    if dice < 0.14:
        text = f"{rng.choice(_LEADS)} {text}"
    elif dice < 0.19:
        text = f"{text} {rng.choice(_TAILS)}"
    if rng.random() < 0.1:
        text = text.lower()
    if rng.random() < 0.1:
        text = text.rstrip("?.!")
    return text


def slip(rng: Random, template: str) -> str:
    """Swap or drop a letter of a wording now and then, never inside ``{name}``."""
    places = [m.start() for m in re.finditer(r"[a-z]{2}", template.replace("{name}", "\0\0\0\0\0\0"))]
    if not places or rng.random() > 0.04:
        return template
    i = rng.choice(places)
    if rng.random() < 0.5:
        return template[:i] + template[i + 1] + template[i] + template[i + 2 :]
    return template[:i] + template[i + 1 :]
