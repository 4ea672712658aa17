"""Plots of the lifelong benchmark: the paper's matrices as heat maps, and curves over the requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

FIGURES = (("fq", "forget quality"), ("mu", "model utility"))
_WRITTEN_OUT = 8
"""Matrices of up to this many rows show their numbers."""


def draw_all(found: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write the plots as PNG into `folder`; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn: list[Path] = []
    parts = {str(found["sequence"]): found}
    if "entities" in found:
        parts["entities"] = found["entities"]
    for sequence, part in parts.items():
        for order in part["orders"]:
            shown = {name: m["orders"][order] for name, m in part["methods"].items() if order in m["orders"]}
            if shown:
                stem = f"lifelong_{sequence}_{order}"
                drawn.append(heat_maps(shown, folder / f"{stem}_matrices.png", f"{sequence}, order {order}"))
                drawn.append(curves(shown, folder / f"{stem}_curves.png", f"{sequence}, order {order}"))
    return drawn


def heat_maps(shown: Mapping[str, Mapping[str, Any]], path: Path, title: str) -> Path:
    """Draw one matrix per method and figure: rows are requests, columns the state after request k."""
    figure, grid = plt.subplots(
        len(FIGURES), len(shown), figsize=(1.9 * len(shown) + 1.4, 4.6), squeeze=False, layout="constrained"
    )
    image = None
    for row, (key, label) in zip(grid, FIGURES, strict=True):
        for axes, (name, m) in zip(row, shown.items(), strict=True):
            values = [[float("nan") if v is None else v for v in line] for line in m[key]]
            image = axes.imshow(values, vmin=0, vmax=1, cmap="viridis", aspect="auto")
            _label_cells(axes, values)
            axes.set_xticks(range(len(m["columns"])), [_column(m, k) for k in m["columns"]], fontsize=7)
            first = axes is row[0]
            few = len(m["rows"]) <= _WRITTEN_OUT
            axes.set_yticks(
                range(len(m["rows"])) if few else [],
                m["rows"] if few and first else [""] * len(m["rows"]) if few else [],
                fontsize=7,
            )
            if key == "fq":
                axes.set_title(name, fontsize=9)
            if first:
                axes.set_ylabel(label, fontsize=9)
    figure.supxlabel("after unlearning request k", fontsize=9)
    figure.suptitle(title, fontsize=10)
    if image is not None:
        figure.colorbar(image, ax=grid.ravel().tolist(), shrink=0.8, fraction=0.02)
    return _save(figure, path)


def _column(m: Mapping[str, Any], k: int) -> str:
    """Return a column's label; a model that was retrained once stands after the last request."""
    return str(len(m["rows"])) if len(m["columns"]) == 1 and len(m["rows"]) > 1 else str(k)


def _label_cells(axes: Axes, values: Sequence[Sequence[float]]) -> None:
    if len(values) > _WRITTEN_OUT:
        return
    for i, line in enumerate(values):
        for j, value in enumerate(line):
            if value == value:  # not NaN
                colour = "white" if value < 0.6 else "black"
                axes.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=6.5, color=colour)


def curves(shown: Mapping[str, Mapping[str, Any]], path: Path, title: str) -> Path:
    """Draw the mean over all requests so far, and how the first one fares, against the number of requests."""
    figure, grid = plt.subplots(2, len(FIGURES), figsize=(11, 7.4), sharex=True, layout="constrained")
    for j, (key, label) in enumerate(FIGURES):
        for name, m in shown.items():
            at = [int(_column(m, k)) for k in m["columns"]]
            columns = list(zip(*m[key], strict=True))
            means = [_mean([v for v in column if v is not None]) for column in columns]
            first = [column[0] if column[0] is not None else float("nan") for column in columns]
            style = _style(name)
            grid[0][j].plot(at, means, label=name, **style)
            grid[1][j].plot(at, first, label=name, **style)
        grid[0][j].set_title(f"{label}, mean over the requests so far", fontsize=10)
        grid[1][j].set_title(f"{label} of the first request", fontsize=10)
    for axes in grid.ravel():
        axes.set_ylim(-0.03, 1.03)
        axes.grid(alpha=0.25)
        longest = max((len(m["rows"]) for m in shown.values()), default=1)
        if longest <= _WRITTEN_OUT:
            axes.set_xticks(range(1, longest + 1))
    for axes in grid[1]:
        axes.set_xlabel("requests carried out")
    grid[0][0].legend(fontsize=7, ncols=2)
    figure.suptitle(title, fontsize=11)
    return _save(figure, path)


def _style(name: str) -> dict[str, Any]:
    """Ours in front and thick, the gold standard a mark of its own, the others thin."""
    if name == "lethe":
        return {"marker": "o", "linewidth": 2.4, "color": "black", "zorder": 5}
    if name == "gold":
        return {"marker": "*", "markersize": 13, "linestyle": "none", "color": "goldenrod", "zorder": 6}
    return {"marker": ".", "linewidth": 1.2}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else float("nan")


def _save(figure: Figure, path: Path) -> Path:
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path
