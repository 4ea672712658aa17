"""The table: every pair, and what it must never allow."""

import itertools

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.db.models import REQUEST_STATES
from app.removal.states import (
    ENDED,
    FINAL,
    STAGES,
    TRANSITIONS,
    WAITING,
    WORKING,
    Event,
    State,
    overall_percent,
    sources,
    start_event,
    target,
)

MAIN_PATH = [
    (Event.SUBMIT, State.IN_REVIEW),
    (Event.APPROVE, State.APPROVED),
    (Event.ENQUEUE, State.QUEUED),
    (Event.START_PREPARE, State.PREPARING),
    (Event.START_TRAIN, State.TRAINING),
    (Event.START_CALIBRATE, State.CALIBRATING),
    (Event.START_VERIFY, State.VERIFYING),
    (Event.START_PUBLISH, State.PUBLISHING),
    (Event.ACTIVATE, State.ACTIVE),
    (Event.REVOKE, State.REVOKED),
]


def test_database_knows_the_same_states() -> None:
    assert set(REQUEST_STATES) == {state.value for state in State}


def test_main_path() -> None:
    state = State.RECEIVED
    for event, expected in MAIN_PATH:
        new = target(state, event)
        assert new is expected
        state = new


@pytest.mark.parametrize(("state", "event"), list(itertools.product(State, Event)))
def test_every_pair(state: State, event: Event) -> None:
    new = target(state, event)
    assert (new is not None) == (state in sources(event))
    assert new is TRANSITIONS.get((state, event))
    if state in ENDED:
        only = state is State.FAILED and event is Event.REVOKE
        assert (new is not None) == only, "an ended request stays as it is"
    if state is State.ACTIVE:
        assert (new is not None) == (event is Event.REVOKE)
    if event is Event.ACTIVATE:
        assert (new is not None) == (state is State.PUBLISHING)
    if event is Event.APPROVE:
        assert (new is not None) == (state is State.IN_REVIEW)
    if event is Event.CANCEL:
        assert (new is not None) == (state not in FINAL and state is not State.PUBLISHING)
    if new in WORKING:
        assert event is start_event(STAGES[WORKING.index(new)])
        assert state in (State.QUEUED, *WORKING)


def test_no_way_to_work_without_approval() -> None:
    """From `received`, without `approve`, no state in which anything is done can be reached."""
    reachable, todo = {State.RECEIVED}, [State.RECEIVED]
    while todo:
        state = todo.pop()
        for event in set(Event) - {Event.APPROVE}:
            new = target(state, event)
            if new is not None and new not in reachable:
                reachable.add(new)
                todo.append(new)
    assert reachable == {State.RECEIVED, State.IN_REVIEW, State.REJECTED, State.CANCELLED}


def test_every_state_that_is_not_final_has_a_way_on_and_a_way_out() -> None:
    for state in set(State) - FINAL:
        assert any(target(state, event) for event in Event)
    for state in WAITING:
        assert target(state, Event.CANCEL) is State.CANCELLED


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)  # a busy machine is no failure
@given(st.lists(st.sampled_from(Event), max_size=60))
def test_random_sequences_keep_the_rules(events: list[Event]) -> None:
    state, approved, published, failed = State.RECEIVED, False, False, False
    for event in events:
        new = target(state, event)
        if new is None:
            continue
        approved |= event is Event.APPROVE
        published |= event is Event.START_PUBLISH
        failed |= new is State.FAILED
        state = new
        assert approved or state in (State.RECEIVED, State.IN_REVIEW, State.REJECTED, State.CANCELLED)
        assert published or state not in (State.PUBLISHING, State.ACTIVE)
        assert published or failed or state is not State.REVOKED


def test_overall_percent_grows_over_the_stages() -> None:
    found = [overall_percent(stage, percent) for stage in STAGES for percent in (0, 50, 100)]
    assert found == sorted(found)
    assert (found[0], found[-1]) == (0, 100)
    assert overall_percent("train", 1000) == overall_percent("train", 100)
    assert overall_percent("train", -5) == overall_percent("train", 0)
