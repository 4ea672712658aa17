"""The life cycle and what workers use."""

import itertools
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import func, select, update

from app.audit.service import AuditService
from app.db.models import AuditEvent, OutboxMessage, RemovalRequest, RequestEvent, StageCheckpoint
from app.kit.canonical import JsonValue
from app.kit.crypto import DecryptionError
from app.removal.errors import (
    IllegalTransition,
    LinkedRequestsStand,
    RequestNotFound,
    StaleLease,
    TooManyPictures,
)
from app.removal.filing import read_pictures
from app.removal.records import Policy, Score
from app.removal.service import RemovalService
from app.removal.states import Event, State, target
from tests.service import Service, png


class TestTransition:
    def test_every_pair_in_the_database(self, service: Service) -> None:
        """What the table allows happens, with its event and audit event; the rest changes nothing."""
        request_id = service.file()["id"]
        audited = select(func.count()).select_from(AuditEvent)
        transitions = audited.where(AuditEvent.kind.like("request.%"))
        for state, event in itertools.product(State, Event):
            with service.sessions.begin() as session:
                session.execute(update(RemovalRequest).values(state=state))
                before = session.scalar(transitions)
            expected = target(state, event)
            if expected is None:
                with pytest.raises(IllegalTransition), service.removal() as removal:
                    removal.transition(request_id, event, actor="test")
            else:
                with service.removal() as removal:
                    assert removal.transition(request_id, event, actor="test") is expected
            with service.sessions.begin() as session:
                assert session.scalar(select(RemovalRequest.state)) == (expected or state)
                after = session.scalar(transitions)
                assert (after or 0) - (before or 0) == (expected is not None)
        with service.sessions.begin() as session:
            assert AuditService(session).verify().intact

    def test_unknown_request(self, service: Service) -> None:
        with pytest.raises(RequestNotFound), service.removal() as removal:
            removal.transition("req_none", Event.CANCEL, actor="test")

    def test_rolled_back_leaves_nothing(self, service: Service) -> None:
        request_id = service.file()["id"]
        with service.sessions() as session:
            counts = [session.scalar(select(func.count()).select_from(m)) for m in (AuditEvent, RequestEvent)]
        session = service.sessions()
        RemovalService(session, service.settings).transition(request_id, Event.CANCEL, actor="test")
        session.rollback()
        session.close()
        with service.sessions() as session:
            assert counts == [
                session.scalar(select(func.count()).select_from(m)) for m in (AuditEvent, RequestEvent)
            ]
        assert service.status(request_id)["state"] == "queued"

    def test_stale_token(self, service: Service) -> None:
        request_id = service.file()["id"]
        old = service.lease(request_id)
        old.release()
        new = service.lease(request_id)
        assert new.token > old.token
        with pytest.raises(StaleLease), service.removal() as removal:
            removal.transition(request_id, Event.START_PREPARE, actor="w", token=old.token)
        with service.removal() as removal:
            removal.transition(request_id, Event.START_PREPARE, actor="w", token=new.token)

    def test_no_lease_no_token(self, service: Service) -> None:
        request_id = service.file()["id"]
        with pytest.raises(StaleLease), service.removal() as removal:
            removal.transition(request_id, Event.START_PREPARE, actor="w", token=1)

    def test_one_of_many_at_once_wins(self, manual: Service) -> None:
        request_id = manual.file()["id"]

        def approve(_: int) -> bool:
            try:
                with manual.removal() as removal:
                    removal.approve(request_id, actor="test")
            except IllegalTransition:
                return False
            return True

        with ThreadPoolExecutor(6) as pool:
            assert sum(pool.map(approve, range(6))) == 1
        with manual.sessions() as session:
            assert session.scalar(select(func.count()).select_from(OutboxMessage)) == 1

    def test_reasons_are_under_the_hash_as_tokens_only(self, service: Service) -> None:
        request_id = service.file()["id"]
        with service.removal() as removal:
            removal.transition(
                request_id, Event.CANCEL, actor="test", reason="Elodie asked", data={"who": "Elodie"}
            )
        with service.sessions() as session:
            last = session.scalars(select(AuditEvent).where(AuditEvent.kind == "request.cancel")).one()
            assert "Elodie" not in str(last.payload)
            assert len(str(last.payload["reason_token"])) == 64
        assert service.status(request_id)["reason"] == "Elodie asked"


class TestApprove:
    def test_snapshots_the_policy(self, service: Service) -> None:
        request_id = service.file()["id"]
        changed = service.settings.model_copy(update={"min_forget_quality": 0.5, "max_attempts": 9})
        with service.sessions.begin() as session:
            policy = RemovalService(session, changed).policy(request_id)
        assert policy == Policy.of(service.settings, None)
        assert policy.min_forget_quality == 0.98

    def test_no_policy_before(self, manual: Service) -> None:
        request_id = manual.file()["id"]
        with pytest.raises(IllegalTransition), manual.removal() as removal:
            removal.policy(request_id)


