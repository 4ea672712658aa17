"""Memory that was freed, given back to the system."""

import contextlib
import ctypes


def give_back() -> None:
    """Have the C library return freed memory to the system; without effect where it cannot (not glibc).

    After much was read, copied and freed again, glibc keeps the heap's size.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
