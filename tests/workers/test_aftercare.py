"""After a publish: figures per (request, generation), and a publish that did harm takes itself back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from app.db.models import AuditEvent, Generation, LeaseRow, Remeasurement
from app.doctor.findings import Check
from app.doctor.service import look
from app.kit.ids import expert_id_of
from app.lumoe.demo import world as demo_world
from app.lumoe.mllm import MLLM
from app.registry.service import RegistryService
from app.removal.states import State
from tests.service import Service, own_settings, service, sessions  # noqa: F401
from tests.workers.pipeline_world import AGAIN, SUBJECT, PipelineWorld, build_world
from workers.outbox import Purger
from workers.verification.remeasure import Budget, choose, remeasure, share_of
from workers.verification.verify import Failure

OTHER = [e for e in demo_world().forgettable if e.klass == "Personage"][1]


@pytest.fixture
def world(
    service: Service,  # noqa: F811
    tiny: MLLM,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> PipelineWorld:
    return build_world(service, tiny, monkeypatch, tmp_path / "experts")


def live(world: PipelineWorld) -> list[str]:
    with world.service.sessions() as session:
        return [row.request_id for row in RegistryService(session, world.service.settings).live_experts()]


def harmful(monkeypatch: pytest.MonkeyPatch, earlier: str) -> None:
    """Have the next measurement find that an earlier subject is given away again."""

    def found(*arguments: Any) -> Any:
        outcome = remeasure(*arguments)
        failure = Failure(
            "forget_quality", "Who?", "text", "plain", "A painter.", "A painter.", None, earlier
        )
        return replace(outcome, regressions=(failure,), harmed=(earlier,))

    monkeypatch.setattr("workers.aftercare.remeasure", found)


class TestMeasureAgain:
    def test_an_attempt_that_lost_its_lease_meanwhile_keeps_no_figures(
        self, world: PipelineWorld, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        request_id = world.file()

        def overtaken(*arguments: Any) -> Any:
            with world.service.sessions.begin() as session:
                session.get_one(LeaseRow, request_id).token += 1
            return remeasure(*arguments)

        monkeypatch.setattr("workers.aftercare.remeasure", overtaken)
        with world.replica():
            assert world.process(request_id) is State.PUBLISHING
        with world.service.sessions() as session:
            assert session.scalars(select(Remeasurement)).all() == []

    def test_every_active_request_and_the_utility_set_with_evidence_read_once(
        self, world: PipelineWorld
    ) -> None:
        with world.replica():
            first = world.file()
            assert world.process(first) is State.ACTIVE
            read_before = self.reads(world, first)
            second = world.file(name=OTHER.name)
            assert world.process(second) is State.ACTIVE
        with world.service.sessions() as session:
            rows = session.scalars(select(Remeasurement).order_by(Remeasurement.id)).all()
            published = session.execute(
                select(Generation.request_id, Generation.number).where(Generation.cause == "publish")
            ).all()
        by_request = {row[0]: row[1] for row in published}
        found = {(row.request_id, row.generation, row.metric): row for row in rows}
        expected = {(first, by_request[first]), (first, by_request[second]), (second, by_request[second])}
        assert {key[:2] for key in found if key[2] == "forget_quality"} == expected
        assert {key[:2] for key in found if key[2] == "changed_answers"} == {
            (first, by_request[first]),
            (second, by_request[second]),
        }
        assert all(row.n > 0 for row in rows if row.value is not None)
        assert all(row.low is not None and row.high is not None for row in rows if row.value is not None)
        assert self.reads(world, first) == read_before

    def test_after_a_purge_by_name_alone(self, world: PipelineWorld) -> None:
        with world.replica():
            first = world.file()
            assert world.process(first) is State.ACTIVE
            at_once = world.service.settings.model_copy(update={"evidence_retention_days": 0.0})
            assert Purger(world.service.sessions, at_once).run_once() == 2
            world.runtime.references.clear()  # as in a worker that was started since
            second = world.file(name=OTHER.name)
            assert world.process(second) is State.ACTIVE
        with world.service.sessions() as session:
            rows = session.scalars(
                select(Remeasurement).where(
                    Remeasurement.request_id == first, Remeasurement.metric == "forget_quality"
                )
            ).all()
        assert [row.n for row in rows] == [AGAIN.each, AGAIN.each]
        (references,) = [r for key, r in world.runtime.references.items() if expert_id_of(first) in str(key)]
        assert {reference.prompt.modality for reference in references} == {"text"}

    def reads(self, world: PipelineWorld, request_id: str) -> int:
        with world.service.sessions() as session:
            read = select(AuditEvent).where(
                AuditEvent.kind == "evidence.read", AuditEvent.subject_id == request_id
            )
            return len(session.scalars(read).all())


class TestTakeBack:
    def test_the_generation_goes_back_by_itself(
        self, world: PipelineWorld, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with world.replica():
            first = world.file()
            world.process(first)
            second = world.file(name=OTHER.name)
            with monkeypatch.context() as once:
                harmful(once, first)
                assert world.process(second) is State.NEEDS_ATTENTION
            assert live(world) == [first]
            status = world.service.status(second)
            assert (status["reason_code"], status["protection"]) == ("regression", "interim")
            failures = world.service.get(f"/requests/{second}/failures", world.service.operator).json()
            assert [(f["kind"], f["concerns"]) for f in failures["items"]] == [("regression", first)]
            self.audited(world, second)

            world.ran.clear()
            assert world.service.post(f"/requests/{second}/retry", world.service.operator).status_code < 300
            assert world.process(second) is State.ACTIVE
        assert world.ran == ["train", "calibrate", "measure"]
        assert sorted(live(world)) == sorted([first, second])

    def audited(self, world: PipelineWorld, request_id: str) -> None:
        with world.service.sessions() as session:
            trail = session.scalars(select(AuditEvent).where(AuditEvent.subject_id == request_id)).all()
        payloads = {event.kind: event.payload for event in trail}
        assert payloads["registry.rollback"]["because"] == "regression"
        assert payloads["request.need_attention"]["reason_code"] == "regression"
        assert "protection.start" in payloads
        assert not any(SUBJECT.name in str(payload) for payload in payloads.values())


class TestRolledBack:
    def test_before_it_was_active_it_is_published_again(
        self, world: PipelineWorld, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def interrupted(*arguments: Any) -> Any:
            with world.service.sessions.begin() as session:
                RegistryService(session, world.service.settings).rollback(0)
            return remeasure(*arguments)

        with world.replica():
            request_id = world.file()
            with monkeypatch.context() as once:
                once.setattr("workers.aftercare.remeasure", interrupted)
                assert world.process(request_id) is State.PUBLISHING
            assert live(world) == []
            assert world.service.status(request_id)["protection"] == "interim"
            assert world.process(request_id) is State.ACTIVE
        assert live(world) == [request_id]
        with world.service.sessions() as session:
            found = look(session, world.service.settings).findings
        assert {f.check for f in found} <= {Check.NO_REPLICA, Check.CHECKPOINT, Check.BROKER}


class TestBudget:
    def test_all_while_it_suffices(self) -> None:
        budget = Budget(prompts=12, each=4)
        assert choose(["a", "b", "own"], {}, "own", budget) == ["own", "a", "b"]
        assert share_of(budget, 3) == 4

    def test_then_those_not_asked_for_longest(self) -> None:
        budget = Budget(prompts=6, each=4)
        chosen = choose(["a", "b", "c", "own"], {"a": 9, "b": 7}, "own", budget)
        assert chosen == ["own", "c", "b"]
        assert share_of(budget, len(chosen)) == 2
