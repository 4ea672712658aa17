"""Pictures are purged by policy: when, by whom it is known, and what goes on working without them."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import select, text

from app.db.models import AuditEvent, Evidence, VerificationExample
from app.doctor.findings import Check
from app.doctor.service import look
from app.removal.measurements import MeasurementService
from app.removal.retention import PURGED_IN, RetentionService, retention_words
from app.removal.states import FINAL, WORKING, Event, State
from tests.doctor.sound import activate
from tests.removal.active import activate_verified
from tests.service import Service, assert_problem, data_url, png
from workers.outbox import Purger

DAY = 24 * 3600


def age(service: Service, days: float) -> None:
    """Let every request have reached its state `days` earlier."""
    with service.sessions.begin() as session:
        session.execute(
            text("UPDATE removal_requests SET updated_at = updated_at - make_interval(secs => :s)"),
            {"s": days * DAY},
        )


def purge(service: Service) -> int:
    return Purger(service.sessions, service.settings).run_once()


def kept(service: Service, request_id: str) -> list[bool]:
    with service.sessions() as session:
        rows = session.scalars(select(Evidence).where(Evidence.request_id == request_id))
        return [row.sealed is not None for row in rows]


def events(service: Service, kind: str) -> list[AuditEvent]:
    with service.sessions() as session:
        return list(session.scalars(select(AuditEvent).where(AuditEvent.kind == kind)))


def attention(service: Service, name: str = "Elodie Brandt") -> str:
    request_id: str = service.file(name)["id"]
    lease = service.work_until(request_id, "verify")
    with service.removal() as removal:
        removal.transition(request_id, Event.NEED_ATTENTION, actor="worker:test", token=lease.token)
    lease.release()
    return request_id


def past_the_policy(service: Service, request_id: str) -> None:
    with service.sessions.begin() as session:
        session.execute(text("UPDATE evidence SET sealed = NULL, purged_at = clock_timestamp() "
                             "WHERE request_id = :id"), {"id": request_id})  # fmt: skip


class TestWhen:
    def test_days_after_the_request_is_active(self, service: Service) -> None:
        request_id = activate_verified(service)
        age(service, service.settings.evidence_retention_days - 0.01)
        assert (purge(service), kept(service, request_id)) == (0, [True])
        age(service, 0.02)
        assert (purge(service), kept(service, request_id)) == (1, [False])

    def test_at_once_if_so_configured(self, service: Service) -> None:
        request_id = activate_verified(service)
        settings = service.settings.model_copy(update={"evidence_retention_days": 0.0})
        assert Purger(service.sessions, settings).run_once() == 1
        assert kept(service, request_id) == [False]

    def test_of_a_linked_request_too(self, service: Service) -> None:
        activate_verified(service)
        linked = service.file(pictures=[data_url(png("blue"))])["id"]
        age(service, 8)
        assert (purge(service), kept(service, linked)) == (2, [False])

    @pytest.mark.parametrize("ending", ["revoke", "cancel"])
    def test_of_one_that_ended(self, service: Service, ending: str) -> None:
        request_id = activate_verified(service) if ending == "revoke" else service.file()["id"]
        assert service.post(f"/requests/{request_id}/{ending}").status_code == 200
        age(service, 8)
        assert (purge(service), kept(service, request_id)) == (1, [False])

    def test_never_of_one_that_may_be_trained_again_or_is_refused_by_them(self, service: Service) -> None:
        waiting, failed, queued = attention(service, "A B"), service.file("C D")["id"], service.file("E F")
        lease = service.work_until(failed, "train")
        with service.removal() as removal:
            removal.transition(failed, Event.FAIL, actor="worker:test", token=lease.token)
        age(service, 1000)
        assert purge(service) == 0
        assert [kept(service, id) for id in (waiting, failed, queued["id"])] == [[True]] * 3

    def test_by_every_state(self) -> None:
        assert {State.ACTIVE, State.REJECTED, State.CANCELLED, State.REVOKED} == PURGED_IN
        assert not PURGED_IN & {*WORKING, State.NEEDS_ATTENTION, State.NEEDS_EVIDENCE, State.FAILED}
        assert PURGED_IN < FINAL


class TestOnce:
    def test_again_does_nothing(self, service: Service) -> None:
        activate_verified(service)
        age(service, 8)
        assert [purge(service) for _ in range(3)] == [1, 0, 0]
        assert len(events(service, "evidence.purged")) == 1

    def test_many_at_once(self, service: Service) -> None:
        for i in range(3):
            activate_verified(service, f"Name {i}", expert_id=f"exp_{i}")
        age(service, 8)
        with ThreadPoolExecutor(4) as pool:
            assert sum(pool.map(lambda _: purge(service), range(4))) == 3
        assert len(events(service, "evidence.purged")) == 3

    def test_not_if_it_is_no_longer_due(self, service: Service) -> None:
        request_id = attention(service)
        age(service, 8)
        with service.sessions.begin() as session:
            assert RetentionService(session, service.settings).purge(request_id, actor="system:test") == 0
        assert kept(service, request_id) == [True]


class TestRecord:
    def test_is_audited_and_told_to_the_owner(self, service: Service) -> None:
        request_id = activate_verified(service)
        age(service, 8)
        purge(service)
        (event,) = events(service, "evidence.purged")
        assert (event.subject_id, event.actor) == (request_id, "system:retention")
        assert event.payload == {"n": 1, "because": "active"}
        assert "1 picture(s) deleted, 7 day(s) after" in service.get(f"/requests/{request_id}/events").text

    def test_the_doctor_finds_nothing(self, service: Service, tmp_path: Path) -> None:
        activate(service, tmp_path, "Elodie Brandt")
        age(service, 8)
        purge(service)
        with service.sessions() as session:
            found = {finding.check for finding in look(session, service.settings).findings}
        assert found <= {Check.NO_REPLICA, Check.CHECKPOINT, Check.BROKER}

    def test_the_report_says_how_long(self, service: Service) -> None:
        request_id = activate_verified(service)
        before = service.get(f"/requests/{request_id}/report").json()
        assert before["asked"]["pictures_kept"].startswith("1 kept, encrypted. They are deleted 7 day(s)")
        age(service, 8)
        purge(service)
        after = service.get(f"/requests/{request_id}/report?subject=true").json()
        assert after["asked"]["pictures_kept"].startswith("Deleted on ")
        assert after["asked"]["subject"]["name"] == "Elodie Brandt"
        assert after["exclusion_manifest"] == before["exclusion_manifest"]
        assert "Deleted on " in service.get(f"/requests/{request_id}/report?format=html").text

    def test_words(self) -> None:
        assert "none of these yet" in retention_words("needs_attention", 2, None, 7)
        assert retention_words("active", 0, None, 7) == "None is kept."

    @pytest.mark.parametrize(("state", "left"), [("active", ["before_after"]), ("revoked", [])])
    def test_examples_of_failures_go_with_them(self, service: Service, state: str, left: list[str]) -> None:
        request_id = service.file()["id"]
        lease = service.work_until(request_id, "verify")
        with service.sessions.begin() as session:
            measurements = MeasurementService(session, service.settings)
            for kind in ("failure", "regression", "before_after"):
                measurements.save_examples(request_id, kind, [{"q": "?"}], attempt=1, token=lease.token)
            session.execute(text("UPDATE removal_requests SET state = :s"), {"s": state})
        age(service, 8)
        assert purge(service) == 1
        with service.sessions() as session:
            assert list(session.scalars(select(VerificationExample.kind))) == left


class TestNeededAfterAll:
    def test_retry_says_what_to_do(self, service: Service) -> None:
        request_id = attention(service)
        past_the_policy(service, request_id)
        answer = service.post(f"/requests/{request_id}/retry", service.operator)
        problem = assert_problem(answer, 409, "evidence-purged")
        assert "POST /requests/{id}/evidence" in problem["hint"]
        assert service.status(request_id)["state"] == "needs_attention"

    def test_pictures_can_be_sent_again_even_the_same_ones(self, service: Service) -> None:
        request_id = attention(service)
        manifest = service.get(f"/requests/{request_id}/report").json()["exclusion_manifest"]
        past_the_policy(service, request_id)
        sent = {"pictures": [data_url(png())]}
        assert service.post(f"/requests/{request_id}/evidence", json=sent).json()["state"] == "queued"
        with service.removal() as removal:
            assert [picture.size for picture in removal.pictures(request_id)] == [(32, 24)]
        assert service.get(f"/requests/{request_id}/report").json()["exclusion_manifest"] == manifest

    def test_purged_ones_do_not_count_against_the_limit(self, service: Service) -> None:
        request_id = attention(service)
        past_the_policy(service, request_id)
        full = [data_url(png("blue", (8, 8 + i))) for i in range(service.settings.max_pictures)]
        assert service.post(f"/requests/{request_id}/evidence", json={"pictures": full}).status_code == 200
        assert sum(kept(service, request_id)) == service.settings.max_pictures
