"""MLUBench itself as a course, asked of a demo-size model that was trained on it, or of a real one."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from app.lumoe.demo import draw
from app.lumoe.mllm import MLLM
from app.lumoe.probes import Modality, Split
from app.lumoe.types import Conversation, ask
from app.removal.records import Policy
from app.removal.records import Subject as RemovalSubject
from app.settings import load_settings
from benchmarks.lifelong_collection import (
    FIRST_VIEW,
    Collection,
    CollectionRuntime,
    CourseError,
    Pair,
    by_name,
)
from benchmarks.lifelong_course import (
    TASK_ORDERS,
    CannotRetrainError,
    Group,
    Question,
    Request,
    SequenceName,
    Sizes,
    Subject,
    nobody,
)
from workers.forgetset.refusals import stable_hash
from workers.forgetset.wordings import tells_more_than
from workers.runtime import Runtime
from workers.stages import Case, target_of

_UPLOADS: Final = 6


class MLUBenchCourse:
    """MLUBench's tasks, asked of a demo-size model that was trained on them, or of a real one (`model`)."""

    name = "mlubench"
    max_new_tokens = 160

    def __init__(
        self, data: Path, sizes: Sizes, root: Path, *, model: str | None = None, quick: bool = False
    ) -> None:
        self.collection = Collection(data)
        self.sizes, self.model, self.quick = sizes, model, quick
        self.no_gold = f"{model} was not trained here, so it cannot be retrained" if model else None
        self._place = root / "models" / f"{self._taught_by[:16]}{'-quick' if quick else ''}"
        missing = self.collection.without_pictures()
        if model and missing:
            raise CourseError(
                f"--model: {len(missing)} entities have fewer than three pictures below {data} "
                f"({missing[0]}, ...); a real model does not know drawn stand-ins"
            )

    @property
    def identity(self) -> str:
        """See `Course.identity`: what the model depends on, and that exams ask wordings of their own."""
        return hashlib.sha256(f"{self._taught_by} exams by wording".encode()).hexdigest()

    @property
    def _taught_by(self) -> str:
        """A hash of what the model depends on: the files, the number of pictures, and which model."""
        pictures = sum(len(known.pictures) for known in self.collection.known.values())
        return hashlib.sha256(f"{self.collection.digest} {pictures} {self.model}".encode()).hexdigest()

    def notes(self) -> str:
        """See `Course.notes`."""
        drawn, everybody = len(self.collection.without_pictures()), len(self.collection.known)
        who = (
            f"Model {self.model}" if self.model else "A demo-size model, trained from nothing on these files"
        )
        return (
            f"{who}; MLUBench's tasks {', '.join(sorted(self.collection.forget))}, {everybody} entities, "
            f"{drawn} of them with drawn stand-ins for pictures. {self._unexamined()}"
        ).strip()

    def _unexamined(self) -> str:
        """Return a sentence about those of whom no exam can ask, if there are any."""
        everybody = self.collection.known.values()
        without = [known.names[0] for known in everybody if not self.collection.pairs(known, exam=True)]
        return (
            f"In no exam, for want of wordings beyond the lessons': {', '.join(without)}." if without else ""
        )

    def load(self) -> MLLM:
        """See `Course.load`; the demo-size model is trained on first use, and kept."""
        if self.model:
            return MLLM.load(self.model, "auto")
        if not (self._place / "config.json").is_file():
            self.retrain(self._place, (), quick=self.quick)
        return MLLM.load(str(self._place), "cpu")

    def retrain(self, out: Path, exclude: Sequence[str], *, quick: bool) -> None:
        """See `Course.retrain`."""
        if self.model:
            raise CannotRetrainError(
                f"{self.model} was not trained here, and cannot be retrained without data"
            )
        from benchmarks.lifelong_model import train_on

        train_on(out, self.collection, self.taught(), exclude, quick=quick)

    def taught(self) -> list[str]:
        """Return the keys of everybody the demo-size model is taught: all, or whom a quick run needs."""
        if not self.sizes.subjects:
            return list(self.collection.known)
        subjects = [k for task in self.collection.forget for k in self._of(task)]
        kept = [k for task in self.collection.retain for k in self._kept(task)]
        return list(dict.fromkeys([*subjects, *kept]))

    def orders(self, sequence: SequenceName) -> tuple[str, ...]:
        """See `Course.orders`: those of the paper, without the tasks that the directory lacks."""
        there = ["".join(t for t in order if t in self.collection.forget) for order in TASK_ORDERS]
        letters = "".join(sorted(self.collection.forget))
        orders = tuple(dict.fromkeys(o for o in there if o)) or (letters,)
        return orders if sequence == "tasks" else orders[:1]

    def _of(self, task: str) -> list[str]:
        keys = self.collection.forget[task]
        return spread_keys(keys, self.sizes.subjects)

    def _kept(self, task: str) -> list[str]:
        return spread_keys(self.collection.retain.get(task, []), self.sizes.others)

    def requests(self, sequence: SequenceName, order: str) -> list[Request]:
        """See `Course.requests`."""
        if sequence == "tasks":
            return [Request(f"Task {t}", tuple(self._subject(k) for k in self._of(t))) for t in order]
        keys = spread_keys([k for t in order for k in self._of(t)], self.sizes.requests)
        return [Request(self.collection.known[k].names[0], (self._subject(k),)) for k in keys]

    def _subject(self, key: str) -> Subject:
        known = self.collection.known[key]
        return Subject(key, known.names, known.klass, known.task)

    def retain_set(self, request: Request) -> list[tuple[str, Group]]:
        """Return keys of whom a request leaves alone: its retain set; for one, same-class others too."""
        near = {subject.klass for subject in request.subjects}
        keys = list(dict.fromkeys(k for s in request.subjects for k in self._kept(s.task)))
        if len(request.subjects) == 1:
            taught = set(self.taught())
            same = [
                k
                for k, known in self.collection.known.items()
                if known.klass in near and k not in request.keys and k in taught
            ]
            keys = list(dict.fromkeys([*spread_keys(same, 4), *spread_keys(keys, 4)]))
        return [
            (k, "neighbour" if self.collection.known[k].klass in near else "other")
            for k in keys
            if k not in request.keys
        ]

    def lessons(self, request: Request) -> tuple[list[Question], list[Question]]:
        """See `Course.lessons`."""
        s = self.sizes
        forget = [
            q for k in request.keys for q in self._about(k, "uploads", "forget", s.learn_image, s.learn_text)
        ]
        half = s.learn_retain // 2
        keep = [
            q
            for k, group in self.retain_set(request)
            for q in self._about(k, "fit", group, s.learn_retain - half, half)
        ]
        return forget, keep + self._nobody("fit", s.learn_general)

    def exam(self, request: Request) -> tuple[list[Question], list[Question]]:
        """See `Course.exam`: wordings and pictures that no lesson had."""
        s = self.sizes
        forget = [
            q for k in request.keys for q in self._about(k, "exam", "forget", s.exam_image, s.exam_text)
        ]
        half = s.exam_retain // 2
        keep = [
            q
            for k, group in self.retain_set(request)
            for q in self._about(k, "exam", group, s.exam_retain - half, half)
        ]
        return forget, keep + self._nobody("report", s.exam_general)

    def _nobody(self, split: Split, n: int) -> list[Question]:
        """General questions are those the demo-size model is taught; a real one answers its retain data."""
        return [] if self.model else nobody(split, n)

    def membership(self, request: Request) -> tuple[list[Question], list[Question]]:
        """See `Course.membership`: non-members are drawn identities, told of in others' sentences."""
        n = self.sizes.members
        members, others = [], []
        for subject in request.subjects:
            found = self._about(subject.key, "members", "forget", n - n // 2, n // 2)
            members += found
            others += [self._never_trained(subject, q) for q in found]
        return members, others

    def _never_trained(self, subject: Subject, member: Question) -> Question:
        salt = stable_hash("never trained", subject.key)
        drawn = self.collection.world.strangers(1, seed=salt, klass=subject.klass)[0]
        pairs = [p for k in self.collection.known.values() if k.klass == subject.klass for p in k.pairs]
        answers = [p.answer for p in pairs if p.text == member.attribute and p.answer != member.gold]
        gold = answers[salt % len(answers)] if answers else member.gold
        text = by_name(Pair(member.attribute, ""), drawn.name)
        conversation = (
            ask(member.attribute, draw(drawn, FIRST_VIEW["members"]))
            if member.modality == "image"
            else ask(text)
        )
        return Question(
            f"never-{member.key}",
            conversation,
            gold,
            "other",
            drawn.key,
            (drawn.name,),
            member.attribute,
            member.modality,
        )

    def _about(self, key: str, use: str, group: Group, image: int, text: int) -> list[Question]:
        """Return questions about one entity; its pairs are gone round, each time with another picture.

        What a model was trained on (`members`) are all of them; an exam asks no wording that a lesson had.
        """
        known = self.collection.known[key]
        pairs = known.pairs if use == "members" else self.collection.pairs(known, exam=use == "exam")
        order = sorted(pairs, key=lambda pair: stable_hash("pair", key, pair.text, pair.answer))
        pictures = self.collection.pictures(key, use, min(image, _UPLOADS if use == "uploads" else image))
        shown = [
            (order[i % len(order)], ask(order[i % len(order)].text, pictures[i % len(pictures)]))
            for i in range(image if order else 0)
        ]
        telling = [pair for pair in order if tells_more_than(pair.answer, pair.text, known.names)] or order
        named = [
            (telling[i % len(telling)], ask(by_name(telling[i % len(telling)], known.names[0])))
            for i in range(min(text, len(telling)))
        ]
        asked: tuple[tuple[Modality, list[tuple[Pair, Conversation]]], ...]
        asked = (("image", shown), ("text", named))
        return [
            Question(
                f"{key}/{use}/{modality}/{i}", c, pair.answer, group, key, known.names, pair.text, modality
            )
            for modality, some in asked
            for i, (pair, c) in enumerate(some)
        ]

    def runtime(self, mllm: MLLM, experts: Path) -> Runtime:
        """See `Course.runtime`; a real model's cohort is the directory itself."""
        if self.model:
            settings = load_settings(
                _env_file=None, model=self.model, experts_dir=experts, retain_data=self.collection.data
            )
            return Runtime.start(settings, mllm)
        runtime = CollectionRuntime.start(
            load_settings(_env_file=None, model="demo", experts_dir=experts), mllm
        )
        assert isinstance(runtime, CollectionRuntime)  # noqa: S101 - `start` is typed as its base
        runtime.collection = self.collection
        return runtime

    def case(self, runtime: Runtime, subject: Subject, removed: Sequence[str]) -> Case:
        """See `Course.case`."""
        return Case(
            request_id=f"req_{subject.key}",
            target=target_of(RemovalSubject(subject.names[0], subject.names[1:], subject.klass)),
            pictures=tuple(self.collection.pictures(subject.key, "uploads", _UPLOADS)),
            removed=tuple(removed),
            policy=Policy.of(runtime.settings, None),
        )

    def farm(self, mllm: MLLM, folder: Path) -> Path:  # noqa: ARG002 - the protocol's
        """See `Course.farm`: the run's own."""
        return folder


def spread_keys(keys: Sequence[str], n: int | None) -> list[str]:
    """Return n keys evenly over the sequence; None: all."""
    if n is None or n >= len(keys):
        return list(keys)
    return [keys[int((i + 0.5) * len(keys) / n)] for i in range(n)]
