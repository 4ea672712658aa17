from __future__ import annotations

import threading
import time

import pytest

from app.lumoe.engines.fair import FairQueue, QueueFullError


def drained(waiting: FairQueue[str]) -> list[str]:
    found = []
    while (item := waiting.get(timeout=0)) is not None:
        found.append(item)
    return found


class TestFairQueue:
    def test_askers_take_turns(self) -> None:
        waiting: FairQueue[str] = FairQueue(20)
        for item in ("a1", "a2", "a3", "a4", "b1", "c1", "c2"):
            waiting.put(item[0], item)
        assert drained(waiting) == ["a1", "b1", "c1", "a2", "c2", "a3", "a4"]
        assert len(waiting) == 0

    def test_bounds(self) -> None:
        waiting: FairQueue[str] = FairQueue(4)
        for item in ("a1", "a2", "b1"):
            waiting.put(item[0], item)
        with pytest.raises(QueueFullError, match="of this key"):
            waiting.put("a", "a3")
        waiting.put("c", "c1")
        with pytest.raises(QueueFullError, match="4 requests are waiting"):
            waiting.put("d", "d1")
        assert drained(waiting) == ["a1", "b1", "c1", "a2"]

    def test_what_is_removed_makes_room(self) -> None:
        waiting: FairQueue[str] = FairQueue(2)
        waiting.put("a", "a1")
        waiting.remove("a", "a1")
        waiting.remove("a", "a1")
        waiting.remove("b", "b1")
        assert len(waiting) == 0
        waiting.put("a", "a2")
        assert drained(waiting) == ["a2"]

    def test_waits_for_an_item(self) -> None:
        waiting: FairQueue[str] = FairQueue(2)
        threading.Timer(0.02, waiting.put, ("a", "late")).start()
        assert waiting.get(timeout=20) == "late"
        before = time.monotonic()
        assert waiting.get(timeout=0.01) is None
        assert time.monotonic() - before >= 0.01

    def test_closing_wakes_who_waits_and_returns_what_is_left(self) -> None:
        waiting: FairQueue[str] = FairQueue(4)
        waiting.put("a", "a1")
        assert waiting.close() == ["a1"]
        assert waiting.get() is None
