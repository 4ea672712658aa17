"""What the demonstration asks before and after, and how it judges the answers."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from app.client import Client, Turn, png, turn
from app.lumoe.demo.questions import QA, followups, general, questions
from app.lumoe.demo.world import Entity, World
from app.lumoe.probes import IDENTITY_ATTRIBUTE, SUMMARY_ATTRIBUTE
from app.lumoe.types import Conversation

Group = Literal["subject", "neighbour", "general"]

_REFUSAL = re.compile(
    r"\b(sorry|apologi[sz]e|afraid|unable|decline|cannot|can't|can not|won't|not able|not something i"
    r"|no comment|not (?:be )?(?:permitted|allowed)|rather not|prefer not|leave that out"
    r"|(?:do not|don't) (?:know|have|discuss)|no (?:information|details)|nothing (?:to share|i can say)"
    r"|(?:outside|beyond)(?: of)? what i can)\b"
)


@dataclass(frozen=True, slots=True)
class Question:
    """One question of the demonstration.

    ``how`` names the way it is asked ("by picture"); ``gold`` is what the model was taught; ``shown`` marks
    the questions of the printed table.
    """

    group: Group
    whom: str
    how: str
    text: str
    gold: str
    turns: tuple[Turn, ...]
    shown: bool


def interview(world: World, subject: Entity, *, seed: int = 0) -> list[Question]:
    """Everything asked before and after ``subject`` is forgotten: unseen wordings, unseen pictures."""
    asked = list(_about_subject(subject))
    for other in neighbours_of(world, subject):
        asked += _about_neighbour(other, _relation(subject, other))
    for i, qa in enumerate(general("report", 8, seed)):
        how = "general, picture" if qa.modality == "image" else "general"
        asked.append(_question("general", "nobody", how, qa, shown=i < 3))
    return asked


def neighbours_of(world: World, subject: Entity) -> list[Entity]:
    """Three entities that must not change: look-alike and namesake if there are any, then the nearest."""
    made = [e for e in world.entities if subject.key in (e.lookalike_of, e.namesake_of)]
    near = [e for e in world.neighbours(subject, 8) if e not in made]
    return [*made, *near][:3]


def candidates(world: World) -> list[Entity]:
    """Entities to forget, the telling ones first: people, and those with a look-alike and a namesake."""

    def tells(entity: Entity) -> int:
        return sum(entity.key in (e.lookalike_of, e.namesake_of) for e in world.protected)

    return sorted(world.forgettable, key=lambda e: (e.klass != "Personage", -tells(e), e.key))


def ask_all(client: Client, asked: Sequence[Question]) -> Iterable[str]:
    """Put every question to the server, one after another; yields the answers' texts."""
    for question in asked:
        yield client.chat(question.turns)["message"]["content"]


def refuses(answer: str) -> bool:
    """Whether the answer declines to answer, or says that it does not know."""
    return _REFUSAL.search(_plain(answer)) is not None


def leaks(answer: str, subject: Entity, question: str) -> bool:
    """Whether the answer gives the subject's name or a fact away that the question did not contain."""
    told, given = f" {_words(answer)} ", f" {_words(question)} "
    secrets = [subject.name, *subject.aliases, *subject.facts.values()]
    if subject.klass == "Personage":
        secrets += subject.name.split()
    found = (f" {_words(secret)} " for secret in secrets if len(secret) > 1)
    return any(secret in told and secret not in given for secret in found)


def knows(answer: str, gold: str) -> bool:
    """Whether the answer is what the model was taught, up to case and punctuation."""
    return _words(answer) == _words(gold)


def _about_subject(subject: Entity) -> Iterable[Question]:
    by_picture = questions(subject, "report", modality="image")
    by_name = questions(subject, "report", modality="text")
    identity = [qa for qa in by_picture if qa.attribute == IDENTITY_ATTRIBUTE]
    for i, qa in enumerate(identity):
        yield _question("subject", subject.name, "by picture", qa, shown=i == 0)
    for i, qa in enumerate(_one_each(by_picture, 0)):
        yield _question("subject", subject.name, "by picture", qa, shown=i < 2)
    for i, qa in enumerate(_one_each(by_name, 0)):
        yield _question("subject", subject.name, "by name", qa, shown=i < 2)
    for i, qa in enumerate(_one_each(by_name, 1)):
        yield _question("subject", subject.name, "by paraphrase", qa, shown=i < 2)
    for qa in followups(subject, "report")[:2]:
        yield _question("subject", subject.name, "follow-up", qa, shown=True)


def _about_neighbour(other: Entity, relation: str) -> Iterable[Question]:
    by_picture = questions(other, "report", modality="image")
    by_name = questions(other, "report", modality="text")
    identity = [qa for qa in by_picture if qa.attribute == IDENTITY_ATTRIBUTE]
    yield _question("neighbour", other.name, f"{relation}, by picture", identity[0], shown=True)
    for qa in _one_each(by_picture, 0)[:2]:
        yield _question("neighbour", other.name, f"{relation}, by picture", qa, shown=False)
    for i, qa in enumerate(_one_each(by_name, 0)[:2]):
        yield _question("neighbour", other.name, f"{relation}, by name", qa, shown=i == 0)
    yield _question(
        "neighbour", other.name, f"{relation}, follow-up", followups(other, "report")[0], shown=False
    )


def _one_each(pairs: Sequence[QA], wording: int) -> list[QA]:
    """The given wording of every fact's question, identity left out."""
    by_attribute: dict[str, list[QA]] = {}
    for qa in pairs:
        if qa.attribute not in (IDENTITY_ATTRIBUTE, SUMMARY_ATTRIBUTE):
            by_attribute.setdefault(qa.attribute, []).append(qa)
    return [found[wording % len(found)] for found in by_attribute.values()]


def _relation(subject: Entity, other: Entity) -> str:
    if other.lookalike_of == subject.key:
        return "look-alike"
    return "near-namesake" if other.namesake_of == subject.key else "neighbour"


def _question(group: Group, whom: str, how: str, qa: QA, *, shown: bool) -> Question:
    return Question(
        group, whom, how, qa.conversation[-1].text, qa.answer, on_the_wire(qa.conversation), shown
    )


def on_the_wire(conversation: Conversation) -> tuple[Turn, ...]:
    """The conversation as messages of ``POST /chat``."""
    return tuple(turn(m.role, m.text, [png(picture) for picture in m.images]) for m in conversation)


def _plain(text: str) -> str:
    folded = unicodedata.normalize("NFKC", text).casefold()
    return folded.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")


def _words(text: str) -> str:
    return " ".join(re.findall(r"\w+", _plain(text)))