class TestCancel:
    def test_at_once_when_nobody_works_on_it(self, service: Service) -> None:
        request_id = service.file()["id"]
        with service.removal() as removal:
            assert removal.cancel(request_id, actor="test") is State.CANCELLED

    def test_by_a_flag_while_a_worker_does(self, service: Service) -> None:
        request_id = service.file()["id"]
        lease = service.work_until(request_id, "train")
        with service.removal() as removal:
            assert not removal.cancel_requested(request_id)
            assert removal.cancel(request_id, actor="test") is State.TRAINING
            assert removal.cancel(request_id, actor="test") is State.TRAINING
            assert removal.cancel_requested(request_id)
        with service.removal() as removal:
            done = removal.transition(request_id, Event.CANCEL, actor="w", token=lease.token)
            assert done is State.CANCELLED

    def test_not_while_publishing(self, service: Service) -> None:
        request_id = service.file()["id"]
        service.work_until(request_id, "publish")
        with pytest.raises(IllegalTransition), service.removal() as removal:
            removal.cancel(request_id, actor="test")

    def test_not_while_others_follow(self, service: Service) -> None:
        first, second = service.file()["id"], service.file()["id"]
        with pytest.raises(LinkedRequestsStand) as raised, service.removal() as removal:
            removal.cancel(first, actor="test")
        assert raised.value.extra["linked"] == [second]
        with service.removal() as removal:
            removal.cancel(second, actor="test")
            removal.cancel(first, actor="test")

    def test_not_while_others_follow_one_that_is_worked_on(self, service: Service) -> None:
        first, second = service.file()["id"], service.file()["id"]
        service.work_until(first, "train")
        with pytest.raises(LinkedRequestsStand) as raised, service.removal() as removal:
            removal.cancel(first, actor="test")
        assert raised.value.extra["linked"] == [second]

    def test_withdrawn_by_one_that_follows_before_the_worker_saw_it(self, service: Service) -> None:
        first = service.file()["id"]
        lease = service.work_until(first, "train")
        with service.removal() as removal:
            removal.cancel(first, actor="test")
        assert service.file()["linked_to"] == first
        with service.removal() as removal:
            assert not removal.cancel_requested(first)
            going_on = removal.transition(first, Event.START_CALIBRATE, actor="w", token=lease.token)
        assert going_on is State.CALIBRATING

    def test_a_follower_alone(self, service: Service) -> None:
        first, second = service.file()["id"], service.file()["id"]
        service.work_until(first, "train")
        with service.removal() as removal:
            assert removal.cancel(second, actor="test") is State.CANCELLED
            assert removal.state(first) is State.TRAINING
            removal.transition(first, Event.START_CALIBRATE, actor="test")
            assert removal.state(second) is State.CANCELLED


class TestAddEvidence:
    def test_back_into_the_queue(self, service: Service) -> None:
        request_id = service.file()["id"]
        lease = service.work_until(request_id, "calibrate")
        with service.removal() as removal:
            removal.save_checkpoint(request_id, "prepare", {"a": 1}, token=lease.token)
            removal.transition(request_id, Event.NEED_EVIDENCE, actor="w", token=lease.token)
        with service.removal() as removal:
            pictures = read_pictures([png("blue"), png()], service.settings)
            assert removal.add_evidence(request_id, pictures, actor="test") is State.QUEUED
            assert len(removal.pictures(request_id)) == 2, "the same file is kept once"
            assert removal.checkpoint(request_id, "prepare") is None, "made from other pictures"
            assert removal.attempt(request_id) == 0

    def test_too_many(self, service: Service) -> None:
        request_id = service.file()["id"]
        pictures = read_pictures([png()] * 16, service.settings)
        with pytest.raises(TooManyPictures), service.removal() as removal:
            removal.add_evidence(request_id, pictures, actor="test")

    def test_not_wanted(self, service: Service) -> None:
        request_id = service.file()["id"]
        with pytest.raises(IllegalTransition), service.removal() as removal:
            removal.add_evidence(request_id, read_pictures([png()], service.settings), actor="test")


class TestFollowers:
    def test_cannot_be_worked_on(self, service: Service) -> None:
        service.file()
        second = service.file()["id"]
        with pytest.raises(IllegalTransition) as raised, service.removal() as removal:
            removal.transition(second, Event.START_PREPARE, actor="w")
        assert "follows" in raised.value.detail

    def test_every_state_is_followed_with_its_own_history(self, service: Service) -> None:
        first, second = service.file()["id"], service.file()["id"]
        service.activate(first)
        states = [t["state"] for t in service.status(second)["transitions"]]
        assert states == [
            "received", "queued", "preparing", "training", "calibrating", "verifying", "publishing", "active",
        ]  # fmt: skip


