"""What was measured of all requests together: after every publish, and by how many experts there are."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sqlalchemy.orm import Session

from app.accounts.principal import Principal
from app.removal.figures import LifelongRepository

LifelongMetric = Literal["forget_quality", "leak"]
GATE_LOWEST, GATE_BINS = -6.0, 24
GATE_EDGES = tuple(GATE_LOWEST * (1 - i / GATE_BINS) for i in range(GATE_BINS + 1))
"""Bins of the gate's scores: decimal logarithms of a chance, from one in a million to certain."""
_Z = 1.959963984540054  # the 97.5th percentile of the standard normal distribution


@dataclass(frozen=True, slots=True)
class Cell:
    """One request's figure in one generation; `first`: by the verification before it went live."""

    request_id: str
    generation: int
    value: float | None
    n: int
    passed: bool | None
    first: bool


@dataclass(frozen=True, slots=True)
class HeatMap:
    """Requests (oldest first) x generations (oldest first); a pair that was not measured has no cell."""

    metric: LifelongMetric
    requests: tuple[str, ...]
    generations: tuple[int, ...]
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Point:
    """The error with so many experts: pooled over the prompts of one generation, with its 95 % interval."""

    generation: int
    experts: int
    metric: str
    error: float
    n: int
    low: float
    high: float


def wilson(mean: float, n: int) -> tuple[float, float]:
    """Return the 95 % Wilson score interval of a mean of `n` values in 0..1 (Wilson 1927).

    Exact values between 0 and 1 (half points) vary less than a coin with the same mean, so the interval is
    at least as wide as it need be.
    """
    if n <= 0:
        return 0.0, 1.0
    centre = (mean + _Z * _Z / (2 * n)) / (1 + _Z * _Z / n)
    half = _Z / (1 + _Z * _Z / n) * math.sqrt(mean * (1 - mean) / n + _Z * _Z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


@dataclass(frozen=True, slots=True)
class OwnViews:
    """How held-out views of the subjects themselves score at the gate, as a histogram.

    `edges`: of the bins, decimal logarithms of the chance that the base model names the subject; what lies
    below the lowest is in the first bin.
    """

    requests: int
    views: int
    edges: tuple[float, ...]
    counts: tuple[int, ...]


class LifelongService:
    """One transaction's view of all that was measured, as far as a key may see it."""

    def __init__(self, session: Session) -> None:
        self._rows = LifelongRepository(session)

    def heat_map(
        self, principal: Principal, metric: LifelongMetric, *, requests: int = 40, generations: int = 40
    ) -> HeatMap:
        """Return a figure of the newest requests over the newest generations in which any was measured."""
        shown = self._rows.measured_requests(principal.sees, metric, requests)
        again = self._rows.remeasured(shown, metric, generations)
        first = self._rows.verified(shown, metric)
        numbers = sorted({row[1] for row in (*again, *first)})[-generations:]
        cells = [Cell(*row, first=True) for row in first if row[1] in numbers]
        known = {(cell.request_id, cell.generation) for cell in cells}
        cells += [Cell(*row, first=False) for row in again if row[1] in numbers and row[:2] not in known]
        have = {cell.request_id for cell in cells}
        return HeatMap(metric, tuple(r for r in sorted(shown) if r in have), tuple(numbers), tuple(cells))

    def own_views(self, principal: Principal, *, requests: int = 200) -> OwnViews:
        """Return how the subjects' own views scored when the newest active requests were verified."""
        found = self._rows.own_views(principal.sees, requests)
        scores = [score for row in found for score in row]
        counts = [0] * GATE_BINS
        for score in scores:
            place = int((score - GATE_LOWEST) / -GATE_LOWEST * GATE_BINS)
            counts[min(max(place, 0), GATE_BINS - 1)] += 1
        return OwnViews(len(found), len(scores), GATE_EDGES, tuple(counts))

    def curve(self, principal: Principal, *, points: int = 24) -> list[Point]:
        """Return the error of each generation that was measured, evenly thinned out to `points` a metric.

        The error is what should not be: the leak, one less the forget quality, answers of the utility set
        that changed.
        """
        numbers = _thinned(self._rows.measured_generations(principal.sees), points)
        experts = self._rows.experts_in(numbers)
        found = []
        for row in self._rows.pooled(principal.sees, numbers):
            error = 1 - row.mean if row.metric == "forget_quality" else row.mean
            low, high = wilson(min(max(error, 0.0), 1.0), row.n)
            found.append(Point(row.generation, experts[row.generation], row.metric, error, row.n, low, high))
        return found


def _thinned(numbers: Sequence[int], points: int) -> list[int]:
    if len(numbers) <= points:
        return list(numbers)
    step = (len(numbers) - 1) / (points - 1)
    return sorted({numbers[round(i * step)] for i in range(points)})
