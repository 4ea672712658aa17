"""Finished cells on disk, and the figures they add up to."""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from workers.verification.metrics import degradation

Matrix = list[list[float | None]]


@dataclass(frozen=True, slots=True)
class CellKey:
    """One request carried out by one method: ``k`` counts requests of an order from 1 (0: before any)."""

    sequence: str
    order: str
    method: str
    k: int


class Cells:
    """Cells appended to a JSONL file, one line each, flushed; a torn last line of a killed run is ignored."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.found: dict[CellKey, dict[str, Any]] = {}
        if path.is_file():
            for line in path.read_text("utf-8").splitlines():
                try:
                    cell = json.loads(line)
                    key = CellKey(**cell["key"])
                except (ValueError, KeyError, TypeError):
                    continue
                self.found[key] = cell

    def append(self, key: CellKey, values: Mapping[str, Any]) -> None:
        """Write one finished cell; a later one with the same key takes its place."""
        cell = {"key": asdict(key), **values}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        torn = self._path.is_file() and not self._path.read_bytes().endswith(b"\n")
        with self._path.open("a", encoding="utf-8") as file:
            file.write(("\n" if torn else "") + json.dumps(cell) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.found[key] = cell

    def done(self, sequence: str, order: str, method: str) -> int:
        """Return how many requests, from the first without a gap, are finished."""
        k = 0
        while CellKey(sequence, order, method, k + 1) in self.found:
            k += 1
        return k

    def of(self, sequence: str, order: str, method: str) -> list[dict[str, Any]]:
        """Return a method's cells in the order of requests, those without a gap from the first."""
        n = self.done(sequence, order, method)
        return [self.found[CellKey(sequence, order, method, k)] for k in range(1, n + 1)]


def remaining_seconds(
    found: Iterable[Mapping[str, Any]], missing: Iterable[CellKey], overall: float = 10.0
) -> float:
    """Estimate the time that missing cells take: the mean of the method's finished ones, else of all."""
    by_method: dict[str, list[float]] = {}
    for cell in found:
        by_method.setdefault(cell["key"]["method"], []).append(float(cell["wall"]))
    every = [wall for walls in by_method.values() for wall in walls]
    default = statistics.fmean(every) if every else overall
    return sum(
        statistics.fmean(by_method[key.method]) if key.method in by_method else default for key in missing
    )


def matrix(cells: Sequence[Mapping[str, Any]], rows: Sequence[str], figure: str) -> tuple[Matrix, list[int]]:
    """Return a figure by row (request) and column (after unlearning k), and the k of each column.

    Columns are those after which more than the request itself was measured, and the last. None: not measured,
    because the row's request had not come yet.
    """
    full = [cell for cell in cells if not cell["own_only"]]
    values = [[_value(cell, name, figure) for cell in full] for name in rows]
    return values, [int(cell["key"]["k"]) for cell in full]


def _value(cell: Mapping[str, Any], row: str, figure: str) -> float | None:
    rates = cell["rows"].get(row)
    if rates is None:
        return None
    value = rates[figure]["value"]
    return None if value is None else float(value)


def degradations(cells: Sequence[Mapping[str, Any]], figure: str = "fq") -> dict[str, float]:
    """Return |P(M_t, t) - P(M_T, t)| for every request t before the last T (METHOD.md section 6).

    Only where both were measured on equally many questions: who is removed later is asked about no more.
    """
    found = {}
    for cell in cells[:-1]:
        name, last = cell["request"], cells[-1]
        then, now = (c["rows"].get(name, {}).get(figure) for c in (cell, last))
        if then and now and then["n"] == now["n"] and then["value"] is not None and now["value"] is not None:
            found[name] = degradation(float(then["value"]), float(now["value"]))
    return found


def last_column(cells: Sequence[Mapping[str, Any]], figure: str) -> list[float]:
    """Return a figure of every request after the last one."""
    if not cells:
        return []
    values = [_value(cells[-1], name, figure) for name in cells[-1]["rows"]]
    return [value for value in values if value is not None]


def method_figures(orders: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Return a method's figures: those over all orders, the first order's matrices, and each order's own.

    ``fq_final`` and ``mu_final`` are the worst row of the last column over all orders, ``degradation_max``
    the largest movement of any earlier request's forget quality or utility.
    """
    each = {order: _order_figures(cells) for order, cells in orders.items() if cells}
    if not each:
        return {}
    first = next(iter(each.values()))
    worst: dict[str, Any] = {
        f"{name}_final": min((v for o in each.values() for v in o[f"{name}_final_rows"]), default=None)
        for name in ("fq", "mu", "mu_rel", "mu_rel_neighbours")
    }
    means = {
        f"{name}_final_mean": _mean([v for o in each.values() for v in o[f"{name}_final_rows"]])
        for name in ("fq", "mu", "mu_rel_neighbours")
    }
    moved = [o["degradation_max"] for o in each.values() if o["degradation_max"] is not None]
    last = [o["mia_auc"] for o in each.values() if o["mia_auc"] is not None]
    both = [o["both_modalities"] for o in each.values() if o["both_modalities"] is not None]
    return {
        "fq": first["fq"],
        "mu": first["mu"],
        **worst,
        **means,
        "degradation_max": max(moved, default=None),
        "seconds_per_request": _mean([s for o in each.values() for s in o["seconds"]]),
        "cpu_seconds_per_request": _mean([s for o in each.values() for s in o["cpu_seconds"]]),
        "peak_mb": max(p for o in each.values() for p in o["peaks"]),
        "both_modalities": min(both, default=None),
        "mia_auc": max(last, key=lambda auc: abs(auc - 0.5), default=None),
        "orders": each,
    }


def _order_figures(cells: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    rows = [cell["request"] for cell in cells]
    if cells[-1].get("all_rows"):  # retrained once, for all requests
        rows = list(cells[-1]["rows"])
    last = cells[-1]
    fq, columns = matrix(cells, rows, "fq")
    moved = [*degradations(cells, "fq").values(), *degradations(cells, "mu").values()]
    return {
        "rows": rows,
        "columns": columns,
        "fq": fq,
        "mu": matrix(cells, rows, "mu")[0],
        "mu_rel_neighbours": matrix(cells, rows, "mu_rel_neighbours")[0],
        **{
            f"{name}_final_rows": last_column(cells, name)
            for name in ("fq", "mu", "mu_rel", "mu_rel_neighbours")
        },
        "degradation_max": max(moved, default=None),
        "seconds": [float(cell["seconds"]) for cell in cells],
        "cpu_seconds": [float(c["cpu_seconds"]) for c in cells if c.get("cpu_seconds") is not None],
        "seconds_per_subject": sum(float(c["seconds"]) for c in cells)
        / sum(int(c["subjects"]) for c in cells),
        "peaks": [float(cell["peak_mb"]) for cell in cells],
        "both_modalities": last["both_modalities"]["value"],
        "mia_auc": last["mia"]["loss"]["value"],
        "mia": last["mia"],
        "intervals": last["rows"],
        "notes": [cell["notes"] for cell in cells],
        "examples": last["examples"],
    }


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None
