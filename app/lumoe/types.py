"""The values that pass between the parts of the method: conversations, answers, decisions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from PIL.Image import Image

Role = Literal["system", "user", "assistant"]
Strength = Literal["strong", "weak"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation; `images` are RGB pictures shown in that turn, before its text."""

    role: Role
    text: str
    images: tuple[Image, ...] = ()


Conversation = tuple[Message, ...]


def ask(text: str, *images: Image) -> Conversation:
    """Return the conversation of one user turn that shows `images` and asks `text`."""
    return (Message("user", text, images),)


def then(conversation: Conversation, answer: str, text: str, *images: Image) -> Conversation:
    """Return `conversation` continued by an assistant's `answer` and a further user turn."""
    return (*conversation, Message("assistant", answer), Message("user", text, images))


def pictures_of(conversations: Sequence[Conversation]) -> list[Image]:
    """Return every picture of `conversations`, in the order in which the model reads them."""
    return [image for turns in conversations for turn in turns for image in turn.images]


@dataclass(frozen=True, slots=True)
class Generation:
    """What the model wrote: the decoded text, its token ids without the end token, and why it stopped."""

    text: str
    token_ids: tuple[int, ...]
    finish_reason: Literal["stop", "length", "cancelled"]
    prompt_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Evidence:
    """One reason to think that a conversation concerns an expert's subject.

    `strength` is `strong` (alone enough to route) or `weak` (the base model answers, watched by the guard
    for what it knows of the subject). `turn` counts messages from 0. `score` and `threshold` are comparable
    within one `kind` only: for `picture`, the chance (0..1) that the base model names the subject; for
    `likeness`, cosine similarity of pictures; for `name`, the share of letters that agree; for
    `description`, phrases found; `held` carries over the score of an earlier turn. `how` says more: how a
    name was found, the kind of what is held.
    """

    expert_id: str
    kind: Literal["name", "picture", "likeness", "description", "held"]
    strength: Strength
    score: float
    threshold: float
    turn: int
    how: str = ""

    @property
    def by_picture(self) -> bool:
        """Whether the base model's recognition of a picture is all there is to it."""
        return "picture" in (self.kind, self.how)


@dataclass(frozen=True, slots=True)
class Decision:
    """Who answers: an expert's id, or `None` for the base model; `watch` are the weakly indicated experts.

    `doubtful`: a picture came so near to a subject that the base model had to be asked whom it shows.
    """

    expert_id: str | None = None
    evidence: tuple[Evidence, ...] = ()
    watch: frozenset[str] = field(default_factory=frozenset)
    doubtful: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """The text that may leave the house, and how it came about.

    `guarded` is true when the output guard discarded what the base model or an expert had written;
    `token_ids` are then those of the text that replaced it (empty for a fixed refusal).
    """

    text: str
    token_ids: tuple[int, ...]
    decision: Decision
    guarded: bool
    finish_reason: Literal["stop", "length", "cancelled"]
    generation: int
    answered_by: str | None = None
    prompt_tokens: int = 0
