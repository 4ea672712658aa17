"""Where a request is, stage by stage: what took how long, and how long what is left usually takes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

from app.removal.states import STAGES, WORKING, State

Progress = Literal["ahead", "current", "done", "stopped"]


class Moved(Protocol):
    """A state change, as far as the timeline needs it."""

    @property
    def to_state(self) -> str | None:
        """The new state."""

    @property
    def created_at(self) -> datetime:
        """When."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One of the worker's stages: seconds that it took or has taken so far, and its median of late."""

    name: str
    progress: Progress
    started_at: datetime | None
    seconds: float | None
    usual: float | None


def timeline(
    moves: Sequence[Moved], state: State, now: datetime, usual: Mapping[str, float] | None = None
) -> list[Stage]:
    """Return the five stages of a request from its state changes (oldest first).

    A stage that was entered more than once counts from the last time. After a retry, stages whose results
    were kept are not entered again: they are done as soon as a later one has begun.
    """
    spans = _spans(moves)
    at = WORKING.index(state) if state in WORKING else None
    last = max(spans, key=lambda stage: spans[stage][0], default=None)
    found = []
    for i, name in enumerate(STAGES):
        started, ended = spans.get(name, (None, None))
        if state is State.ACTIVE or (at is not None and i < at):
            progress: Progress = "done"
        elif at is not None:
            progress = "current" if i == at else "ahead"
        else:
            progress = _at_rest(name, last, state)
        if progress == "ahead":
            started = ended = None
        seconds = ((ended or now) - started).total_seconds() if started is not None else None
        found.append(Stage(name, progress, started, seconds, (usual or {}).get(name)))
    return found


def remaining_seconds(stages: Sequence[Stage]) -> float | None:
    """Return how long the rest usually takes; None if that cannot be told of some stage that is not done.

    What takes longer than usual by now is taken to be nearly done.
    """
    left = 0.0
    for stage in stages:
        if stage.progress in ("current", "ahead"):
            if stage.usual is None:
                return None
            left += max(stage.usual - (stage.seconds or 0.0), 0.0)
    return left


def _at_rest(name: str, last: str | None, state: State) -> Progress:
    """What a stage is while no worker holds the request: `last` is the one that was entered last."""
    if last is None or state in (State.RECEIVED, State.IN_REVIEW, State.APPROVED, State.QUEUED):
        return "ahead"
    i, reached = STAGES.index(name), STAGES.index(last)
    if state is State.REVOKED:
        return "done" if i <= reached else "ahead"
    return "done" if i < reached else "stopped" if i == reached else "ahead"


def _spans(moves: Sequence[Moved]) -> dict[str, tuple[datetime, datetime | None]]:
    spans: dict[str, tuple[datetime, datetime | None]] = {}
    current: str | None = None
    for move in moves:
        if current is not None:
            spans[current] = (spans[current][0], move.created_at)
            current = None
        if move.to_state in WORKING:
            current = STAGES[WORKING.index(State(move.to_state))]
            spans[current] = (move.created_at, None)
    return spans
