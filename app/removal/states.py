"""The life of a removal request as one table: (state, event) -> state."""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class State(StrEnum):
    """Where a request is."""

    RECEIVED = "received"
    IN_REVIEW = "in_review"
    APPROVED = "approved"
    QUEUED = "queued"
    PREPARING = "preparing"
    TRAINING = "training"
    CALIBRATING = "calibrating"
    VERIFYING = "verifying"
    PUBLISHING = "publishing"
    ACTIVE = "active"
    REJECTED = "rejected"
    CANCELLED = "cancelled"
    FAILED = "failed"
    REVOKED = "revoked"
    NEEDS_EVIDENCE = "needs_evidence"
    NEEDS_ATTENTION = "needs_attention"


class Event(StrEnum):
    """What can happen to a request."""

    SUBMIT = "submit"
    APPROVE = "approve"
    REJECT = "reject"
    ENQUEUE = "enqueue"
    START_PREPARE = "start_prepare"
    START_TRAIN = "start_train"
    START_CALIBRATE = "start_calibrate"
    START_VERIFY = "start_verify"
    START_PUBLISH = "start_publish"
    ACTIVATE = "activate"
    NEED_EVIDENCE = "need_evidence"
    NEED_ATTENTION = "need_attention"
    ADD_EVIDENCE = "add_evidence"
    RETRY = "retry"
    CANCEL = "cancel"
    FAIL = "fail"
    REVOKE = "revoke"


WORKING: Final = (State.PREPARING, State.TRAINING, State.CALIBRATING, State.VERIFYING, State.PUBLISHING)
"""States in which a worker holds the request, in the order of the stages."""

STAGES: Final = ("prepare", "train", "calibrate", "verify", "publish")
"""The worker's stages; stage i is done in state `WORKING[i]`."""

WAITING: Final = frozenset({State.IN_REVIEW, State.NEEDS_EVIDENCE, State.NEEDS_ATTENTION})
"""States that wait for a person: no outbox row and no lease is expected."""

FINAL: Final = frozenset({State.ACTIVE, State.REJECTED, State.CANCELLED, State.FAILED, State.REVOKED})
"""States that need no further work (`active` and `failed` can still be revoked)."""

ENDED: Final = FINAL - {State.ACTIVE}
"""States in which the request has no expert and a new request for the subject starts afresh.

Only in `failed` is the subject still refused: it was approved, and the fault is ours.
"""

_START: Final = (
    Event.START_PREPARE,
    Event.START_TRAIN,
    Event.START_CALIBRATE,
    Event.START_VERIFY,
    Event.START_PUBLISH,
)


def _table() -> dict[tuple[State, Event], State]:
    table: dict[tuple[State, Event], State] = {
        (State.RECEIVED, Event.SUBMIT): State.IN_REVIEW,
        (State.IN_REVIEW, Event.APPROVE): State.APPROVED,
        (State.IN_REVIEW, Event.REJECT): State.REJECTED,
        (State.IN_REVIEW, Event.ADD_EVIDENCE): State.IN_REVIEW,
        (State.APPROVED, Event.ENQUEUE): State.QUEUED,
        (State.NEEDS_EVIDENCE, Event.ADD_EVIDENCE): State.APPROVED,
        (State.NEEDS_EVIDENCE, Event.REJECT): State.REJECTED,
        (State.NEEDS_ATTENTION, Event.ADD_EVIDENCE): State.APPROVED,
        (State.NEEDS_ATTENTION, Event.RETRY): State.APPROVED,
        (State.NEEDS_ATTENTION, Event.REJECT): State.REJECTED,
        (State.PUBLISHING, Event.ACTIVATE): State.ACTIVE,
        (State.ACTIVE, Event.REVOKE): State.REVOKED,
        (State.FAILED, Event.REVOKE): State.REVOKED,
    }
    # A stage starts from the queue (resuming after a checkpoint), or from any stage up to itself (a later
    # attempt that takes over where an earlier one died). Only `train` may be entered from further on: a
    # calibration or verification that fell short has the expert trained again.
    for i, (start, target) in enumerate(zip(_START, WORKING, strict=True)):
        for source in (State.QUEUED, *WORKING[: i + 1]):
            table[source, start] = target
    table[State.CALIBRATING, Event.START_TRAIN] = State.TRAINING
    table[State.VERIFYING, Event.START_TRAIN] = State.TRAINING

    for state in (State.QUEUED, *WORKING):
        table[state, Event.NEED_ATTENTION] = State.NEEDS_ATTENTION
        table[state, Event.FAIL] = State.FAILED
    for state in WORKING[:-1]:
        table[state, Event.NEED_EVIDENCE] = State.NEEDS_EVIDENCE
    for state in (State.NEEDS_ATTENTION, State.APPROVED):
        table[state, Event.FAIL] = State.FAILED
    for state in State:
        # Once publishing has begun the expert may be live: wait for `active`, then revoke.
        if state not in FINAL and state is not State.PUBLISHING:
            table[state, Event.CANCEL] = State.CANCELLED
    return table


TRANSITIONS: Final[Mapping[tuple[State, Event], State]] = MappingProxyType(_table())
"""Every transition there is. A pair that is not here is illegal."""


def target(state: State, event: Event) -> State | None:
    """Return where `event` takes a request in `state`, or None if that is not allowed."""
    return TRANSITIONS.get((state, event))


def sources(event: Event) -> tuple[State, ...]:
    """Return the states in which `event` is allowed."""
    return tuple(state for state, known in TRANSITIONS if known is event)


def start_event(stage: str) -> Event:
    """Return the event that starts `stage` (one of `STAGES`)."""
    return _START[STAGES.index(stage)]


# Share of the whole work that is done when a stage begins, in percent; the last entry is the end.
_SPANS: Final = (0, 10, 60, 75, 95, 100)


def overall_percent(stage: str, percent: float) -> int:
    """Return the share of the whole work done, 0..100, at `percent` (0..100) of `stage`."""
    i = STAGES.index(stage)
    inside = min(max(percent, 0.0), 100.0) / 100
    return int(_SPANS[i] + (_SPANS[i + 1] - _SPANS[i]) * inside)
