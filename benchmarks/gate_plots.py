"""Plots of the gate's benchmark: error and latency against the number of experts, one bar per attack."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from benchmarks.output import save_plot

_TALLEST = 0.03


def draw_all(found: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write the plots as PNG into `folder`; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    return [
        _errors(found, folder / "gate_errors.png"),
        _latency(found, folder / "gate_latency.png"),
        _attacks(found, folder / "gate_attacks.png"),
    ]


def _errors(found: Mapping[str, Any], path: Path) -> Path:
    """Error rates with their intervals against the number of experts, on a logarithmic axis."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2))
    levels = _by_number(found)
    for name, label in (("leak", "leak"), ("changed_answers", "changed answers")):
        _with_interval(left, levels, name, label)
    for name, label in (
        ("fpr", "false positives, picture"),
        ("fpr_name", "false positives, name"),
        ("misroute", "misrouted"),
    ):
        _with_interval(right, levels, name, label)
    left.axhline(0.002, color="grey", linewidth=0.8, linestyle="--", label="target, 127 experts")
    left.set_title("What reaches the caller (gate, expert and guard)")
    right.axhline(0.01, color="grey", linewidth=0.8, linestyle="--", label="target, picture")
    right.set_title("The gate alone")
    for axes in (left, right):
        axes.set_xscale("log")
        axes.set_xlabel("experts enrolled")
        axes.set_ylabel("rate, 95 % interval")
        axes.set_ylim(0, _TALLEST)  # with one expert there are too few prompts for a short interval
        axes.legend(fontsize=8)
    return save_plot(figure, path)


def _by_number(found: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    levels = {level["experts"]: level for level in (*found["levels"], *found["curve"])}
    return [levels[n] for n in sorted(levels)]


def _with_interval(axes: Axes, levels: list[Mapping[str, Any]], name: str, label: str) -> None:
    shown = [level for level in levels if level[name]["value"] is not None]
    if not shown:
        return
    x = [level["experts"] for level in shown]
    y = [level[name]["value"] for level in shown]
    down = [level[name]["value"] - level[name]["low"] for level in shown]
    up = [level[name]["high"] - level[name]["value"] for level in shown]
    axes.errorbar(x, y, yerr=[down, up], marker="o", markersize=4, capsize=3, linewidth=1, label=label)


def _latency(found: Mapping[str, Any], path: Path) -> Path:
    """Milliseconds per decision against the number of experts, inside and outside the doubtful band."""
    figure, axes = plt.subplots(figsize=(6.4, 4.2))
    speeds = sorted(found["latency"].values(), key=lambda speed: speed["experts"])
    for key, label in (
        ("p95_outside", "p95 outside the doubtful band"),
        ("p50_outside", "p50 outside"),
        ("p95_inside", "p95 inside"),
    ):
        shown = [(speed["experts"], speed[key]) for speed in speeds if speed[key] is not None]
        if shown:
            axes.plot(*zip(*shown, strict=True), marker="o", markersize=4, linewidth=1, label=label)
    axes.axhline(2.0, color="grey", linewidth=0.8, linestyle="--", label="target outside, 10,000 experts")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("experts enrolled")
    axes.set_ylabel("milliseconds, one thread")
    axes.set_title("Time to decide, picture features at hand")
    axes.legend(fontsize=8)
    return save_plot(figure, path)


def _attacks(found: Mapping[str, Any], path: Path) -> Path:
    """One bar per attack: leak with interval, and what the model gives away without protection."""
    attacks = sorted(found["attack"].items(), key=lambda pair: (pair[1]["leak"] or 0.0, pair[0]))
    figure, axes = plt.subplots(figsize=(8, 0.24 * max(len(attacks), 4) + 1.2))
    at = range(len(attacks))
    axes.barh(at, [a["base_leak"] or 0.0 for _, a in attacks], color="lightgrey", label="without a gate")
    axes.barh(at, [a["leak"] or 0.0 for _, a in attacks], color="firebrick", height=0.5, label="leak")
    for i, (_, a) in enumerate(attacks):
        axes.plot((a["low"], a["high"]), (i, i), color="black", linewidth=0.8)
    axes.axvline(0.01, color="grey", linewidth=0.8, linestyle="--", label="target")
    axes.set_yticks(list(at), [name for name, _ in attacks], fontsize=7)
    axes.set_xlabel("share of prompts with anything forgotten in the answer")
    axes.set_xlim(0, 1)
    axes.legend(fontsize=8, loc="lower right")
    return save_plot(figure, path)
