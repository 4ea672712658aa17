"""After every fault: nothing lost, nothing doubled, an unbroken trail, and a doctor who finds nothing."""

from __future__ import annotations

import pytest

from app.removal.states import State
from tests.faults.catalogue import BRIEF, LONG, run
from tests.faults.house import House, Injected


def check(house: House, name: str, seed: int) -> None:
    outcome = run(house, name, seed)
    judged = outcome.judgement
    assert (judged.lost, judged.doubled, judged.unsound) == (0, 0, []), (name, seed, judged)
    assert outcome.injected > 0
    assert judged.requests > 0


@pytest.mark.parametrize("name", [fault.__name__ for fault in BRIEF])
def test_brief(house: House, name: str) -> None:
    check(house, name, seed=1)


@pytest.mark.long
@pytest.mark.parametrize("name", [fault.__name__ for fault in LONG])
def test_long(own_house: House, name: str) -> None:
    check(own_house, name, seed=1)


def test_what_is_lost_is_seen(house: House) -> None:
    """The judge itself: a request that nobody took up, and one whose expert is there but not active."""
    house.empty()
    waiting, half = house.file(), house.file()
    with house.replica():
        house.work(half, point="before:_activate")
        judged = house.judge(Injected({waiting: State.ACTIVE, half: State.CANCELLED}, 1))
    assert (judged.requests, judged.lost, judged.doubled) == (2, 2, 1)
