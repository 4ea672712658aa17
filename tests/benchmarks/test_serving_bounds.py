from __future__ import annotations

from typing import Any

import pytest

from benchmarks.serving_bounds import bound_lines, least_mixed


def _cell(batch: int, base: float, peft: float, ours: float, own: float) -> dict[str, Any]:
    medians = {"unwrapped": base, "peft": peft, "ours": ours, "ours, base rows": own}
    seconds = {name: {"median": median} for name, median in medians.items()}
    return {"batch": batch, "experts": 16, "seconds": seconds}


ENGINE: dict[str, Any] = {
    "tokens": 10,
    "step": {"expert_bytes": 5e6, "weight_bytes": 400e6},
    "machine": {"bytes_per_second": 20e9},
    "cells": [_cell(1, 0.4, 0.5, 0.35, 0.3), _cell(16, 1.0, 1.7, 0.9, 0.64)],
}
HTTP: dict[str, Any] = {
    "tokens": 64,
    "overhead": {"127": {"added_ms": {"median": 250.0}, "own_ms": {"median": 1600.0}}},
}


def test_reading_and_multiplying_add_up() -> None:
    """5 / 400 of the multiply-adds, and 16 x 5 MB at 20 GB/s in a step of 64 ms."""
    assert least_mixed(ENGINE) == pytest.approx(1 + 0.0125 + 0.0625)
    assert least_mixed(ENGINE | {"cells": []}) is None


def test_says_what_the_run_tells() -> None:
    told = " ".join(bound_lines(ENGINE, HTTP))
    assert "add up, to 1.075 times our base rows' at the least; it is 1.406" in told
    assert "PEFT takes 1.70 times" in told
    assert "2.66 times as long as our base rows" in told
    assert "6.4 times as many with 16 rows" in told
    assert "64 rows" not in told
    assert "10.0 (127 experts) tokens" in told


def test_nothing_was_measured() -> None:
    assert bound_lines(None, None) == []
    assert bound_lines(ENGINE | {"cells": []}, None) == []
