"""A process whose clock is wrong."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from datetime import datetime, timedelta

from app.kit import clock


def set_clock(seconds: float) -> Callable[[], None]:
    """Move this process's clock, as a bad time server does: every later use of `utcnow` and `time.time`.

    `time.monotonic` goes on as it was, and so does the database's clock. Import what is to be used first.

    Returns:
        What puts it right again.
    """
    real, real_time, by = clock.utcnow, time.time, timedelta(seconds=seconds)
    places = [vars(module) for module in list(sys.modules.values()) if vars(module).get("utcnow") is real]

    def wrong() -> datetime:
        return real() + by

    def set_right() -> None:
        time.time = real_time
        for names in places:
            names["utcnow"] = real

    for names in places:
        names["utcnow"] = wrong
    time.time = lambda: real_time() + seconds
    return set_right
