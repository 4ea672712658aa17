"""Memory of a process that lives long: what was freed, and what is not worth looking through."""

import contextlib
import ctypes
import gc


def give_back() -> None:
    """Have the C library return freed memory to the system; without effect where it cannot (not glibc).

    After much was read, copied and freed again, glibc keeps the heap's size.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def settle() -> None:
    """Leave everything that there is now out of garbage collections to come.

    For a process that has loaded what it keeps. A full collection stops all of its threads, and looks at
    every object: with torch, a web framework and a small model that takes a third of a second of one core.
    """
    gc.collect()
    gc.freeze()
