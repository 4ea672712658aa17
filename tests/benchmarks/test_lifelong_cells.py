"""Cells on disk, the matrices they make, and what is still to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.lifelong_cells import (
    CellKey,
    Cells,
    degradations,
    last_column,
    matrix,
    method_figures,
    remaining_seconds,
)


def rate(value: float | None) -> dict[str, Any]:
    return {"value": value, "n": 4, "low": 0.0, "high": 1.0, "reason": None}


def cell(k: int, fq: dict[str, float], mu: dict[str, float], **more: Any) -> dict[str, Any]:
    rows = {
        name: {figure: rate(mu[name]) for figure in ("mu", "mu_rel", "mu_rel_neighbours")}
        | {"fq": rate(fq[name]), "leak": rate(0.0)}
        for name in fq
    }
    return {
        "key": {"sequence": "tasks", "order": "AB", "method": "ga", "k": k},
        "request": list(fq)[-1],
        "subjects": 2,
        "seconds": 10.0 * k,
        "peak_mb": 100.0 + k,
        "wall": 20.0,
        "own_only": False,
        "notes": {},
        "rows": rows,
        "both_modalities": rate(0.5),
        "mia": {"loss": rate(0.2)},
        "examples": [],
        **more,
    }


FIRST = cell(1, {"A": 0.8}, {"A": 0.9})
SECOND = cell(2, {"A": 0.3, "B": 0.7}, {"A": 0.85, "B": 0.6})


def test_a_matrix_has_a_row_per_request_and_a_column_per_state() -> None:
    assert matrix([FIRST, SECOND], ["A", "B"], "fq") == ([[0.8, 0.3], [None, 0.7]], [1, 2])


def test_columns_that_measured_only_their_own_request_are_left_out_of_the_matrix() -> None:
    alone = cell(1, {"A": 0.8}, {"A": 0.9}, own_only=True)
    assert matrix([alone, SECOND], ["A", "B"], "fq") == ([[0.3], [0.7]], [2])


def test_degradation_compares_a_request_right_after_itself_with_the_last_state() -> None:
    found = degradations([FIRST, SECOND])
    assert list(found) == ["A"]  # the last request has not had the time to degrade
    assert abs(found["A"] - 0.5) < 1e-12


def test_degradation_counts_requests_that_were_measured_alone() -> None:
    assert "A" in degradations([cell(1, {"A": 0.8}, {"A": 0.9}, own_only=True), SECOND])


def test_degradation_compares_equally_many_questions_only() -> None:
    fewer = cell(2, {"A": 0.3, "B": 0.7}, {"A": 0.1, "B": 0.6})
    fewer["rows"]["A"]["mu"]["n"] = 3  # somebody of A's retain set was forgotten with B
    assert degradations([FIRST, fewer], "mu") == {}


def test_last_column() -> None:
    assert last_column([FIRST, SECOND], "mu") == [0.85, 0.6]


def test_the_issues_keys() -> None:
    found = method_figures({"AB": [FIRST, SECOND]})
    assert found["fq"] == [[0.8, 0.3], [None, 0.7]]
    assert found["mu"] == [[0.9, 0.85], [None, 0.6]]
    assert found["fq_final"] == 0.3
    assert found["mu_final"] == 0.6
    assert found["degradation_max"] == 0.5
    assert found["seconds_per_request"] == 15.0
    assert found["peak_mb"] == 102.0
    assert found["both_modalities"] == 0.5
    assert found["mia_auc"] == 0.2


def test_final_figures_are_the_worst_over_all_orders() -> None:
    other = [FIRST, cell(2, {"A": 0.9, "B": 0.1}, {"A": 0.95, "B": 0.9})]
    found = method_figures({"AB": [FIRST, SECOND], "BA": other})
    assert found["fq_final"] == 0.1
    assert found["mu_final"] == 0.6


def test_a_method_without_cells_has_no_figures() -> None:
    assert method_figures({"AB": []}) == {}


class TestCells:
    def test_finished_cells_are_found_again(self, tmp_path: Path) -> None:
        key = CellKey("tasks", "AB", "ga", 1)
        Cells(tmp_path / "cells.jsonl").append(key, {"seconds": 3.0})
        assert Cells(tmp_path / "cells.jsonl").found[key]["seconds"] == 3.0

    def test_a_torn_line_costs_only_itself(self, tmp_path: Path) -> None:
        path = tmp_path / "cells.jsonl"
        Cells(path).append(CellKey("tasks", "AB", "ga", 1), {"seconds": 3.0})
        with path.open("a") as file:
            file.write('{"key": {"sequence": "tasks", "or')  # killed while writing
        cells = Cells(path)
        assert cells.done("tasks", "AB", "ga") == 1
        cells.append(CellKey("tasks", "AB", "ga", 2), {"seconds": 4.0})
        assert Cells(path).done("tasks", "AB", "ga") == 2

    def test_done_stops_at_the_first_gap(self, tmp_path: Path) -> None:
        cells = Cells(tmp_path / "cells.jsonl")
        for k in (1, 3):
            cells.append(CellKey("tasks", "AB", "ga", k), {})
        assert cells.done("tasks", "AB", "ga") == 1
        assert len(cells.of("tasks", "AB", "ga")) == 1

    def test_a_later_cell_takes_the_place_of_an_earlier_one(self, tmp_path: Path) -> None:
        key = CellKey("tasks", "AB", "ga", 1)
        for seconds in (1.0, 2.0):
            Cells(tmp_path / "cells.jsonl").append(key, {"seconds": seconds})
        assert Cells(tmp_path / "cells.jsonl").found[key]["seconds"] == 2.0


class TestTimeLeft:
    MISSING = (CellKey("tasks", "AB", "ga", 3), CellKey("tasks", "AB", "npo", 1))

    def test_a_methods_own_mean_where_there_is_one_else_the_mean_of_all(self) -> None:
        slow = cell(1, {"A": 0.5}, {"A": 0.5}, wall=50.0)
        slow["key"]["method"] = "po"
        found = [FIRST, SECOND, slow]  # ga: 20, all: 30
        assert remaining_seconds(found, self.MISSING) == 20.0 + 30.0

    def test_nothing_is_known_yet(self) -> None:
        assert remaining_seconds([], self.MISSING, overall=7.0) == 14.0
