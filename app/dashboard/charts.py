"""Charts as inline SVG, drawn on the server from rows that were measured. Colours are the style sheet's."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

from markupsafe import Markup

from app.chat.schemas import GateScores
from app.dashboard.svg import drawing, label, line, tag
from app.removal.lifelong import HeatMap, OwnViews, Point

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
    side = float(min(24, max(9, int((_WIDTH - left - 8) / max(1, len(shown.generations))))))
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
        x, y = left + side * columns[cell.generation] + 1, top + side * rows[cell.request_id] + 1
        told = "not measurable" if cell.value is None else f"{cell.value:.3f}, n = {cell.n}"
        when = "before it went live" if cell.first else "again"
        square = f"M{x:g} {y:g}h{side - 2:g}v{side - 2:g}h-{side - 2:g}z"  # less text than a rect
        parts.append(
            tag(
                "path",
                tag("title", f"generation {cell.generation}, {when}: {told}"),
                d=square,
                class_=f"cell {_shade(shown, cell.value)}",
            )
        )
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


def gate_histogram(scores: GateScores | None, own: OwnViews) -> Markup | None:
    """Draw how pictures score: the subjects' own held-out views above, others' below, and the threshold.

    Both have the same axis, the chance that the base model names the subject, and heights of their own.
    None if there is neither.
    """
    above = own if own.views else None
    below = scores if scores is not None and scores.pictures else None
    if above is None and below is None:
        return None
    left, right, top, tall = 48.0, _WIDTH - 16, 22.0, 120.0
    middle = top + tall + 26
    bottom = middle + tall if below is not None and above is not None else top + tall

    def x(log_chance: float) -> float:
        lowest = own.edges[0]
        return left + (right - left) * (min(max(log_chance, lowest), 0.0) - lowest) / -lowest

    parts = []
    if above is not None:
        parts += _bars(above.edges, above.counts, x, top + tall, tall, "bar own", "views of the subjects")
        parts.append(label(left + 4, top - 8, f"the subjects themselves: {above.views} held-out views"))
    if below is not None:
        parts += _bars(below.edges, below.counts, x, bottom, tall, "bar", "pictures of others")
        told = f"others: {below.pictures} pictures, {below.never_asked} of them not drawn"
        parts.append(label(left + 4, bottom - tall - 8, told))
    for exponent in range(math.ceil(own.edges[0]), 1):
        parts.append(label(x(exponent), bottom + 18, f"{10.0**exponent:g}", anchor="middle"))
    axis = "chance that the base model names the subject"
    parts.append(label((left + right) / 2, bottom + 36, axis, anchor="middle"))
    if scores is not None:
        for limit, text, kind, anchor in (
            (scores.watched_from, "watched", "watch", "end"),
            (scores.threshold, "claimed", "limit", None),
        ):
            at = x(math.log10(limit) if limit > 0 else own.edges[0])
            parts += [
                line(at, top - 2, at, bottom, kind),
                label(at + (-4 if anchor else 4), top + 10, text, anchor=anchor),
            ]
    title = "Gate scores of the subjects' own views and of others' pictures, with the threshold"
    return drawing(_WIDTH, bottom + 44, title, parts)


def _bars(
    edges: Sequence[float],
    counts: Sequence[int],
    x: Callable[[float], float],
    bottom: float,
    tall: float,
    class_: str,
    what: str,
) -> list[Markup]:
    """Draw a histogram that stands on `bottom`; its highest bar is `tall`."""
    most = max(*counts, 1)
    left, right = x(edges[0]), x(edges[-1])
    parts = [line(left, bottom, right, bottom, "grid")]
    parts.append(label(left - 6, bottom - tall + 8, str(most), anchor="end"))
    for i, count in enumerate(counts):
        x0, x1, height = x(edges[i]), x(edges[i + 1]), tall * count / most
        told = f"chance {10 ** edges[i]:.2g} to {10 ** edges[i + 1]:.2g}: {count} {what}"
        parts.append(
            tag(
                "rect",
                tag("title", told),
                x=x0 + 1,
                y=bottom - height,
                width=x1 - x0 - 2,
                height=height,
                class_=class_,
            )
        )
    return parts


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
