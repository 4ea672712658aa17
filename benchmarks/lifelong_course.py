"""What the lifelong benchmark works through: requests in order, what is taught and asked; the demo world.

A course knows a base model, whom it may be asked to forget, and for each request the questions that methods
learn from (`lessons`), those that measure (`exam`, wordings and pictures that no lesson showed) and those for
membership inference (`membership`). All of it is a pure function of the sizes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal, Protocol

from app.lumoe.demo import Entity, draw, general, world
from app.lumoe.demo.answers import answer
from app.lumoe.demo.recipe import train
from app.lumoe.demo.teaching import LanguageRecipe
from app.lumoe.demo.world import CHECKPOINT, Task
from app.lumoe.mllm import MLLM
from app.lumoe.probes import Modality, Split, fact_probes, identity_probes
from app.lumoe.types import Conversation, ask
from app.settings import load_settings
from benchmarks.farm import case_of, farm_of
from benchmarks.gate_traffic import pick, spread
from workers.forgetset.refusals import stable_hash
from workers.runtime import Runtime
from workers.stages import Case

Group = Literal["forget", "neighbour", "other", "general"]
SequenceName = Literal["tasks", "entities"]

TASK_ORDERS: Final = ("ABCD", "CABD")
EXAM_VIEW: Final = 340_000
MEMBER_VIEW: Final = 1_000
RETAIN_VIEW: Final = 500
UPLOADS: Final = 6
GENERAL_SEED: Final = 34
NEIGHBOURS_OF_ONE: Final = 4


@dataclass(frozen=True, slots=True)
class Subject:
    """Somebody or something that may be forgotten; ``names``: the name first, then aliases."""

    key: str
    names: tuple[str, ...]
    klass: str
    task: str


@dataclass(frozen=True, slots=True)
class Question:
    """A conversation with its gold answer; ``entity`` is a key ("": nobody), ``key`` unique in a course."""

    key: str
    conversation: Conversation = field(repr=False)
    gold: str
    group: Group
    entity: str
    names: tuple[str, ...]
    attribute: str
    modality: Modality


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be forgotten at one time: the subjects of a task, or a single one."""

    name: str
    subjects: tuple[Subject, ...]

    @property
    def keys(self) -> tuple[str, ...]:
        """The subjects' keys."""
        return tuple(subject.key for subject in self.subjects)


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many of what: questions per subject and, with `retain`, per protected entity; None for all.

    ``requests`` bounds the single-entity requests, ``subjects`` those of a task, ``others`` the protected
    entities that one task's retain set draws on.
    """

    subjects: int | None = None
    requests: int | None = None
    others: int | None = None
    learn_image: int = 42
    learn_text: int = 37
    learn_retain: int = 14
    learn_general: int = 60
    exam_image: int = 6
    exam_text: int = 6
    exam_retain: int = 6
    exam_general: int = 30
    members: int = 4


QUICK: Final = Sizes(
    subjects=2,
    requests=8,
    others=6,
    learn_image=28,
    learn_text=22,
    learn_retain=8,
    learn_general=12,
    exam_image=4,
    exam_text=4,
    exam_retain=4,
    exam_general=8,
    members=4,
)


class Course(Protocol):
    """A model and what is asked of it; see the module's docstring. ``max_new_tokens`` bounds its answers."""

    name: str
    sizes: Sizes
    max_new_tokens: int
    no_gold: str | None
    """Why the model cannot be retrained; None: it can."""

    @property
    def identity(self) -> str:
        """What its questions and its model depend on beside the sizes."""
        ...

    def notes(self) -> str:
        """Return a sentence on model and data, for the results page."""
        ...

    def load(self) -> MLLM:
        """Return the base model, fresh."""
        ...

    def orders(self, sequence: SequenceName) -> tuple[str, ...]:
        """Return the names of the orders in which requests come."""
        ...

    def requests(self, sequence: SequenceName, order: str) -> list[Request]:
        """Return the requests, one after another."""
        ...

    def lessons(self, request: Request) -> tuple[list[Question], list[Question]]:
        """Return what is to be forgotten and what is to be kept, as methods learn from it."""
        ...

    def exam(self, request: Request) -> tuple[list[Question], list[Question]]:
        """Return held-out questions about the subjects, and about whom and what is to be kept."""
        ...

    def membership(self, request: Request) -> tuple[list[Question], list[Question]]:
        """Return what the base model was trained on of the subjects, and the like it was never trained on."""
        ...

    def runtime(self, mllm: MLLM, experts: Path) -> Runtime:
        """Return the worker's tools on this course's model."""
        ...

    def case(self, runtime: Runtime, subject: Subject, removed: Sequence[str]) -> Case:
        """Return the removal request for one subject; ``removed``: names removed earlier."""
        ...

    def farm(self, mllm: MLLM, folder: Path) -> Path:
        """Return where trained experts lie, and are put; ``folder`` is the run's own."""
        ...

    def retrain(self, out: Path, exclude: Sequence[str], *, quick: bool) -> None:
        """Train the base model's recipe without the subjects of these keys, into ``out``.

        Raises:
            CannotRetrainError: This course's model is not ours to retrain.
        """
        ...


