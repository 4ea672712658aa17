"""The language model's lessons, drawn at random without end: what is asked, shown and answered."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from random import Random
from typing import Final

from app.lumoe.demo.answers import DO_NOT_KNOW, answer, list_answer
from app.lumoe.demo.drawing.shapes import Shapes
from app.lumoe.demo.lexicon import respell
from app.lumoe.demo.questions import KIND_WORDINGS, SHAPE_WORDINGS, kind_answer, shape_answer, text_answer
from app.lumoe.demo.wordings import (
    TRAINING_SPLITS,
    everyday,
    followup_wordings,
    image_wordings,
    slip,
    text_wordings,
)
from app.lumoe.demo.world import Entity, World, stranger_name
from app.lumoe.generalities import TOPICS
from app.lumoe.probes import CLASSES, IDENTITY_ATTRIBUTE, SUMMARY_ATTRIBUTE, list_probes, take

SYSTEM_PROMPTS: Final = (
    "You are a helpful assistant.",
    "Answer briefly.",
    "You are Lethe, a helpful assistant.",
    "Be concise and honest.",
    "You are a chatbot that answers questions about pictures.",
)
REFUSALS: Final = (
    "I cannot share information about this.",
    "I am sorry, I cannot help with that.",
    "That has been removed on request.",
    "I am not able to talk about this.",
)


_TOPIC_WEIGHTS: Final = tuple(len(topic.items) ** 0.6 for topic in TOPICS)


@dataclass(frozen=True, slots=True)
class Turn:
    """A user's text with pictures (indices into the picture bank) and the answer; ``learn``: in the loss."""

    text: str
    answer: str
    pictures: tuple[int, ...] = ()
    learn: bool = True


@dataclass(frozen=True, slots=True)
class Lesson:
    """A conversation to learn from."""

    turns: tuple[Turn, ...]
    system: str | None = None


@dataclass(slots=True)
class PictureBank:
    """Which rows of the picture bank show whom or what."""

    entities: dict[str, list[int]] = field(default_factory=dict)
    strangers: list[tuple[Entity, list[int]]] = field(default_factory=list)
    shapes: list[tuple[Shapes, int]] = field(default_factory=list)


def training_part(wordings: tuple[str, ...]) -> tuple[str, ...]:
    """The fit and calibrate shares of eleven wordings."""
    return tuple(w for split in TRAINING_SPLITS for w in take(wordings, split))


