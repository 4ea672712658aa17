"""Stages of a request from its state changes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from app.removal.states import State
from app.removal.timeline import remaining_seconds, timeline

START = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class Move:
    to_state: str | None
    created_at: datetime


def moves(*states: str) -> list[Move]:
    """State changes two seconds apart."""
    return [Move(state, START + timedelta(seconds=2 * i)) for i, state in enumerate(states)]


def shown(*states: str, at: int = 100) -> list[tuple[str, float | None]]:
    found = timeline(moves(*states), State(states[-1]), START + timedelta(seconds=at))
    return [(stage.progress, stage.seconds) for stage in found]


WORK = ("queued", "preparing", "training", "calibrating", "verifying", "publishing")


def test_queued() -> None:
    assert shown("received", "queued") == [("ahead", None)] * 5


def test_at_work() -> None:
    assert shown("queued", "preparing", "training", at=9) == [
        ("done", 2), ("current", 5), ("ahead", None), ("ahead", None), ("ahead", None)
    ]  # fmt: skip


def test_active() -> None:
    assert shown(*WORK, "active") == [("done", 2)] * 5


def test_trained_again_counts_from_the_last_time() -> None:
    found = shown("queued", "preparing", "training", "calibrating", "verifying", "training", at=13)
    assert found == [("done", 2), ("current", 3), ("ahead", None), ("ahead", None), ("ahead", None)]


def test_resumed_after_a_checkpoint() -> None:
    """The retry begins with training: what was prepared before is still done."""
    assert shown("queued", "preparing", "needs_attention", "queued", "training", at=9)[0] == ("done", 2)


def test_stopped() -> None:
    assert shown("queued", "preparing", "training", "failed") == [
        ("done", 2), ("stopped", 2), ("ahead", None), ("ahead", None), ("ahead", None)
    ]  # fmt: skip


def test_rejected_before_any_work() -> None:
    assert shown("received", "in_review", "rejected") == [("ahead", None)] * 5


USUAL = {"prepare": 10.0, "train": 60.0, "calibrate": 4.0, "verify": 20.0, "publish": 2.0}


def left(*states: str, at: int, usual: dict[str, float] | None = None) -> float | None:
    stages = timeline(moves(*states), State(states[-1]), START + timedelta(seconds=at), usual or USUAL)
    return remaining_seconds(stages)


def test_remaining_is_what_is_left_of_the_usual_times() -> None:
    """Not of the time since it was queued: it may have waited for a worker."""
    assert left("queued", "preparing", "training", at=4 + 25) == 35 + 4 + 20 + 2


def test_remaining_of_a_stage_that_takes_longer_than_usual() -> None:
    assert left("queued", "preparing", "training", at=4 + 500) == 4 + 20 + 2


def test_remaining_without_a_history_of_every_stage() -> None:
    assert left("queued", "preparing", at=5, usual={"prepare": 10.0}) is None
