"""The pipeline: one expert, resumable, fenced, cancellable, capped; on real Postgres and Valkey."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from app.db.models import (
    AuditEvent,
    Evidence,
    LeaseRow,
    OutboxMessage,
    RequestEvent,
    VerificationExample,
)
from app.lumoe.expert import load_expert
from app.lumoe.mllm import MLLM
from app.registry.service import RegistryService
from app.registry.store.local import LocalStore
from app.removal.states import State
from tests.service import Service, own_settings, service, sessions  # noqa: F401
from tests.workers.pipeline_world import BAD, QUICK, SMALL, SUBJECT, PipelineWorld, build_world, published
from workers import pipeline, stages
from workers.forgetset.build import build
from workers.runtime import Runtime
from workers.training import initial
from workers.training.initial import practice_subjects
from workers.training.recipe import RECIPES, Recipe
from workers.training.train import train_expert


@pytest.fixture
def world(
    service: Service,  # noqa: F811
    tiny: MLLM,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> PipelineWorld:
    return build_world(service, tiny, monkeypatch, tmp_path / "experts")


def live(world: PipelineWorld) -> int:
    with world.service.sessions() as session:
        return len(RegistryService(session, world.service.settings).live_experts())


class TestProcess:
    def test_request_becomes_active(self, world: PipelineWorld) -> None:
        request_id = world.file()
        with world.replica():
            assert world.process(request_id) is State.ACTIVE
        assert world.ran == ["prepare", "train", "calibrate", "measure"]
        assert len(published(world.runtime.experts_dir)) == live(world) == 1
        assert world.work_files(request_id) == set()
        assert world.row(request_id).base_knows_subject is False
        status = world.service.status(request_id)
        assert (status["state"], status["percent"]) == ("active", 100)
        assert [score["metric"] for score in status["scores"]] == ["forget_quality"]
        statements = world.service.get(f"/requests/{request_id}/report").json()["model_knew"]["statements"]
        assert len(statements) == 2
        assert all("n = " in text and "95 % interval" in text for text in statements)

    def test_delivered_again_does_nothing(self, world: PipelineWorld) -> None:
        request_id = world.file()
        with world.replica():
            world.process(request_id)
            assert world.process(request_id) is None
        assert live(world) == 1

    def test_leased_by_another_is_left_alone(self, world: PipelineWorld) -> None:
        request_id = world.file()
        world.service.lease(request_id)
        assert world.process(request_id) is None
        assert world.ran == []

    def test_every_transition_is_audited_and_names_nobody(self, world: PipelineWorld) -> None:
        request_id = world.file()
        with world.replica():
            world.process(request_id)
        with world.service.sessions() as session:
            trail = session.scalars(
                select(AuditEvent).where(AuditEvent.subject_id == request_id).order_by(AuditEvent.seq)
            ).all()
            events = session.scalars(select(RequestEvent).where(RequestEvent.request_id == request_id)).all()
        told = " ".join(f"{e.kind} {e.payload}" for e in trail) + " ".join(
            f"{e.message} {e.data}" for e in events
        )
        for stage in (
            "start_prepare",
            "start_train",
            "start_calibrate",
            "start_verify",
            "start_publish",
            "activate",
        ):
            assert any(e.event == stage for e in events)
            assert stage in told
        assert SUBJECT.name not in told


class TestResume:
    @pytest.mark.parametrize("stage", ["train", "calibrate", "measure"])
    def test_goes_on_after_the_last_finished_stage(
        self, world: PipelineWorld, stage: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        request_id = world.file()
        whole = getattr(stages, stage)
        with monkeypatch.context() as broken, world.replica():
            broken.setattr(stages, stage, _breaks)
            world.process(request_id)
        before = list(world.ran)
        assert getattr(stages, stage) is whole
        with world.replica():
            assert world.process(request_id) is State.ACTIVE
        order = ["prepare", "train", "calibrate", "measure"]
        assert before == order[: order.index(stage)]
        assert world.ran[len(before) :] == order[order.index(stage) :]
        assert len(published(world.runtime.experts_dir)) == 1

    def test_an_error_puts_the_request_back_into_the_queue_once(
        self, world: PipelineWorld, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        request_id = world.file()
        monkeypatch.setattr(stages, "prepare", _breaks)
        for _ in range(2):  # after the second the sweeper does, later
            assert world.process(request_id) is State.PREPARING
            with world.service.sessions() as session:
                jobs = select(OutboxMessage).where(OutboxMessage.request_id == request_id)
                assert len(session.scalars(jobs).all()) == 2

    def test_attempts_are_capped_in_sql(self, world: PipelineWorld, monkeypatch: pytest.MonkeyPatch) -> None:
        request_id = world.file()
        monkeypatch.setattr(stages, "prepare", _breaks)
        states = world.attempts(request_id, 5)
        assert states == [State.PREPARING] * 3 + [None] * 2
        row = world.row(request_id)
        assert (row.state, row.reason_code, row.attempt) == ("failed", "attempts_exhausted", 3)

    def test_damaged_files_are_made_again(
        self, world: PipelineWorld, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        request_id = world.file()
        with monkeypatch.context() as broken:
            broken.setattr(stages, "calibrate", _breaks)
            world.process(request_id)
        folder = world.runtime.experts_dir / ".work" / request_id
        (folder / "training-set").write_bytes(b"half a file")
        world.ran.clear()
        with world.replica():
            assert world.process(request_id) is State.ACTIVE
        assert world.ran == ["prepare", "train", "calibrate", "measure"]

    def test_killed_after_the_files_were_moved(
        self, world: PipelineWorld, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        request_id = world.file()
        with monkeypatch.context() as broken:
            broken.setattr(RegistryService, "publish", _breaks)
            world.process(request_id)
        assert world.row(request_id).state == "publishing"
        assert live(world) == 0
        with world.replica():
            assert world.process(request_id) is State.ACTIVE
        assert len(published(world.runtime.experts_dir)) == live(world) == 1

    @pytest.mark.parametrize("moved", [True, False])
    def test_damaged_after_it_was_verified(
        self, world: PipelineWorld, monkeypatch: pytest.MonkeyPatch, moved: bool
    ) -> None:
        request_id = world.file()
        with monkeypatch.context() as broken:
            owner: Any = RegistryService if moved else LocalStore
            broken.setattr(owner, "publish", _breaks)
            world.process(request_id)
        (weights,) = world.runtime.experts_dir.rglob("exp_*/1/adapter_model.safetensors")
        content = bytearray(weights.read_bytes())
        content[-1] ^= 1
        weights.write_bytes(content)
        with world.replica():
            assert world.process(request_id) is State.ACTIVE
        with world.service.sessions() as session:
            (row,) = RegistryService(session, world.service.settings).live_experts()
        load_expert(
            world.runtime.experts_dir / row.path, world.runtime.cipher, manifest_sha256=row.manifest_sha256
        )
        assert world.ran == ["prepare", "train", "calibrate", "measure", "calibrate", "measure"]


class TestFencing:
    def test_an_attempt_that_lost_its_lease_writes_nothing(
        self, world: PipelineWorld, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        request_id = world.file()
        calibrate = stages.calibrate

        @functools.wraps(calibrate)
        def overtaken(*arguments: Any) -> Any:
            with world.service.sessions.begin() as session:  # another worker's token
                session.execute(
                    update(LeaseRow).where(LeaseRow.request_id == request_id).values(token=LeaseRow.token + 1)
                )
            return calibrate(*arguments)

        monkeypatch.setattr(stages, "calibrate", overtaken)
        with world.replica():
            assert world.process(request_id) is State.CALIBRATING
        assert live(world) == 0
        assert published(world.runtime.experts_dir) == []


class TestInitialExpert:
    @pytest.fixture
    def warm(self, world: PipelineWorld, monkeypatch: pytest.MonkeyPatch) -> Recipe:
        """The default recipe starts from an initial expert, practised on two in one step each."""
        recipe = replace(QUICK, practice_subjects=2, practice_rounds=1, practice_steps=1)
        monkeypatch.setitem(RECIPES, "default", recipe)
        monkeypatch.setattr(initial, "build", functools.partial(build, sizes=SMALL))
        return recipe

    def test_made_once_and_named_in_every_experts_manifest(
        self, world: PipelineWorld, warm: Recipe, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        starts: list[Any] = []

        def noted(*arguments: Any, initial: Any, **named: Any) -> Any:
            starts.append(initial)
            return train_expert(*arguments, initial=initial, **named)

        monkeypatch.setattr(stages, "train_expert", noted)
        with world.replica():
            for name in (SUBJECT.name, "Somebody Else"):
                assert world.process(world.file(name)) is State.ACTIVE
        held = world.runtime.initial_expert(warm, ())
        (folder,) = (world.runtime.experts_dir / ".initial").glob("*/*")
        assert folder.name == warm.initial_name
        manifests = [
            json.loads((p / "manifest.json").read_text()) for p in published(world.runtime.experts_dir)
        ]
        assert [m["initial_expert"] for m in manifests] == [held.sha256] * 2
        assert all(start is held.weights for start in starts)

    def test_a_subject_it_was_practised_on_leaves_no_trace(self, world: PipelineWorld, warm: Recipe) -> None:
        first = world.runtime.initial_expert(warm, ())
        someone = practice_subjects(world.runtime.cohort(()), 1)[0]
        assert first.knows(someone.names)
        with world.replica():
            assert world.process(world.file(someone.names[0])) is State.ACTIVE
            assert world.process(world.file()) is State.ACTIVE
        second = world.runtime.initial_expert(warm, ())
        assert not second.knows(someone.names[:1])
        manifests = [
            json.loads((p / "manifest.json").read_text()) for p in published(world.runtime.experts_dir)
        ]
        assert [m["initial_expert"] for m in manifests] == [second.sha256] * 2

    def test_a_second_training_starts_from_nothing(
        self, world: PipelineWorld, warm: Recipe, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        starts: list[bool] = []

        def noted(*arguments: Any, initial: Any, **named: Any) -> Any:
            starts.append(initial is not None)
            return train_expert(*arguments, initial=initial, **named)

        monkeypatch.setattr(stages, "train_expert", noted)
        monkeypatch.setattr(Recipe, "stronger", lambda recipe: replace(recipe, practice_subjects=0))
        world.verdicts = [BAD]
        with world.replica():
            assert world.process(world.file()) is State.ACTIVE
        assert starts == [True, False]
        (expert,) = published(world.runtime.experts_dir)
        assert json.loads((expert / "manifest.json").read_text())["initial_expert"] is None


class TestCancel:
    def test_in_the_middle_of_training(self, world: PipelineWorld, monkeypatch: pytest.MonkeyPatch) -> None:
        request_id = world.file()
        steps: list[int] = []

        def cancelling(*arguments: Any, cancelled: Callable[[], bool], **named: Any) -> Any:
            def asked() -> bool:
                steps.append(1)
                if len(steps) == 2:
                    world.service.post(f"/requests/{request_id}/cancel")
                return cancelled()

            return train_expert(*arguments, cancelled=asked, **named)

        monkeypatch.setattr(stages, "train_expert", cancelling)
        monkeypatch.setattr("workers.attempt._CANCEL_SECONDS", 0.0)
        assert world.process(request_id) is State.CANCELLED
        assert len(steps) == 2
        assert world.work_files(request_id) == set()
        assert live(world) == 0

    def test_before_the_worker_comes(self, world: PipelineWorld) -> None:
        request_id = world.file()
        world.service.post(f"/requests/{request_id}/cancel")
        assert world.process(request_id) is None
        assert world.ran == []


class TestVerification:
    def test_falls_short_once_and_trains_stronger(self, world: PipelineWorld) -> None:
        world.verdicts = [BAD]
        request_id = world.file()
        with world.replica():
            assert world.process(request_id) is State.ACTIVE
        assert world.ran == ["prepare", "train", "calibrate", "measure", "train", "calibrate", "measure"]

    def test_the_second_training_is_a_stronger_one(
        self, world: PipelineWorld, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        recipes: list[Recipe] = []

        def noted(mllm: MLLM, forget: Any, retain: Any, recipe: Recipe, *more: Any, **named: Any) -> Any:
            recipes.append(recipe)
            return train_expert(mllm, forget, retain, recipe, *more, **named)

        monkeypatch.setattr(stages, "train_expert", noted)
        world.verdicts = [BAD, BAD]
        world.process(world.file())
        first, second = recipes
        assert replace(first.stronger(), seed=0) == replace(second, seed=0)
        assert second.max_steps > first.max_steps
        assert second.kl_weight > first.kl_weight
        assert second.seed != first.seed

    def test_falls_short_twice_and_waits_for_a_person(self, world: PipelineWorld) -> None:
        world.verdicts = [BAD, BAD]
        request_id = world.file()
        assert world.process(request_id) is State.NEEDS_ATTENTION
        row = world.row(request_id)
        assert row.reason_code == "verification_failed"
        assert "forget_quality 0.500 (needs 0.98" in str(row.reason)
        assert live(world) == 0
        with world.service.sessions() as session:
            kept = session.scalars(select(VerificationExample)).all()
        assert [(row.request_id, row.kind, row.n) for row in kept] == [(request_id, "failure", 1)]
        assert SUBJECT.name.encode() not in kept[0].sealed

    def test_retry_by_a_person_trains_afresh(self, world: PipelineWorld) -> None:
        world.verdicts = [BAD, BAD]
        request_id = world.file()
        world.process(request_id)
        world.ran.clear()
        assert world.service.post(f"/requests/{request_id}/retry", world.service.operator).status_code < 300
        with world.replica():
            assert world.process(request_id) is State.ACTIVE
        assert world.ran == ["train", "calibrate", "measure"]


class TestPublish:
    def test_no_replica_confirms(self, world: PipelineWorld, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pipeline, "ACKNOWLEDGE_SECONDS", 0.2)
        request_id = world.file()
        assert world.process(request_id) is State.NEEDS_ATTENTION
        assert world.row(request_id).reason_code == "replicas_silent"
        world.service.post(f"/requests/{request_id}/retry", world.service.operator)
        world.ran.clear()
        with world.replica():
            assert world.process(request_id) is State.ACTIVE
        assert world.ran == []
        assert len(published(world.runtime.experts_dir)) == live(world) == 1


class TestEvidence:
    def test_pictures_that_are_gone_are_asked_for(self, world: PipelineWorld) -> None:
        request_id = world.file()
        with world.service.sessions.begin() as session:
            session.execute(update(Evidence).values(sealed=None))
        assert world.process(request_id) is State.NEEDS_ATTENTION
        status = world.service.status(request_id)
        assert status["reason_code"] == "evidence_purged"
        assert "POST /requests/{id}/evidence" in status["reason"]


class TestConfiguration:
    def test_a_model_of_ones_own_needs_retain_data(self, world: PipelineWorld, tiny: MLLM) -> None:
        settings = world.service.settings.model_copy(update={"model": "/models/llava"})
        world.runtime = Runtime.start(settings, tiny)
        request_id = world.file()
        assert world.process(request_id) is State.NEEDS_ATTENTION
        row = world.row(request_id)
        assert row.reason_code == "configuration"
        assert "LETHE_RETAIN_DATA" in str(row.reason)

    def test_another_model_than_approved(self, world: PipelineWorld) -> None:
        request_id = world.file()
        with world.service.removal() as removal:
            policy = removal.policy(request_id).as_json() | {"model_fingerprint": "0" * 64}
            removal.requests.patch(request_id, policy=policy)
        assert world.process(request_id) is State.NEEDS_ATTENTION
        assert world.row(request_id).reason_code == "model_mismatch"


def _breaks(*_: Any, **__: Any) -> Any:
    raise OSError("no space left on device")