class TestSubject:
    def test_access_is_audited(self, service: Service) -> None:
        request_id = service.file(note="n", facts={"born": "Ghent"}, aliases=["E.", "E.", " "])["id"]
        with service.removal() as removal:
            subject = removal.subject(request_id, actor="worker:7")
            assert (subject.klass, subject.note, dict(subject.facts)) == ("Personage", "n", {"born": "Ghent"})
            assert subject.aliases == ("E.",)
            removal.pictures(request_id, actor="worker:7")
        with service.sessions() as session:
            reads = session.scalars(select(AuditEvent).where(AuditEvent.kind == "evidence.read")).all()
            assert [(e.actor, e.subject_id) for e in reads] == [("worker:7", request_id)] * 2

    def test_swapped_ciphertexts_are_noticed(self, service: Service) -> None:
        first, second = service.file("A B")["id"], service.file("C D")["id"]
        with service.sessions.begin() as session:
            a, b = session.get_one(RemovalRequest, first), session.get_one(RemovalRequest, second)
            a.subject_sealed, b.subject_sealed = b.subject_sealed, a.subject_sealed
        with pytest.raises(DecryptionError), service.removal() as removal:
            removal.subject(first)


class TestProgress:
    def test_shows_in_status(self, service: Service) -> None:
        request_id = service.file()["id"]
        lease = service.work_until(request_id, "train")
        with service.removal() as removal:
            removal.progress(request_id, stage="train", percent=50, message="step 10", token=lease.token)
        status = service.status(request_id)
        assert (status["stage"], status["percent"], status["message"]) == ("train", 35, "step 10")
        assert status["eta"] > status["created_at"]
        assert status["attempt"] == 1

    def test_stale_token(self, service: Service) -> None:
        request_id = service.file()["id"]
        lease = service.lease(request_id)
        with pytest.raises(StaleLease), service.removal() as removal:
            removal.progress(request_id, stage="train", percent=1, message="", token=lease.token + 1)


class TestCheckpoint:
    def test_round_trip(self, service: Service) -> None:
        request_id = service.file()["id"]
        token = service.lease(request_id).token
        artifact: dict[str, JsonValue] = {
            "path": "work/1",
            "loss": 0.25,
            "n": 3,
            "nested": {"list": [1, 2.5, None, True]},
        }
        with service.removal() as removal:
            assert removal.checkpoint(request_id, "prepare") is None
            removal.save_checkpoint(request_id, "prepare", artifact, token=token)
        with service.removal() as removal:
            found = removal.checkpoint(request_id, "prepare")
            assert found is not None
            assert found.artifact == artifact

    def test_an_earlier_stage_again_drops_the_later_ones(self, service: Service) -> None:
        request_id = service.file()["id"]
        token = service.lease(request_id).token
        with service.removal() as removal:
            for stage in ("prepare", "train", "calibrate"):
                removal.save_checkpoint(request_id, stage, {}, token=token)
            removal.save_checkpoint(request_id, "train", {"again": True}, token=token)
            found = [removal.checkpoint(request_id, s) is not None for s in ("prepare", "train", "calibrate")]
            assert found == [True, True, False]

    def test_a_changed_one_does_not_count(self, service: Service) -> None:
        request_id = service.file()["id"]
        token = service.lease(request_id).token
        with service.removal() as removal:
            removal.save_checkpoint(request_id, "prepare", {"n": 1}, token=token)
        with service.sessions.begin() as session:
            session.execute(update(StageCheckpoint).values(artifact={"n": 2}))
        with service.removal() as removal:
            assert removal.checkpoint(request_id, "prepare") is None

    def test_stale_token(self, service: Service) -> None:
        request_id = service.file()["id"]
        with pytest.raises(StaleLease), service.removal() as removal:
            removal.save_checkpoint(request_id, "prepare", {}, token=7)


class TestScores:
    def test_newest_attempt_in_status(self, service: Service) -> None:
        request_id = service.file()["id"]
        token = service.lease(request_id).token
        good = Score("forget_quality", 1.0, 40, 0.91, 1.0, 0.98, True, details={"by": {"image": 1}})
        unmeasured = Score("mia_auc", None, 0, reason="needs a retrained model")
        with service.removal() as removal:
            assert removal.scores(request_id) == []
            removal.save_scores(
                request_id, [Score("leak", 0.5, 10, threshold=0, passed=False)], attempt=1, token=token
            )
            removal.save_scores(request_id, [good, unmeasured], attempt=2, token=token)
            removal.save_scores(request_id, [good, unmeasured], attempt=2, token=token)
        assert service.status(request_id)["scores"] == [
            {
                "metric": "forget_quality", "value": 1.0, "n": 40, "low": 0.91, "high": 1.0,
                "threshold": 0.98, "passed": True, "reason": None, "details": {"by": {"image": 1}},
            },
            {
                "metric": "mia_auc", "value": None, "n": 0, "low": None, "high": None, "threshold": None,
                "passed": None, "reason": "needs a retrained model", "details": {},
            },
        ]  # fmt: skip

    def test_base_knowledge(self, service: Service) -> None:
        request_id = service.file()["id"]
        token = service.lease(request_id).token
        assert service.status(request_id)["base_knows_subject"] is None
        with service.removal() as removal:
            removal.record_base_knowledge(request_id, False, token=token)
        assert service.status(request_id)["base_knows_subject"] is False
