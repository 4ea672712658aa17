from __future__ import annotations

import gc
import subprocess
import sys
import weakref

import pytest

from app.kit.memory import settle

SCRIPT = """
import ctypes
from app.kit.memory import give_back

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
blocks = [libc.malloc(100_000) for _ in range(500)]
for block in blocks:
    ctypes.memset(block, 1, 100_000)
for block in blocks[:-1]:  # the last one keeps the heap from shrinking by itself
    libc.free(block)
before = resident()
give_back()
print(before - resident())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_returns_what_was_freed() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 40_000_000


class Node:
    """May refer to itself."""

    def __init__(self) -> None:
        self.next: Node | None = None


def test_what_is_there_is_not_looked_at_again_and_what_comes_later_is() -> None:
    kept = Node()
    assert any(held is kept for held in gc.get_objects())
    try:
        settle()
        assert all(held is not kept for held in gc.get_objects())
        later = Node()
        later.next = later
        gone = weakref.ref(later)
        del later
        gc.collect()
        assert gone() is None
    finally:
        gc.unfreeze()
