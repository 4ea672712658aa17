"""What bounds the serving ratios, as far as the run that measured them tells it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.lumoe.row import LOOKAHEAD
from benchmarks.serving_engine import BASE, OURS, OURS_BASE, PEFT

Json = Mapping[str, Any]
_ROWS = 16
"""Rows of the batch that the targets are about, each with an expert of its own."""


def bound_lines(engine: Json | None, http: Json | None) -> list[str]:
    """Return Markdown lines for one model; none if neither part was measured."""
    lines = [] if engine is None else [*_mixed(engine), *_together(engine)]
    lines += [] if http is None else _chat(http)
    return ["What bounds these ratios:", "", *lines, ""] if lines else []


def least_mixed(engine: Json) -> float | None:
    """Return the least ratio of 16 rows with 16 experts to 16 of ours without, where reading is not hidden.

    1 + e / w + 16 e / b / t, with e the bytes of an expert, w those of the model, b bytes read a second and t
    the seconds of a step of the batch without. None without these batches.
    """
    seconds = _seconds(engine, _ROWS, _ROWS)
    if seconds is None:
        return None
    expert, weights = engine["step"]["expert_bytes"], engine["step"]["weight_bytes"]
    reading = _ROWS * expert / engine["machine"]["bytes_per_second"]
    return float(1 + expert / weights + reading / (seconds[OURS_BASE] / engine["tokens"]))


def _mixed(engine: Json) -> list[str]:
    seconds, least = _seconds(engine, _ROWS, _ROWS), least_mixed(engine)
    if seconds is None or least is None:
        return []
    return [
        f"- {_ROWS} rows with {_ROWS} experts: a core that multiplies does not read at the same time, so "
        f"that the experts' multiply-adds and the reading of their matrices add up, to {least:.3f} times "
        f"our base rows' at the least; it is {seconds[OURS] / seconds[OURS_BASE]:.3f}.",
        f"- PEFT takes {seconds[PEFT] / seconds[BASE]:.2f} times as long as the unwrapped model and "
        f"{seconds[PEFT] / seconds[OURS_BASE]:.2f} times as long as our base rows: so many times faster than "
        "it an expert that costs nothing would be.",
    ]


def _together(engine: Json) -> list[str]:
    alone = _seconds(engine, 1, _ROWS)
    gains = []
    for rows in (_ROWS, 64):
        seconds = _seconds(engine, rows, _ROWS)
        if alone is not None and seconds is not None:
            gains.append(f"{rows * alone[BASE] / seconds[BASE]:.1f} times as many with {rows} rows")
    if not gains:
        return []
    return [f"- Many at a time: the unwrapped model itself writes {' and '.join(gains)} as with one."]


def _chat(http: Json) -> list[str]:
    worth = []
    for experts, o in http["overhead"].items():
        token = o["own_ms"]["median"] / http["tokens"]
        worth.append(f"{o['added_ms']['median'] / token:.1f} ({int(experts):,} experts)")
    if not worth:
        return []
    return [
        "- What `/chat` adds is as long as the bare model with our linear layers takes for "
        f"{', '.join(worth)} tokens. The guard reads up to {LOOKAHEAD} tokens beyond a limit that cuts an "
        "answer, for a name that may have begun before it; an answer that ends by itself has none of that."
    ]


def _seconds(engine: Json, rows: int, experts: int) -> dict[str, float] | None:
    """Return the median seconds of each way with so many rows and experts; None if that was not measured."""
    for cell in engine["cells"]:
        if (cell["batch"], cell["experts"]) == (rows, experts):
            return {name: spread["median"] for name, spread in cell["seconds"].items()}
    return None
