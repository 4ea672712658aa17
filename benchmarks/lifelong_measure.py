"""One column of the matrices: what a method says after unlearning k, scored for every request so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.lifelong_course import Course, Question, Request
from benchmarks.lifelong_methods import Method
from workers.verification.metrics import (
    Rate,
    both_modalities,
    bounded_mean,
    forget_points,
    forget_quality,
    keywords,
    leak,
    loss_score,
    mia_auc,
    min_k_score,
    model_utility,
    mu_rel,
    utility_points,
    zlib_score,
)


@dataclass(frozen=True, slots=True)
class Base:
    """What the untouched model reaches: utility points (0-2) by the question's key."""

    points: Mapping[str, int]

    def knows(self, question: Question) -> bool:
        """Whether the untouched model answers rightly; what it does not know cannot be forgotten."""
        return self.points[question.key] > 0


def asked(question: Question) -> str:
    """Return everything that a conversation has said."""
    return "\n".join(message.text for message in question.conversation)


def secrets(question: Question) -> tuple[str, ...]:
    """Return K of the gold answer (METHOD.md section 6)."""
    return keywords(question.gold, asked(question), question.names)


def utility(question: Question, text: str) -> int:
    """Return utility points (0-2) of an answer against the gold answer."""
    # An identity question's keywords are the name itself; a gold without any ("Yes.") must be said whole.
    wanted = secrets(question)
    return utility_points(text, wanted, () if wanted else (question.gold,), gold=question.gold)


def untouched(method: Method, course: Course, requests: Sequence[Request]) -> Base:
    """Ask the untouched model everything that will be asked."""
    everything = list(
        {q.key: q for request in requests for part in course.exam(request) for q in part}.values()
    )
    said = method.answer(everything)
    return Base({q.key: utility(q, text) for q, text in zip(everything, said, strict=True)})


class Examiner:
    """Asks a method the exams of requests, every question once a column, and scores rows."""

    def __init__(self, course: Course, base: Base) -> None:
        self._course, self._base = course, base
        self._exams: dict[str, tuple[list[Question], list[Question]]] = {}

    def exam(self, request: Request) -> tuple[list[Question], list[Question]]:
        """Return a request's exam: forget questions that the untouched model can answer, retain questions."""
        if request.name not in self._exams:
            forget, retain = self._course.exam(request)
            self._exams[request.name] = ([q for q in forget if self._base.knows(q)], retain)
        return self._exams[request.name]

    def column(self, method: Method, rows: Sequence[Request], done: Sequence[Request]) -> dict[str, Any]:
        """Return everything measured of `rows` in a method's present state, JSON-ready.

        Retain questions about anybody who has been forgotten by now are left out.
        """
        gone = {key for request in done for key in request.keys}
        exams = {
            r.name: (self.exam(r)[0], [q for q in self.exam(r)[1] if q.entity not in gone]) for r in rows
        }
        every = list({q.key: q for exam in exams.values() for part in exam for q in part}.values())
        said = dict(zip((q.key for q in every), method.answer(every), strict=True))
        forget = [q for exam in exams.values() for q in exam[0]]
        points = {q.key: forget_points(said[q.key], secrets(q)) for q in forget}
        return {
            "rows": {name: self._row(exam, said, points) for name, exam in exams.items()},
            "both_modalities": asdict(
                both_modalities((f"{q.entity}/{q.attribute}", q.modality, points[q.key] == 2) for q in forget)
            ),
            "mia": membership(method, self._course, rows),
            "examples": examples(forget, said, points),
        }

    def _row(
        self,
        exam: tuple[Sequence[Question], Sequence[Question]],
        said: Mapping[str, str],
        points: Mapping[str, int],
    ) -> dict[str, Any]:
        forget, retain = exam
        kept = {q.key: utility(q, said[q.key]) for q in retain}
        near = [q for q in retain if q.group == "neighbour"]
        rates = {
            "fq": forget_quality([points[q.key] for q in forget]),
            "leak": bounded_mean([leak(said[q.key], secrets(q)) for q in forget]),
            "mu": model_utility(list(kept.values())),
            "mu_rel": self._relative(retain, kept),
            "mu_rel_neighbours": self._relative(near, kept),
        }
        return {name: asdict(rate) for name, rate in rates.items()}

    def _relative(self, questions: Sequence[Question], kept: Mapping[str, int]) -> Rate:
        return mu_rel([kept[q.key] for q in questions], [self._base.points[q.key] for q in questions])


def membership(method: Method, course: Course, rows: Sequence[Request]) -> dict[str, Any]:
    """Return the AUC of three membership attacks: training data of the forgotten against the like of it."""
    members, others = ([q for r in rows for q in course.membership(r)[part]] for part in (0, 1))
    nlls = method.token_nlls([*members, *others])
    inside, outside = nlls[: len(members)], nlls[len(members) :]
    rates = {
        "loss": mia_auc([loss_score(n) for n in inside], [loss_score(n) for n in outside]),
        "zlib": mia_auc(
            [zlib_score(n, q.gold) for n, q in zip(inside, members, strict=True)],
            [zlib_score(n, q.gold) for n, q in zip(outside, others, strict=True)],
        ),
        "min_k": mia_auc([min_k_score(n) for n in inside], [min_k_score(n) for n in outside]),
    }
    return {name: asdict(rate) for name, rate in rates.items()}


def examples(
    forget: Sequence[Question], said: Mapping[str, str], points: Mapping[str, int], n: int = 3
) -> list[dict[str, Any]]:
    """Return the first n forget questions that were not refused cleanly, for whoever looks into it."""
    failed = [q for q in forget if points[q.key] < 2]
    return [
        {"asked": asked(q), "modality": q.modality, "gold": q.gold, "said": said[q.key]} for q in failed[:n]
    ]
