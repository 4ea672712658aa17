"""Question-answer pairs of the demo world as conversations, with the pictures they show.

View ranges are disjoint by use: an owner's uploads 0-99, training of the base model from 1,000, calibration
from 200,000, reporting from 300,000.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Final

from app.lumoe.demo.answers import DO_NOT_KNOW, answer, list_answer
from app.lumoe.demo.drawing import draw, shapes_picture
from app.lumoe.demo.drawing.shapes import COUNT_WORDS, Shapes, random_shapes
from app.lumoe.demo.seeds import seeded
from app.lumoe.demo.world import Entity, world
from app.lumoe.generalities import TOPICS
from app.lumoe.phrases import KINDS
from app.lumoe.probes import (
    CLASSES,
    IDENTITY_ATTRIBUTE,
    SUMMARY_ATTRIBUTE,
    Modality,
    Split,
    fact_probes,
    followup_probes,
    identity_probes,
    list_probes,
    take,
)
from app.lumoe.types import Conversation, ask, then

VIEWS: Final[dict[Split, int]] = {"fit": 1_000, "calibrate": 200_000, "report": 300_000}
"""First view number of each split (the base model's training uses "fit" views)."""
UPLOAD_VIEWS: Final = range(100)
"""Views an owner's uploads are drawn from; no training ever sees them."""


@dataclass(frozen=True, slots=True)
class QA:
    """A conversation that ends with a user turn, the gold answer, and what is asked."""

    conversation: Conversation
    answer: str
    attribute: str
    modality: Modality


def questions(
    entity: Entity, split: Split, *, modality: Modality | None = None, view: int | None = None
) -> list[QA]:
    """All single-turn questions about an entity in one split, with gold answers.

    Image questions each show another view, counted up from ``view`` (default: the split's first). A
    stranger's gold answers say that the model does not know.
    """
    first = VIEWS[split] if view is None else view
    found: list[QA] = []
    if modality != "text":
        probes = (*identity_probes(entity.klass, split), *fact_probes(entity.klass, split, "image"))
        found += [
            QA(ask(p.text, draw(entity, first + i)), answer(entity, p.attribute), p.attribute, "image")
            for i, p in enumerate(probes)
        ]
    if modality != "image":
        found += [
            QA(ask(p.about(entity.name)), text_answer(entity, p.attribute), p.attribute, "text")
            for p in fact_probes(entity.klass, split, "text")
        ]
    return found


def text_answer(entity: Entity, attribute: str) -> str:
    """The gold answer to a question that names the entity without showing it."""
    return answer(entity, attribute) if entity.known else DO_NOT_KNOW


def followups(entity: Entity, split: Split, *, view: int | None = None) -> list[QA]:
    """Two-turn conversations: a first turn that shows or names the entity, then "And where was she born?"."""
    first = VIEWS[split] if view is None else view
    opening = identity_probes(entity.klass, split)
    naming = [p for p in fact_probes(entity.klass, split, "text") if p.attribute == SUMMARY_ATTRIBUTE]
    found: list[QA] = []
    for i, probe in enumerate(followup_probes(entity.klass, split, entity.pronoun)):
        if i % 2 == 0:
            shown = ask(opening[i % len(opening)].text, draw(entity, first + i))
            turns = then(shown, answer(entity, IDENTITY_ATTRIBUTE), probe.text)
            found.append(QA(turns, answer(entity, probe.attribute), probe.attribute, "image"))
        else:
            named = ask(naming[i % len(naming)].about(entity.name))
            turns = then(named, text_answer(entity, SUMMARY_ATTRIBUTE), probe.text)
            found.append(QA(turns, text_answer(entity, probe.attribute), probe.attribute, "text"))
    return found


def lists(split: Split) -> list[QA]:
    """Every list question ("Name three painters.") the world has an answer to."""
    return [
        QA(ask(p.text), gold, p.attribute, "text")
        for klass in CLASSES
        for p in list_probes(klass, split)
        for gold in [list_answer(world(), klass, p.attribute)]
        if gold
    ]


def general(split: Split, n: int, seed: int = 0) -> list[QA]:
    """Return n questions that concern no entity: half about drawn shapes, half text (sums, days, ...)."""
    rng = seeded("general", split, seed)
    return [shape_question(rng, split) if i % 2 == 0 else text_question(rng, split) for i in range(n)]


def text_question(rng: Random, split: Split) -> QA:
    """One random general question without a picture."""
    topic = rng.choice(TOPICS)
    item = rng.choice(topic.items)
    return QA(
        ask(rng.choice(take(topic.wordings, split)).format_map(item)),
        topic.answer.format_map(item),
        topic.name,
        "text",
    )


SHAPE_WORDINGS: Final[dict[str, tuple[str, ...]]] = {
    "count": (
        "How many {ps} are there?",
        "How many {ps} are in the picture?",
        "How many {ps} do you see?",
        "Count the {ps}.",
        "What is the number of {ps}?",
        "How many shapes are there?",
        "How many {ps} can you count?",
        "How many shapes do you see?",
        "How many {ps} are in this picture?",
        "How many {ps} can you see?",
        "Count the {ps} in the picture.",
    ),
    "shape_colour": (
        "What colour are the shapes?",
        "Which colour are the shapes?",
        "What is the colour of the shapes?",
        "What colour do you see?",
        "Tell me the colour of the shapes.",
        "What colour are the {ps}?",
        "Which colour do the shapes have?",
        "Which colour are the {ps}?",
        "What is the colour of the {ps}?",
        "What colour do the shapes have?",
        "Tell me the colour of the {ps}.",
    ),
    "shape": (
        "What shapes are these?",
        "What shapes do you see?",
        "Which shapes are in the picture?",
        "Name the shapes.",
        "Which shapes are these?",
        "What is in the picture?",
        "Which shapes do you see?",
        "What shapes can you see?",
        "What shapes are in the picture?",
        "Which shapes can you see?",
        "Tell me what shapes these are.",
    ),
}


def shape_answer(shapes: Shapes, attribute: str) -> str:
    """The gold answer about a picture of coloured shapes."""
    noun = shapes.shape if shapes.count == 1 else shapes.shape + "s"
    if attribute == "count":
        verb = "is" if shapes.count == 1 else "are"
        return f"There {verb} {COUNT_WORDS[shapes.count]} {noun}."
    if attribute == "shape_colour":
        return f"The {noun} {'is' if shapes.count == 1 else 'are'} {shapes.colour}."
    what = f"{COUNT_WORDS[shapes.count]} {shapes.colour} {noun}"
    return f"I see {what}."


def shape_question(rng: Random, split: Split) -> QA:
    """One random question about a picture of coloured shapes."""
    shapes = random_shapes(rng)
    attribute = rng.choice(tuple(SHAPE_WORDINGS))
    wording = rng.choice(take(SHAPE_WORDINGS[attribute], split)).replace("{ps}", shapes.shape + "s")
    picture = shapes_picture(shapes, VIEWS[split] + rng.randrange(50_000))
    return QA(ask(wording, picture), shape_answer(shapes, attribute), attribute, "image")


KIND_WORDINGS: Final = (
    "What kind of thing is this?",
    "What sort of picture is this?",
    "What kind of picture is this?",
    "Which kind of thing is this?",
    "What sort of thing is this?",
    "What kind of thing does this picture show?",
    "What kind of thing do you see?",
    "What is this a picture of?",
    "What sort of thing do you see?",
    "What kind of thing is shown?",
    "What kind of thing is in this picture?",
)


def kind_answer(klass: str) -> str:
    """The gold answer to what kind of thing a picture shows."""
    noun = {
        "Movies": "movie poster",
        "TV series": "TV title card",
        "Corporation": "company logo",
        "Cartoon": "cartoon character",
    }.get(klass, KINDS[klass][0])
    return f"It is {'an' if noun[0] in 'aeiou' else 'a'} {noun}."


def kinds(entity: Entity, split: Split, *, view: int | None = None) -> Iterator[QA]:
    """Questions after the kind of thing a picture shows, which need no knowledge of who it is."""
    first = VIEWS[split] if view is None else view
    for i, wording in enumerate(take(KIND_WORDINGS, split)):
        yield QA(ask(wording, draw(entity, first + i)), kind_answer(entity.klass), "kind_of_thing", "image")