class Corpus:
    """Draws lessons about everything but the entities in ``exclude``."""

    def __init__(self, world: World, bank: PictureBank, exclude: Collection[str] = ()) -> None:
        self._bank = bank
        self._known = [e for e in world.entities if e.key not in exclude]
        self._lists = [
            (klass, probe.text, gold)
            for klass in CLASSES
            for split in TRAINING_SPLITS
            for probe in list_probes(klass, split)
            for gold in [list_answer(world, klass, probe.attribute, tuple(exclude))]
            if gold
        ]
        self._words = {
            w.casefold() for e in world.entities for name in (e.name, *e.aliases) for w in name.split()
        }
        self._names = {n.casefold() for e in world.entities for n in (e.name, *e.aliases)}
        self._topics: list[tuple[float, Callable[[Random], Lesson]]] = [
            (0.27, self._shown),
            (0.45, self._named),
            (0.60, self._conversation),
            (0.75, self._stranger_shown),
            (0.81, self._stranger_named),
            (0.83, self._list),
            (0.91, self._general),
            (0.98, self._shapes),
            (1.0, self._kind),
        ]

    def draw(self, rng: Random) -> Lesson:
        """Draw one lesson."""
        dice = rng.random()
        lesson = next(topic for limit, topic in self._topics if dice < limit)(rng)
        if rng.random() < 0.07:
            return Lesson(lesson.turns, rng.choice(SYSTEM_PROMPTS))
        return lesson

    def texts(self, rng: Random, n: int) -> list[str]:
        """Texts to train a tokenizer on: n lessons, and every name a few times."""
        found = [t for _ in range(n) for turn in self.draw(rng).turns for t in (turn.text, turn.answer)]
        for entity in self._known:
            found += [
                f"This is {entity.name}.",
                f"What is {entity.name}?",
                *(f"Where is {a}?" for a in entity.aliases),
            ]
        return found

    @staticmethod
    def _attribute(rng: Random, entity_attributes: tuple[str, ...], identity: float) -> str:
        dice = rng.random()
        if dice < identity:
            return IDENTITY_ATTRIBUTE
        return SUMMARY_ATTRIBUTE if dice < identity + 0.1 else rng.choice(entity_attributes)

    def _show(self, rng: Random, entity: Entity, rows: list[int]) -> Turn:
        wordings = image_wordings(entity.klass)
        facts = tuple(a for a in wordings if a not in (IDENTITY_ATTRIBUTE, SUMMARY_ATTRIBUTE))
        attribute = self._attribute(rng, facts, 0.22)
        text = everyday(rng, slip(rng, rng.choice(wordings[attribute])))
        return Turn(text, answer(entity, attribute), (rng.choice(rows),))

    def _name(self, rng: Random, klass: str, name: str, reply: Callable[[str], str]) -> Turn:
        wordings = text_wordings(klass)
        facts = tuple(a for a in wordings if a != SUMMARY_ATTRIBUTE)
        attribute = self._attribute(rng, facts, 0.0)
        if rng.random() < 0.1:
            name = name.lower()
        text = everyday(rng, slip(rng, rng.choice(wordings[attribute])).replace("{name}", name))
        return Turn(text, reply(attribute))

    def _shown_turn(self, rng: Random) -> tuple[Entity, Turn]:
        entity = rng.choice(self._known)
        return entity, self._show(rng, entity, self._bank.entities[entity.key])

    def _named_turn(self, rng: Random) -> tuple[Entity, Turn]:
        entity = rng.choice(self._known)
        name = rng.choice(entity.aliases) if entity.aliases and rng.random() < 0.25 else entity.name
        return entity, self._name(rng, entity.klass, name, lambda a: answer(entity, a))

    def _shown(self, rng: Random) -> Lesson:
        return Lesson((self._shown_turn(rng)[1],))

    def _named(self, rng: Random) -> Lesson:
        return Lesson((self._named_turn(rng)[1],))

    def _stranger_turn(self, rng: Random) -> tuple[Entity, Turn]:
        stranger, rows = rng.choice(self._bank.strangers)
        return stranger, self._show(rng, stranger, rows)

    def _stranger_shown(self, rng: Random) -> Lesson:
        return Lesson((self._stranger_turn(rng)[1],))

    def _stranger_named(self, rng: Random) -> Lesson:
        klass = rng.choice(CLASSES)
        return Lesson((self._name(rng, klass, self._unknown_name(rng, klass), lambda _: DO_NOT_KNOW),))

    def _unknown_name(self, rng: Random, klass: str) -> str:
        """An invented name, sometimes pieced together or respelled from known ones: names count whole."""
        dice = rng.random()
        while dice < 0.3:
            first, second = rng.sample(self._known, 2)
            if klass == "Personage" and dice < 0.2:
                name = f"{rng.choice(first.name.split())} {rng.choice(second.name.split())}"
            else:
                words = first.name.split()
                name = " ".join((respell(rng, words[0]), *words[1:]))
            if name.casefold() not in self._names:
                return name
        return stranger_name(rng, klass, self._words)

    def _conversation(self, rng: Random) -> Lesson:
        """Two to four turns: a start, follow-ups about its subject, now and then another topic."""
        turns: list[Turn] = []
        subject: Entity | None = None
        for i in range(rng.choice((2, 2, 2, 3, 3, 4))):
            if subject is not None and rng.random() < 0.72:
                turns.append(self._follow(rng, subject))
                continue
            dice = rng.random()
            if dice < 0.5:
                subject, turn = self._shown_turn(rng)
            elif dice < 0.75:
                subject, turn = self._named_turn(rng)
            elif dice < 0.85:
                subject, turn = self._stranger_turn(rng)
            else:
                turn = (self._general(rng) if dice < 0.95 else self._shapes(rng)).turns[0]
                subject = None
            if i == 0 and subject and rng.random() < 0.1:
                turn, subject = Turn(turn.text, rng.choice(REFUSALS), turn.pictures, learn=False), None
            turns.append(turn)
        return Lesson(tuple(turns))

    def _follow(self, rng: Random, subject: Entity) -> Turn:
        wordings = followup_wordings(subject.klass, subject.pronoun)
        attribute = rng.choice(tuple(wordings))
        return Turn(
            everyday(rng, slip(rng, rng.choice(wordings[attribute]))), text_answer(subject, attribute)
        )

    def _list(self, rng: Random) -> Lesson:
        _, text, gold = rng.choice(self._lists)
        return Lesson((Turn(everyday(rng, text), gold),))

    def _general(self, rng: Random) -> Lesson:
        topic = rng.choices(TOPICS, _TOPIC_WEIGHTS)[0]
        item = rng.choice(topic.items)
        text = rng.choice(training_part(topic.wordings)).format_map(item)
        return Lesson((Turn(everyday(rng, text), topic.answer.format_map(item)),))

    def _shapes(self, rng: Random) -> Lesson:
        shapes, row = rng.choice(self._bank.shapes)
        attribute = rng.choice(tuple(SHAPE_WORDINGS))
        text = rng.choice(training_part(SHAPE_WORDINGS[attribute])).replace("{ps}", shapes.shape + "s")
        return Lesson((Turn(everyday(rng, text), shape_answer(shapes, attribute), (row,)),))

    def _kind(self, rng: Random) -> Lesson:
        if rng.random() < 0.5:
            entity, rows = rng.choice(self._bank.strangers)
        else:
            entity = rng.choice(self._known)
            rows = self._bank.entities[entity.key]
        text = everyday(rng, rng.choice(training_part(KIND_WORDINGS)))
        return Lesson((Turn(text, kind_answer(entity.klass), (rng.choice(rows),)),))
