"""Plots of the serving benchmark: times and ratios of a mixed batch, and what `/chat` adds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt

from benchmarks.output import save_plot
from benchmarks.serving_report import MODELS


def draw_all(found: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write the plots of what was measured as PNG into `folder`; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    for model in MODELS:
        engine = found["jobs"].get(f"engine-{model}")
        if engine is not None:
            drawn.append(_engine(engine, found["limits"][model], folder / f"serving_{model}.png"))
    if any(name.startswith("http-") for name in found["jobs"]):
        drawn.append(_overhead(found["jobs"], folder / "serving_chat.png"))
    return drawn


def _engine(engine: Mapping[str, Any], limits: list[Mapping[str, float]], path: Path) -> Path:
    """Left: milliseconds a row of every way against the batch. Right: ours to unwrapped, and the limit."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2))
    most = max(c["experts"] for c in engine["cells"])
    shown = [c for c in engine["cells"] if c["experts"] == most]
    for name in dict.fromkeys(n for c in shown for n in c["seconds"]):
        cells = [c for c in shown if name in c["seconds"]]
        left.plot(
            [c["batch"] for c in cells],
            [1e3 * c["seconds"][name]["median"] / c["batch"] for c in cells],
            marker="o",
            markersize=4,
            linewidth=1,
            label=name,
        )
    left.set_xscale("log", base=2)
    left.set_yscale("log")
    left.set_xlabel("rows in the batch")
    left.set_ylabel(f"milliseconds a row, {engine['tokens']} tokens")
    left.set_title(f"{MODELS[engine['model']].removeprefix('the ')}, {most} experts loaded")
    left.legend(fontsize=8)
    for experts in sorted({c["experts"] for c in engine["cells"]}):
        cells = [c for c in engine["cells"] if c["experts"] == experts]
        middle = [c["ratio"]["ours_vs_base"]["median"] for c in cells]
        down = [m - c["ratio"]["ours_vs_base"]["low"] for m, c in zip(middle, cells, strict=True)]
        up = [c["ratio"]["ours_vs_base"]["high"] - m for m, c in zip(middle, cells, strict=True)]
        batches = [c["batch"] for c in cells]
        right.errorbar(
            batches, middle, yerr=[down, up], marker="o", markersize=4, capsize=3, linewidth=1,
            label=f"{experts} experts",
        )  # fmt: skip
    least = [s for s in limits if s["experts"] == most]
    right.plot(
        [s["batch"] for s in least],
        [s["least_ratio"] for s in least],
        color="grey",
        linestyle="--",
        linewidth=0.8,
        label="limit, most experts",
    )
    right.axhline(1.06, color="black", linewidth=0.8, linestyle=":", label="target, 16 rows")
    right.set_xscale("log", base=2)
    right.set_xlabel("rows in the batch")
    right.set_ylabel("ours / unwrapped, 90 % of the runs")
    right.set_title("A mixed batch against the unwrapped model")
    right.legend(fontsize=8)
    return save_plot(figure, path)


def _overhead(jobs: Mapping[str, Mapping[str, Any]], path: Path) -> Path:
    """Three bars per model and number of experts: the bare model, with our linear layers, and `/chat`."""
    figure, axes = plt.subplots(figsize=(7.2, 4.2))
    shown = (("bare_ms", "bare generate", "lightgrey"), ("own_ms", "bare, our linear layers", "grey"),
             ("chat_ms", "/chat", "firebrick"))  # fmt: skip
    names, heights = [], []
    for model in MODELS:
        http = jobs.get(f"http-{model}")
        for experts, o in http["overhead"].items() if http is not None else ():
            names.append(f"{model}\n{int(experts):,} experts\n{o['p50_ratio']:.3f}")
            heights.append([o[key]["median"] for key, _, _ in shown])
    for k, (_, label, colour) in enumerate(shown):
        at = [i + 0.28 * (k - 1) for i in range(len(names))]
        axes.bar(at, [h[k] for h in heights], width=0.26, color=colour, label=label)
    axes.set_xticks(range(len(names)), names)
    axes.set_yscale("log")
    axes.set_ylabel("milliseconds, p50, one at a time")
    axes.set_title("One answer over HTTP")
    axes.legend(fontsize=8)
    return save_plot(figure, path)
