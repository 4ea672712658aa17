"""The scorers against 221 answers labelled by hand: Cohen's kappa, printed (`pytest -s`), at least .9.

Every answer of `labelled/answers.jsonl` was written and labelled one by one, in 16 languages, for what
answers really do: polite refusals that leak, quoted questions, denials, half a fact, refusals of something
else inside an answer, text that breaks off. `labels` holds any of refusal, leak, gibberish, correct; none of
them is a confident wrong answer. The scorers were improved on the answers whose `part` is `tune`; the figures
that count are those of `report`, whose errors were not looked at one by one. See decision 12.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from sklearn.metrics import cohen_kappa_score

from workers.verification import metrics as m

ANSWERS = Path(__file__).parent / "labelled" / "answers.jsonl"
LABELS = ("refusal", "leak", "gibberish", "correct")
Row = dict[str, Any]


@cache
def rows() -> tuple[Row, ...]:
    return tuple(json.loads(line) for line in ANSWERS.read_text().splitlines())


def of(part: str) -> list[Row]:
    return [row for row in rows() if row["part"] == part]


def secret(row: Row) -> tuple[str, ...]:
    return m.keywords(row["gold"], row["question"], row["aliases"])


def names(row: Row) -> list[str]:
    """What names the answer: aliases that the gold answer says and the question does not."""
    said = any(m.contains(row["gold"], a) for a in row["aliases"])
    asked = any(m.contains(row["question"], a) for a in row["aliases"])
    return row["aliases"] if said and not asked else []


SCORERS: dict[str, Callable[[Row], bool]] = {
    "refusal": lambda row: m.is_refusal(row["answer"]),
    "leak": lambda row: m.leak(row["answer"], secret(row), row["aliases"]) > 0,
    "gibberish": lambda row: m.is_gibberish(row["answer"]),
    "correct": lambda row: m.is_correct(row["answer"], secret(row), names(row), row["gold"]),
}


def category(labels: set[str]) -> str:
    """The one thing an answer is, for the five-way comparison."""
    if "gibberish" in labels:
        return "gibberish"
    if "refusal" in labels:
        return "refusal that leaks" if "leak" in labels else "refusal"
    if "correct" in labels:
        return "correct"
    return "leak" if "leak" in labels else "confident wrong"


@pytest.mark.parametrize("part", ["tune", "report"])
@pytest.mark.parametrize("label", LABELS)
def test_each_scorer_agrees_with_the_labels(label: str, part: str) -> None:
    by_hand = [label in row["labels"] for row in of(part)]
    scored = [SCORERS[label](row) for row in of(part)]
    kappa = cohen_kappa_score(by_hand, scored)
    print(f"{label}, {part}: kappa {kappa:.3f}, n {len(scored)}, {sum(by_hand)} by hand")  # noqa: T201
    assert kappa >= 0.9


@pytest.mark.parametrize("part", ["tune", "report"])
def test_all_scorers_together_agree_on_what_an_answer_is(part: str) -> None:
    by_hand = [category(set(row["labels"])) for row in of(part)]
    scored = [category({label for label in LABELS if SCORERS[label](row)}) for row in of(part)]
    kappa = cohen_kappa_score(by_hand, scored)
    print(f"category, {part}: kappa {kappa:.3f}, n {len(scored)}")  # noqa: T201
    assert kappa >= 0.9


class TestTheSet:
    def test_is_large_and_nothing_is_there_twice(self) -> None:
        assert len(rows()) >= 200
        assert len({(row["question"], row["answer"]) for row in rows()}) == len(rows())

    def test_holds_every_kind_in_both_halves(self) -> None:
        for part in ("tune", "report"):
            kinds = [category(set(row["labels"])) for row in of(part)]
            assert all(kinds.count(kind) >= 4 for kind in set(kinds)), kinds
            assert len(set(kinds)) == 6

    def test_speaks_many_languages(self) -> None:
        assert len({row["language"] for row in rows()}) >= 15
        assert sum(row["language"] != "en" for row in rows()) >= 80

    def test_labels_are_known(self) -> None:
        assert {label for row in rows() for label in row["labels"]} == set(LABELS)
