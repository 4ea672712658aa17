"""Targets, tables, the results page and the plots of the gate's benchmark."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from benchmarks.gate_plots import draw_all
from benchmarks.gate_report import INFORMATIVE, TARGETS, page, row, tables
from workers.verification.metrics import rate

ISSUE_KEYS = {
    "leak", "changed_answers", "tpr", "fpr", "misroute", "tpr_name", "fpr_name", "base_identity",
    "expert_over_refusal", "guard_catch_rate", "interim_seconds", "p95_ms_127", "p95_ms_10000", "leak_10000",
    "changed_answers_10000", "fpr_10000", "add_expert_ms_10000", "attack_leak_max",
}  # fmt: skip


def as_dict(successes: int, n: int) -> dict[str, Any]:
    found = rate(successes, n)
    return {"value": found.value, "n": found.n, "low": found.low, "high": found.high, "reason": None}


def level(experts: int) -> dict[str, Any]:
    names = ("leak", "changed_answers", "tpr", "fpr", "tpr_name", "fpr_name", "misroute")
    return {
        "experts": experts,
        **{name: as_dict(1, 100) for name in names},
        "changed_by_group": {"stranger": as_dict(1, 50)},
    }


def speed(experts: int) -> dict[str, Any]:
    return {
        "experts": experts,
        "n": 40,
        "p50": 1.0,
        "p95": 3.0,
        "p50_outside": 0.4,
        "p95_outside": 0.9,
        "p50_inside": None,
        "p95_inside": None,
        "inside": as_dict(0, 40),
    }


def attack(leaks: int) -> dict[str, Any]:
    found = as_dict(leaks, 20)
    return {
        "leak": found["value"],
        **{name: found[name] for name in ("n", "low", "high")},
        "base_leak": 0.5,
        "routed": as_dict(18, 20),
        "guarded": as_dict(1, 20),
    }


@pytest.fixture
def found() -> dict[str, Any]:
    values = dict.fromkeys(ISSUE_KEYS | {"doubtful_share_10000"}, 0.004)
    return {
        **values,
        "interim_seconds": None,
        "bytes_per_expert": 500_000,
        "memory": {"adapter": 400_000, "gate": 100_000},
        "attack": {"leet": attack(0), "crop": attack(3)},
        "rates": {"leak": as_dict(4, 1000)},
        "reasons": {"interim_seconds": "not measured yet"},
        "levels": [level(10), level(127)],
        "curve": [level(1_000)],
        "latency": {"127": speed(127), "1000": speed(1_000)},
        "experts": 127,
        "quick": False,
        "model": "0123456789abcdef",
        "date": "2026-01-01",
        "notes": {"real": "127 of 127 separate", "synthetic": "873 calibrated"},
    }


def target(key: str) -> Any:
    return next(t for t in TARGETS if t.key == key)


class TestRow:
    def test_falls_short(self, found: dict[str, Any]) -> None:
        _, measured, wanted, verdict = row(target("leak"), found)
        assert verdict == "FALLS SHORT"
        assert (wanted, "n=1000" in measured) == ("<= 0.002", True)

    def test_pass(self, found: dict[str, Any]) -> None:
        assert row(target("leak_10000"), found)[-1] == "pass"

    def test_not_measured_gives_the_reason_and_no_verdict(self, found: dict[str, Any]) -> None:
        _, measured, _, verdict = row(target("interim_seconds"), found)
        assert "not measured yet" in measured
        assert verdict == "–"

    def test_no_verdict_without_a_target(self, found: dict[str, Any]) -> None:
        for key in INFORMATIVE:
            assert row(target(key), found)[-2:] == ("", "")


def test_every_key_of_the_issue_has_a_line() -> None:
    assert {t.key for t in TARGETS} >= ISSUE_KEYS


def test_the_worst_attack_comes_first(found: dict[str, Any]) -> None:
    text = page(found, "python -m benchmarks.gate", ["gate_errors.png"])
    assert text.index("| crop |") < text.index("| leet |")
    assert "![gate_errors](gate_errors.png)" in text
    assert "873 calibrated" in text


def test_tables_have_a_line_for_everything(found: dict[str, Any]) -> None:
    main, levels, attacks, groups = tables(found)
    assert (main.row_count, levels.row_count, attacks.row_count, groups.row_count) == (len(TARGETS), 3, 2, 1)


def test_plots_are_pictures(found: dict[str, Any], tmp_path: Path) -> None:
    for path in draw_all(found, tmp_path):
        with Image.open(path) as picture:
            assert picture.width > 400
            assert len(set(picture.convert("L").resize((64, 64)).tobytes())) > 3