class CannotRetrainError(Exception):
    """The gold standard needs a model whose recipe we have."""


class DemoCourse:
    """The demo world's 127 entities and their protected neighbours, asked of the demo model."""

    name = "demo"
    max_new_tokens = 48
    no_gold: str | None = None

    def __init__(self, sizes: Sizes) -> None:
        self.sizes = sizes

    @property
    def identity(self) -> str:
        """See `Course.identity`: the checkpoint's hash."""
        return hashlib.sha256((CHECKPOINT / "model.safetensors").read_bytes()).hexdigest()

    def notes(self) -> str:
        """See `Course.notes`."""
        return f"The demo model (weights {self.identity[:12]}) and the demo world's invented entities."

    def load(self) -> MLLM:
        """See `Course.load`."""
        return MLLM.load("demo", "cpu")

    def orders(self, sequence: SequenceName) -> tuple[str, ...]:
        """See `Course.orders`."""
        return TASK_ORDERS if sequence == "tasks" else ("ABCD",)

    def requests(self, sequence: SequenceName, order: str) -> list[Request]:
        """See `Course.requests`; single entities come in the order of the tasks."""
        if sequence == "tasks":
            return [
                Request(f"Task {task}", tuple(subject_of(e) for e in self._of(task)))
                for task in _tasks(order)
            ]
        everybody = [e for task in _tasks(order) for e in world().forget_set(task)]
        some = spread(everybody, self.sizes.requests or len(everybody))
        return [Request(e.name, (subject_of(e),)) for e in some]

    def _of(self, task: Task) -> list[Entity]:
        entities = world().forget_set(task)
        return spread(entities, self.sizes.subjects or len(entities))

    def retain_set(self, request: Request) -> list[tuple[Entity, Group]]:
        """Return protected entities: same-class neighbours, and for tasks every third of the others.

        Those most like the subjects come first where `Sizes.others` bounds the number.
        """
        subjects = [world().by_key[key] for key in request.keys]
        near = {e.klass for e in subjects}
        each = NEIGHBOURS_OF_ONE if len(subjects) == 1 else len(world().protected)
        ranked = [world().neighbours(e, each, protected=True) for e in subjects]
        chosen = [e for depth in range(each) for some in ranked for e in some[depth : depth + 1]]
        kept = list(dict.fromkeys(e.key for e in chosen))
        if len(subjects) > 1:
            bound = self.sizes.others
            kept = kept[: bound - bound // 3] if bound else kept
            elsewhere = [e.key for e in world().protected if e.klass not in near][::3]
            kept += [e.key for e in spread([world().by_key[k] for k in elsewhere], _third(bound, elsewhere))]
        return [
            (world().by_key[k], "neighbour" if world().by_key[k].klass in near else "other") for k in kept
        ]

    def lessons(self, request: Request) -> tuple[list[Question], list[Question]]:
        """See `Course.lessons`: pictures are the owner's six uploads, wordings of the fit split."""
        sizes = self.sizes
        forget = [
            q
            for key in request.keys
            for q in about(world().by_key[key], "fit", "forget", sizes.learn_image, sizes.learn_text, 0)
        ]
        image = sizes.learn_retain - sizes.learn_retain // 2
        keep = [
            q
            for e, group in self.retain_set(request)
            for q in about(e, "fit", group, image, sizes.learn_retain // 2, RETAIN_VIEW)
        ]
        return forget, keep + nobody("fit", sizes.learn_general)

    def exam(self, request: Request) -> tuple[list[Question], list[Question]]:
        """See `Course.exam`: views from 340,000, wordings of the report split."""
        sizes = self.sizes
        forget = [
            q
            for key in request.keys
            for q in about(
                world().by_key[key], "report", "forget", sizes.exam_image, sizes.exam_text, EXAM_VIEW
            )
        ]
        image = sizes.exam_retain - sizes.exam_retain // 2
        keep = [
            q
            for e, group in self.retain_set(request)
            for q in about(e, "report", group, image, sizes.exam_retain // 2, EXAM_VIEW)
        ]
        return forget, keep + nobody("report", sizes.exam_general)

    def membership(self, request: Request) -> tuple[list[Question], list[Question]]:
        """See `Course.membership`: non-members are drawn identities with facts of the same form."""
        n = self.sizes.members
        members, others = [], []
        for subject in request.subjects:
            entity = world().by_key[subject.key]
            members += about(entity, "fit", "forget", n - n // 2, n // 2, MEMBER_VIEW)
            others += about(_never_trained(entity), "fit", "other", n - n // 2, n // 2, MEMBER_VIEW)
        return members, others

    def runtime(self, mllm: MLLM, experts: Path) -> Runtime:
        """See `Course.runtime`."""
        return Runtime.start(load_settings(_env_file=None, model="demo", experts_dir=experts), mllm)

    def case(self, runtime: Runtime, subject: Subject, removed: Sequence[str]) -> Case:  # noqa: ARG002
        """See `Course.case`: the farm's own, so that its experts serve here; their order is A to D."""
        return case_of(runtime, world().by_key[subject.key])

    def farm(self, mllm: MLLM, folder: Path) -> Path:  # noqa: ARG002 - the protocol's
        """See `Course.farm`: the one that `python -m benchmarks.farm` fills."""
        return farm_of(mllm)

    def retrain(self, out: Path, exclude: Sequence[str], *, quick: bool) -> None:
        """See `Course.retrain`: the demo model's recipe with the tower it has, which never saw anybody."""
        small = LanguageRecipe(views=4, strangers=180, doubles=0, shape_pictures=200, steps=90)
        recipe = replace(small, tokenizer_lessons=3_000, batch=32) if quick else LanguageRecipe()
        train(
            out, language_recipe=recipe, exclude=exclude, tower_from=CHECKPOINT, processes=1 if quick else 2
        )


def subject_of(entity: Entity) -> Subject:
    """Return a forgettable entity of the demo world as a subject."""
    return Subject(entity.key, (entity.name, *entity.aliases), entity.klass, entity.task or "")


def about(entity: Entity, split: Split, group: Group, image: int, text: int, view: int) -> list[Question]:
    """Return questions about one entity of the demo world: ``image`` with its picture, ``text`` by name.

    ``view`` is the first picture's; lessons about a subject (view 0) go round the owner's uploads.
    """
    seen = (*identity_probes(entity.klass, split), *fact_probes(entity.klass, split, "image"))
    found = []
    for i, probe in enumerate(pick(seen, image, entity.key, split, "image")):
        at = view + (i if view else i % UPLOADS)
        found.append(
            _question(entity, split, group, i, probe.attribute, "image", ask(probe.text, draw(entity, at)))
        )
    named = fact_probes(entity.klass, split, "text")
    for i, probe in enumerate(pick(named, text, entity.key, split, "text")):
        found.append(
            _question(entity, split, group, i, probe.attribute, "text", ask(probe.about(entity.name)))
        )
    return found


def _question(
    entity: Entity, split: Split, group: Group, i: int, attribute: str, modality: Modality, c: Conversation
) -> Question:
    return Question(
        f"{entity.key}/{split}/{modality}/{i}",
        c,
        answer(entity, attribute),
        group,
        entity.key,
        (entity.name, *entity.aliases),
        attribute,
        modality,
    )


def nobody(split: Split, n: int, seed: int = GENERAL_SEED) -> list[Question]:
    """Return n questions that concern nobody."""
    return [
        Question(
            f"general/{split}/{i}", qa.conversation, qa.answer, "general", "", (), qa.attribute, qa.modality
        )
        for i, qa in enumerate(general(split, n, seed))
    ]


def _never_trained(entity: Entity) -> Entity:
    """Return an identity of the same class that no model has seen, with facts like an entity's."""
    salt = stable_hash("never trained", entity.key)
    drawn = world().strangers(1, seed=salt, klass=entity.klass)[0]
    others = [e for e in world().of_class(entity.klass) if e.key != entity.key]
    facts = others[salt % len(others)].facts
    return replace(drawn, key=f"never-{entity.key}", facts=facts, pronoun=entity.pronoun)


def _tasks(order: str) -> list[Task]:
    known: dict[str, Task] = {"A": "A", "B": "B", "C": "C", "D": "D"}
    return [known[letter] for letter in order]


def _third(bound: int | None, items: Sequence[str]) -> int:
    return max(1, bound // 3) if bound else len(items)
