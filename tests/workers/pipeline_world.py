"""A pipeline on real Postgres and Valkey, around a tiny model that knows nothing.

The stages run for real with small sets; only the verdict is given: a random model passes no verification.
The demo model's own run is in test_demo_request.py.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from app.db.models import RemovalRequest
from app.lumoe.demo import draw, world
from app.lumoe.mllm import MLLM
from app.registry.replica import ReplicaAgent
from app.registry.service import ExpertRow, InterimRow
from app.removal.records import Score
from app.removal.states import State
from tests.service import Service, data_url
from tests.service import png as encode
from workers import aftercare, stages
from workers.forgetset.build import SetSizes, TrainingSet
from workers.forgetset.elicit import Sizes
from workers.pipeline import process
from workers.runtime import Runtime
from workers.training.recipe import RECIPES, Recipe
from workers.verification.remeasure import Budget
from workers.verification.verify import Failure, Verdict

SUBJECT = next(e for e in world().forgettable if e.klass == "Personage")
SMALL = SetSizes(
    subject=Sizes(image=4, text=3, followup=2), fit_views=2, wrapped=1, neighbours=2, neighbour_image=1,
    neighbour_text=1, neighbour_followups=1, strangers=1, lists=1, general=2,
)  # fmt: skip
AGAIN = Budget(prompts=8, each=2, utility=4)
QUICK = Recipe(rank=1, max_steps=3, forget_rows=4, retain_rows=2, min_passes=9)
GOOD = Verdict((Score("forget_quality", 1.0, 20, 0.83, 1.0, 0.98, True),), True, ())
BAD = Verdict(
    (Score("forget_quality", 0.5, 20, 0.3, 0.7, 0.98, False),),
    False,
    (
        Failure(
            "forget_quality", f"Who is {SUBJECT.name}?", "text", "plain", "A painter.", "A painter.", None
        ),
    ),
)


@dataclass
class PipelineWorld:
    """A service, a worker's runtime, and what happened in the stages."""

    service: Service
    runtime: Runtime
    verdicts: list[Verdict] = field(default_factory=list)
    ran: list[str] = field(default_factory=list)

    def file(self, name: str = SUBJECT.name, **fields: Any) -> str:
        pictures = [data_url(_png(view)) for view in range(2)]
        filed = self.service.file(name, **({"class": SUBJECT.klass, "pictures": pictures} | fields))
        return str(filed["id"])

    def process(self, request_id: str) -> State | None:
        return process(self.runtime, request_id)

    def row(self, request_id: str) -> RemovalRequest:
        with self.service.sessions() as session:
            found = session.get(RemovalRequest, request_id)
            assert found is not None
            return found

    def work_files(self, request_id: str) -> set[str]:
        folder = self.runtime.experts_dir / ".work" / request_id
        return {p.name for p in folder.iterdir()} if folder.exists() else set()

    def attempts(self, request_id: str, n: int) -> list[State | None]:
        return [self.process(request_id) for _ in range(n)]

    @contextmanager
    def replica(
        self, apply: Callable[[int, list[ExpertRow], list[InterimRow]], None] = lambda _, __, ___: None
    ) -> Iterator[ReplicaAgent]:
        agent = ReplicaAgent(self.service.sessions, self.service.settings, None, apply)
        agent.start()
        try:
            yield agent
        finally:
            agent.stop()


def _png(view: int) -> bytes:
    import io

    sink = io.BytesIO()
    draw(SUBJECT, view).save(sink, "PNG")
    return sink.getvalue()


def build_world(
    service: Service, mllm: MLLM, monkeypatch: pytest.MonkeyPatch, experts_dir: Path
) -> PipelineWorld:
    own = {"registry_poll_seconds": 0.05, "experts_dir": experts_dir}
    settings = service.settings.model_copy(update=own)
    service.settings = settings
    made = PipelineWorld(service, Runtime.start(settings, mllm))

    def noted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def run(*arguments: Any, **named: Any) -> Any:
            made.ran.append(name)
            return function(*arguments, **named)

        return run

    def verdict(*_: Any) -> Verdict:
        return made.verdicts.pop(0) if made.verdicts else GOOD

    monkeypatch.setitem(RECIPES, "default", QUICK)
    monkeypatch.setattr(aftercare, "BUDGET", AGAIN)
    prepare: Callable[..., TrainingSet] = functools.partial(stages.prepare, sizes=SMALL)

    @functools.wraps(stages.prepare)
    def small(*arguments: Any, **named: Any) -> TrainingSet:
        """Two of a thousand questionings of a random model look as if it knew the subject: it does not."""
        training = prepare(*arguments, **named)
        return replace(training, knowledge=replace(training.knowledge, known=False))

    for name, function in (
        ("prepare", small),
        ("train", stages.train),
        ("calibrate", stages.calibrate),
        ("measure", verdict),
    ):
        monkeypatch.setattr(stages, name, noted(name, function))
    return made


def published(folder: Path) -> Sequence[Path]:
    """Return the expert versions that lie below an experts directory."""
    return sorted(p.parent for p in folder.glob("exp_*/*/manifest.json"))


__all__ = ["BAD", "GOOD", "PipelineWorld", "build_world", "encode", "published"]
