"""The bookkeeping of the long form: what is left to do, and the figures. The faults are in tests/faults."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

from benchmarks.faults import Record, append, due, main, read, summary
from tests.faults.catalogue import FAULTS, RANDOM

FIRST, SECOND = [name for name in FAULTS if name != RANDOM][:2]


def record(fault: str = FIRST, seed: int = 1, injected: int = 1, lost: int = 0) -> Record:
    return Record(fault, seed, injected, 2, lost, 0, ["lost"] * lost, 1.5)


def test_every_fault_once_before_any_twice() -> None:
    left = list(due([record()], [FIRST, SECOND], n=2, kills=0))
    assert left == [(SECOND, 1), (FIRST, 2), (SECOND, 2)]


def test_random_kills_until_there_are_enough() -> None:
    done = [record(RANDOM, 1, injected=9)]
    for name, seed in itertools.islice(due(done, [RANDOM], n=5, kills=30), 10):
        done.append(record(name, seed, injected=9))
    assert [r.seed for r in done] == [1, 2, 3, 4]


def test_goes_on_after_a_line_that_was_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "state" / "injections.jsonl"
    append(path, record())
    with path.open("a") as file:
        file.write('{"fault": "disk_')
    assert read(path) == [record()]
    append(path, record(SECOND))
    assert read(path) == [record(), record(SECOND)]


def test_figures_per_fault_and_in_all() -> None:
    found = summary([record(injected=12), record(SECOND), record(SECOND, 2, lost=1)])
    assert {key: found[key] for key in ("injected", "requests", "lost", "doubled")} == {
        "injected": 14, "requests": 6, "lost": 1, "doubled": 0,
    }  # fmt: skip
    assert found["faults"][FIRST]["injected"] == 12
    assert found["faults"][SECOND]["lost"] == 1
    assert [r["seed"] for r in found["not_clean"]] == [2]


def test_reports_what_was_done_and_whether_it_was_clean(tmp_path: Path) -> None:
    append(tmp_path / "injections.jsonl", record())
    figures, page, said = tmp_path / "f.json", tmp_path / "f.md", list[str]()
    asked = ["--report", "--state", str(tmp_path), "--json", str(figures), "--page", str(page)]
    assert main(asked, said.append) == 0
    assert json.loads(figures.read_text())["requests"] == 2
    assert f"| `{FIRST}` |" in page.read_text()
    append(tmp_path / "injections.jsonl", record(SECOND, lost=1))
    assert main(asked, said.append) == 1
    assert "1 lost" in said[-1]
