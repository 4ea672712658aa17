"""Interim protection on the model that knows its world: unseen views, neighbours, no pictures, no name."""

from __future__ import annotations

import pytest

from app.lumoe.demo import draw, world
from app.lumoe.demo.questions import questions
from app.lumoe.guard import FALLBACK_REFUSALS
from app.lumoe.interim import InterimEntry, interim_record
from app.lumoe.mllm import MLLM
from app.lumoe.router import Router
from app.lumoe.types import ask

SUBJECTS = [
    next(e for e in world().forgettable if e.klass == k) for k in ("Personage", "Buildings", "Plants")
]
VIEWS = range(410_000, 410_004)


def router(mllm: MLLM, *, named: bool = True, pictures: int = 2) -> Router:
    entries = []
    for subject in SUBJECTS:
        names = (subject.name, *subject.aliases) if named else ()
        shown = [draw(subject, view) for view in range(pictures)]
        entries.append(InterimEntry(f"exp_{subject.key}", interim_record(mllm, names, subject.klass, shown)))
    return Router.build(mllm, [], 1, entries)


@pytest.mark.parametrize(
    ("named", "pictures", "least"), [(True, 2, 0.9), (True, 0, 0.9), (False, 4, 0.75)], ids=str
)
def test_unseen_views_are_refused(demo: MLLM, named: bool, pictures: int, least: float) -> None:
    asked = [ask("What is special here?", draw(s, v)) for s in SUBJECTS for v in VIEWS]
    answers = router(demo, named=named, pictures=pictures).answer(asked)
    refused = sum(answer.text in FALLBACK_REFUSALS for answer in answers)
    assert refused >= least * len(asked)


def test_everything_asked_about_the_subjects_is_refused(demo: MLLM) -> None:
    asked = [qa.conversation for s in SUBJECTS for qa in questions(s, "report", view=410_010)[::2]]
    answers = router(demo).answer(asked)
    assert len(asked) >= 30
    assert [a.text for a in answers if a.text not in FALLBACK_REFUSALS] == []


def test_neighbours_get_the_base_models_tokens(demo: MLLM) -> None:
    near = [other for s in SUBJECTS for other in world().neighbours(s, 4) if other not in SUBJECTS]
    asked = [qa.conversation for other in near for qa in questions(other, "report", view=410_020)[::5]]
    base = demo.generate(asked)
    answers = router(demo).answer(asked)
    assert len(asked) >= 30
    assert [a.token_ids for a in answers] == [g.token_ids for g in base]
