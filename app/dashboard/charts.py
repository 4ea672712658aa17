"""Charts as inline SVG, drawn on the server from rows that were measured. Colours are the style sheet's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

from markupsafe import Markup

from app.chat.schemas import GateScores
from app.dashboard.svg import drawing, label, line, tag
from app.removal.lifelong import HeatMap, Point

_WIDTH = 720.0


class Measured(Protocol):
    """A figure with its interval, as `ScoreView` has it."""

    metric: str
    value: float | None
    n: int
    low: float | None
    high: float | None
    threshold: float | None
    passed: bool | None


def intervals(scores: Sequence[Measured]) -> Markup | None:
    """Draw figures between 0 and 1 with their 95 % intervals and thresholds; None if there is none."""
    rows = [s for s in scores if s.value is not None and 0 <= s.value <= 1]
    if not rows:
        return None
    left, right, step = 190.0, _WIDTH - 60, 26.0
    height = 34 + step * len(rows)

    def at(value: float) -> float:
        return left + (right - left) * min(max(value, 0.0), 1.0)

    parts = [line(at(tick / 4), 14, at(tick / 4), height - 18, "grid") for tick in range(5)]
    parts += [label(at(tick / 4), height - 4, f"{tick / 4:g}", anchor="middle") for tick in range(5)]
    for i, score in enumerate(rows):
        y = 26 + step * i
        mark = {True: "met", False: "missed"}.get(score.passed, "plain")  # type: ignore[arg-type]  # None: plain
        parts.append(label(left - 12, y + 4, score.metric.replace("_", " "), anchor="end"))
        if score.low is not None and score.high is not None:
            parts.append(line(at(score.low), y, at(score.high), y, f"interval {mark}"))
        if score.threshold is not None:
            parts.append(line(at(score.threshold), y - 9, at(score.threshold), y + 9, "limit"))
        if score.value is not None:
            parts.append(tag("circle", cx=at(score.value), cy=y, r="5", class_=f"dot {mark}"))
        parts.append(label(right + 10, y + 4, f"n={score.n}"))
    return drawing(_WIDTH, height, "Figures with their 95 % intervals; a bar marks the threshold", parts)


def heat_map(shown: HeatMap) -> Markup | None:
    """Draw requests by generations; the darker a cell, the worse. None if nothing was measured."""
    if not shown.cells:
        return None
    left, top = 130.0, 8.0
    side = min(24.0, max(9.0, (_WIDTH - left - 8) / max(1, len(shown.generations))))
    rows = {request: i for i, request in enumerate(shown.requests)}
    columns = {number: i for i, number in enumerate(shown.generations)}
    height = top + side * len(rows) + 26
    width = max(left + side * len(columns) + 12, 420.0)
    parts = [
        label(left - 8, top + side * (i + 0.72), f"…{request[-8:]}", anchor="end", class_="label id")
        for request, i in rows.items()
    ]
    every = max(1, math.ceil(len(columns) * 34 / (width - left)))
    parts += [
        label(left + side * (i + 0.5), height - 8, str(number), anchor="middle")
        for number, i in columns.items()
        if i % every == 0
    ]
    for cell in shown.cells:
        x, y = left + side * columns[cell.generation], top + side * rows[cell.request_id]
        told = "not measurable" if cell.value is None else f"{cell.value:.3f}, n = {cell.n}"
        when = "before it went live" if cell.first else "measured again"
        parts.append(
            tag(
                "rect",
                tag("title", f"{cell.request_id}, generation {cell.generation}: {told} ({when})"),
                x=x + 1, y=y + 1, width=side - 2, height=side - 2, class_=f"cell {_shade(shown, cell.value)}",
            )
        )  # fmt: skip
    title = f"{shown.metric.replace('_', ' ')} of {len(rows)} requests over {len(columns)} generations"
    return drawing(width, height, title, parts)


def _shade(shown: HeatMap, value: float | None) -> str:
    """Return the class of a cell: h0 is perfect, h5 is bad."""
    if value is None:
        return "unknown"
    error = 1 - value if shown.metric == "forget_quality" else value
    return f"h{sum(error > limit for limit in (0.0005, 0.02, 0.05, 0.1, 0.25))}"


def error_curve(points: Sequence[Point], metric: str) -> Markup | None:
    """Draw one metric's error with its interval against the number of experts; None without any point."""
    own = sorted((p for p in points if p.metric == metric), key=lambda p: (p.experts, p.generation))
    if not own:
        return None
    left, right, top, bottom = 56.0, _WIDTH - 20, 12.0, 190.0
    most = max(p.experts for p in own)
    ceiling = max(0.05, math.ceil(max(p.high for p in own) * 20) / 20)

    def x(experts: int) -> float:
        return left + (right - left) * (experts / max(1, most))

    def y(error: float) -> float:
        return bottom - (bottom - top) * min(error, ceiling) / ceiling

    parts = []
    for i in range(5):
        level = ceiling * i / 4
        parts += [
            line(left, y(level), right, y(level), "grid"),
            label(left - 8, y(level) + 4, f"{level:.3g}", anchor="end"),
        ]
    for experts in sorted({0, most // 2, most}):
        parts.append(label(x(experts), bottom + 18, str(experts), anchor="middle"))
    parts.append(label((left + right) / 2, bottom + 36, "experts in the generation", anchor="middle"))
    path = " ".join(f"{'M' if i == 0 else 'L'}{x(p.experts):.1f} {y(p.error):.1f}" for i, p in enumerate(own))
    parts += [line(x(p.experts), y(p.low), x(p.experts), y(p.high), "interval plain") for p in own]
    parts.append(tag("path", d=path, class_="curve"))
    for p in own:
        told = f"{p.experts} experts, generation {p.generation}: {p.error:.4f}, n = {p.n}"
        parts.append(
            tag("circle", tag("title", told), cx=x(p.experts), cy=y(p.error), r="4", class_="dot plain")
        )
    return drawing(_WIDTH, bottom + 44, f"Error of {metric.replace('_', ' ')} by number of experts", parts)


def gate_histogram(scores: GateScores) -> Markup | None:
    """Draw how others' pictures score (chance that the base model names a subject), with the threshold."""
    if not scores.pictures:
        return None
    left, right, top, bottom = 48.0, _WIDTH - 16, 12.0, 190.0
    lowest, highest = scores.edges[0], scores.edges[-1]
    most = max(*scores.counts, 1)

    def x(log_chance: float) -> float:
        share = (min(max(log_chance, lowest), highest) - lowest) / (highest - lowest)
        return left + (right - left) * share

    parts = [line(left, bottom, right, bottom, "grid"), label(left - 6, top + 8, str(most), anchor="end")]
    for i, count in enumerate(scores.counts):
        x0, x1 = x(scores.edges[i]), x(scores.edges[i + 1])
        tall = (bottom - top) * count / most
        told = f"chance {10 ** scores.edges[i]:.2g} to {10 ** scores.edges[i + 1]:.2g}: {count} pictures"
        parts.append(
            tag(
                "rect",
                tag("title", told),
                x=x0 + 1,
                y=bottom - tall,
                width=x1 - x0 - 2,
                height=tall,
                class_="bar",
            )
        )
    for exponent in range(math.ceil(lowest), math.floor(highest) + 1):
        parts.append(label(x(exponent), bottom + 18, f"{10.0**exponent:g}", anchor="middle"))
    parts.append(
        label((left + right) / 2, bottom + 36, "chance that the base model names a subject", anchor="middle")
    )
    for limit, text, kind in (
        (scores.watched_from, "watched", "watch"),
        (scores.threshold, "claimed", "limit"),
    ):
        at = x(math.log10(max(limit, 10**lowest)))
        parts += [line(at, top - 6, at, bottom, kind), label(at + 4, top + 6, text)]
    return drawing(_WIDTH, bottom + 44, "Gate scores of others' pictures, with the threshold", parts)


def against(score: float, threshold: float | None) -> Markup:
    """Draw one score as a bar, and the threshold as a mark on it."""
    top = max(1.0, score, threshold or 0.0)
    parts = [
        tag("rect", x="0", y="4", width="160", height="10", class_="track"),
        tag("rect", x="0", y="4", width=160 * max(score, 0.0) / top, height="10", class_="bar"),
    ]
    if threshold is not None:
        at = 160 * min(threshold, top) / top
        parts.append(line(at, 0, at, 18, "limit"))
    limit = "no threshold" if threshold is None else f"threshold {threshold:.3f}"
    body = drawing(160, 18, f"score {score:.3f}, {limit}", parts)
    return tag("span", body, class_="against")
