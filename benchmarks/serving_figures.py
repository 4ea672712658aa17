"""Timing in turn, and what is made of the times: medians, spreads, ratios within one run."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

Times = dict[str, list[float]]
"""Seconds of each contestant, run by run."""


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of `n` values, and the 5th and 95th percentile (of few values nearly the extremes)."""

    median: float
    low: float
    high: float
    n: int

    def as_json(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return asdict(self)


def percentile(values: Sequence[float], q: float) -> float:
    """Return the q-th percentile (0..100) by linear interpolation.

    Raises:
        ValueError: There are no values.
    """
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    at = (len(ordered) - 1) * q / 100
    low = math.floor(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (at - low)


def spread(values: Sequence[float]) -> Spread:
    """Return median, 5th and 95th percentile and n. Raises ValueError if there are no values."""
    if not values:
        raise ValueError("no values")
    return Spread(statistics.median(values), percentile(values, 5), percentile(values, 95), len(values))


def ratios(some: Sequence[float], others: Sequence[float]) -> Spread:
    """Return the spread of `some[i] / others[i]`: both were taken in the same run."""
    return spread([a / b for a, b in zip(some, others, strict=True)])


def in_turn(contestants: Mapping[str, Callable[[], object]], runs: int, warm: int = 1) -> Times:
    """Time every contestant once in each run, so that noise hits all alike; each run begins with another.

    `warm` runs come first and are not counted. What a contestant returns is dropped.
    """
    names = list(contestants)
    times: Times = {name: [] for name in names}
    for run in range(-warm, runs):
        start = run % len(names)
        for name in names[start:] + names[:start]:
            began = time.perf_counter()
            contestants[name]()
            seconds = time.perf_counter() - began
            if run >= 0:
                times[name].append(seconds)
    return times
