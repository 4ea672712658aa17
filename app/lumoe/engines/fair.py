"""A bounded queue in which askers take turns: who sends much waits behind himself, not before others."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from typing import Generic, TypeVar

T = TypeVar("T")


class QueueFullError(Exception):
    """No more may wait, or no more of this asker's."""


class FairQueue(Generic[T]):
    """First come, first served for each asker; of several askers, one after the other (round robin).

    Args:
        most: how many may wait in all. One asker may have half of that, so that nobody can lock others out.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._share = max(1, most // 2)
        self._waiting: OrderedDict[str, deque[T]] = OrderedDict()
        self._count = 0
        self._closed = False
        self._changed = threading.Condition()

    def __len__(self) -> int:
        return self._count

    def put(self, asker: str, item: T) -> None:
        """Add an item. Raises `QueueFullError`."""
        with self._changed:
            held = self._waiting.get(asker)
            if self._count >= self._most:
                raise QueueFullError(f"{self._count} requests are waiting already")
            if held is not None and len(held) >= self._share:
                raise QueueFullError(f"{len(held)} requests of this key are waiting already")
            if held is None:
                held = self._waiting[asker] = deque()
            held.append(item)
            self._count += 1
            self._changed.notify()

    def remove(self, asker: str, item: T) -> None:
        """Take an item out that need not be served any more; nothing happens if it is no longer there."""
        with self._changed:
            held = self._waiting.get(asker)
            if held is None or item not in held:
                return
            held.remove(item)
            self._count -= 1
            if not held:
                del self._waiting[asker]

    def get(self, timeout: float | None = None) -> T | None:
        """Return the next item; None after `timeout` seconds (None: never), or once the queue is closed."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            while not self._waiting:
                left = None if deadline is None else deadline - time.monotonic()
                if self._closed or (left is not None and left <= 0):
                    return None
                self._changed.wait(left)
            asker, held = next(iter(self._waiting.items()))
            item = held.popleft()
            self._count -= 1
            if held:
                self._waiting.move_to_end(asker)
            else:
                del self._waiting[asker]
            return item

    def close(self) -> list[T]:
        """Let nobody wait for an item any more; return what was waiting."""
        with self._changed:
            left = [item for held in self._waiting.values() for item in held]
            self._waiting.clear()
            self._count, self._closed = 0, True
            self._changed.notify_all()
            return left
