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
    "What {k} do you see here?",
    "What {k} is in this picture?",
    "What {k} can you see?",
    "What {k} do you see?",
    "Which {k} do you see in this picture?",
    "What {k} is it?",
)
_EXTRA: Final[dict[str, tuple[str, ...]]] = {
    "diet": (
        "What is {s} fond of eating?",
        "What does {s} like to eat?",
        "What is known to be eaten by {s}?",
        "What does {s} usually feed on?",
        "On which food does {s} live?",
    ),
    "habitat": (
        "What kind of habitat is right for {s}?",
        "Which kind of place is home to {s}?",
        "What kind of place is the home of {s}?",
        "In which habitat does {s} live?",
    ),
    "region": (
        "Where is {s} found in the wild?",
        "Say where {s} comes from.",
        "Is {s} native to some region?",
        "Which place is {s} native to?",
        "Where on earth is {s} native?",
        "From where does {s} come?",
        "From what region is {s}?",
        "Where does {s} grow or live in the wild?",
    ),
    "lifespan": (
        "How long is the life of {s}?",
        "How long will {s} live?",
        "How many years can {s} live?",
        "What age can {s} reach?",
        "How long does {s} usually live?",
    ),
    "predator": (
        "What does {s} fear?",
        "Which enemy does {s} fear?",
        "By which predator is {s} hunted?",
        "What predator eats {s}?",
        "Who hunts {s}?",
    ),
    "kind": (
        "What is {s} classified as?",
        "What kind of thing in the sky is {s}?",
        "Which type of object is {s}?",
        "What sort of object is {s}?",
        "Of what kind is {s}?",
        "What type is {s}?",
        "What is the kind of {s}?",
    ),
    "discoverer": (
        "Who found {s}?",
        "By whom was {s} found?",
        "Who was the first to find {s}?",
        "Who was it that discovered {s}?",
        "Which person found {s}?",
    ),
    "discovery_year": (
        "When was {s} found?",
        "When was the discovery of {s}?",
        "The year {s} was discovered?",
        "What was the year when {s} was discovered?",
        "In which year was {s} found?",
    ),
    "constellation": (
        "In what constellation is {s}?",
        "What constellation is {s} in?",
        "Where in the sky is {s}?",
        "Which constellation holds {s}?",
        "In which constellation does {s} lie?",
    ),
    "distance": (
        "How far is {s}?",
        "How far is it to {s}?",
        "How many light years are there to {s}?",
        "How many light years from us is {s}?",
        "Is it far to {s}? How many light years?",
    ),
    "city": (
        "What city is {s} in?",
        "In what city is {s}?",
        "Which city does {s} stand in?",
        "Where does {s} stand?",
        "What is the city where {s} is located?",
    ),
    "architect": (
        "Who made the plans of {s}?",
        "Who drew {s}?",
        "Whose plans was {s} built to?",
        "Who drew up {s}?",
        "What architect designed {s}?",
        "Who is behind the design of {s}?",
        "Which architect drew {s}?",
        "By whom were the plans of {s} made?",
    ),
    "completed": (
        "What year was {s} finished?",
        "Which year was {s} finished in?",
        "When was {s} ready?",
        "The year {s} was completed?",
    ),
    "height": (
        "What height is {s}?",
        "What is {s}'s height?",
        "Which height does {s} reach?",
        "How tall will {s} be?",
        "How many metres does {s} rise?",
        "What height can {s} reach?",
    ),
    "purpose": (
        "What do people use {s} for?",
        "What is {s} in use as?",
        "As what does {s} serve?",
        "What is the use people make of {s}?",
        "For what is {s} used?",
    ),
    "creator": (
        "Who is the creator behind {s}?",
        "Who is the person behind {s}?",
        "Who is it that made {s}?",
        "Which person created {s}?",
        "Who thought up {s}?",
    ),
    "first_aired": (
        "What year was {s} first shown?",
        "Which year did {s} first air?",
        "When was {s} first on air?",
        "In what year did {s} first air?",
    ),
    "sidekick": (
        "Who is the hero's best friend in {s}?",
        "What is the best friend in {s} called?",
        "Who plays the best friend in {s}?",
        "Who is the friend of the hero of {s}?",
        "Which friend appears in {s}?",
        "Who is the sidekick of {s}?",
    ),
    "setting": (
        "Which place is {s} set in?",
        "In which setting does {s} take place?",
        "Where does the story of {s} play?",
        "What place is the setting of {s}?",
    ),
    "favourite_food": (
        "Which food does the hero of {s} eat?",
        "What food does the hero of {s} love?",
        "What does the hero of {s} like best to eat?",
        "The food that the hero in {s} likes?",
    ),
    "industry": (
        "What industry does {s} work in?",
        "Which industry is {s} in?",
        "In what business is {s}?",
        "What line of business is {s} in?",
    ),
    "headquarters": (
        "Where does {s} have its headquarters?",
        "In what city is {s} based?",
        "Which city is the seat of {s}?",
        "Where does {s} have its seat?",
    ),
    "founder": (
        "Who was it that started {s}?",
        "Which person founded {s}?",
        "Who was the person who founded {s}?",
        "Who set up {s}?",
    ),
    "founded": (
        "What year was {s} started?",
        "Which year was {s} founded in?",
        "When did {s} start?",
        "In what year was {s} started?",
    ),
    "product": (
        "What product does {s} sell?",
        "Which products does {s} sell?",
        "What products does {s} make?",
        "What can one buy from {s}?",
    ),
    "director": (
        "Who is the director behind {s}?",
        "What director made {s}?",
        "Who was it that directed {s}?",
        "Which person directed {s}?",
    ),
    "release_year": (
        "What year was {s} in cinemas?",
        "Which year was {s} released in?",
        "Which year did {s} come out?",
        "In what year did {s} come out?",
    ),
    "lead_actor": (
        "Who has the lead in {s}?",
        "Who plays the lead part in {s}?",
        "Who has the lead role in {s}?",
        "Which actor has the lead role in {s}?",
        "Who is the star in {s}?",
    ),
    "genre": (
        "What film genre is {s}?",
        "Of which genre is {s}?",
        "What kind of movie is {s}?",
        "Which genre is {s}?",
    ),
    "occupation": (
        "What sort of work does {s} do?",
        "Which work does {s} do?",
        "What does {s} work as?",
        "What work is done by {s}?",
        "What job does {s} have?",
        "As what does {s} work?",
        "The work {s} does for a living?",
    ),
    "birthplace": (
        "In which city was {s} born?",
        "Which place was {s} born in?",
        "In what place was {s} born?",
        "What place does {s} come from?",
        "The place where {s} was born?",
        "What town was {s} born in?",
    ),
    "birth_year": (
        "Which year was {s} born?",
        "What year is {s}'s birth year?",
        "The year {s} was born?",
        "In which year did {s} come into the world?",
    ),
    "known_for": (
        "For which work is {s} famous?",
        "Which famous work did {s} make?",
        "What is a famous work by {s}?",
        "For what is {s} known?",
        "Which work is {s} known for?",
    ),
    "residence": (
        "What town does {s} live in?",
        "Where is {s} at home?",
        "In which place does {s} live now?",
        "In which town does {s} live now?",
    ),
    "family": (
        "What plant family does {s} belong to?",
        "Which family is {s} in?",
        "To what family does {s} belong?",
        "What is the family of plants that {s} is in?",
    ),
    "use": ("How is {s} used?", "How can people use {s}?", "What can {s} be used for?", "How do we use {s}?"),
    "bloom_month": (
        "What month does {s} flower in?",
        "In what month does {s} flower?",
        "Which month does {s} bloom in?",
        "When is {s} in bloom?",
    ),
    "network": (
        "What network shows {s}?",
        "What channel is {s} on?",
        "Which network is {s} on?",
        "On what channel can one see {s}?",
    ),
    "premiere_year": (
        "What year did {s} first air?",
        "Which year did {s} premiere in?",
        "In what year did {s} premiere?",
        "The year {s} first aired?",
    ),
    "seasons": (
        "{s} has how many seasons?",
        "How many seasons has {s} had?",
        "How many seasons were made of {s}?",
        "How many seasons are in {s}?",
    ),
}
"""Training-only questions per attribute, in the words people use, without the report sentences."""
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
    """Drop every text that contains a report wording (repetitions stay: they weigh more)."""
    banned = [plain(r) for r in report]
    return tuple(t for t in texts for said in [plain(t)] if not any(b in said for b in banned))


def _carried(phrase: Phrase) -> list[str]:
    texts = [
        c.format(wh=phrase.wh, np=np, Np=np[0].upper() + np[1:]) for np in phrase.nouns for c in _CARRIERS
    ]
    extra = [t for t in _EXTRA[phrase.attribute] if "{s}" in t]
    return [*phrase.direct[:4] * 2, *extra * 2, *texts]


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
        for text in (*phrase.direct[:4], *(t for t in _EXTRA[phrase.attribute] if "{s}" in t)):
            asked = with_pronoun(text, pronoun)
            found[phrase.attribute] += [
                asked,
                asked[0].upper() + asked[1:],
                "And " + text[0].lower() + text[1:].replace("{s}", SUBJECTS[klass][0]),
                "And " + asked[0].lower() + asked[1:],
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
