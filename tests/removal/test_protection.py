"""From approval to the end of a request, its subject is refused: with an expert or, until then, without."""

import pytest

from app.removal.service import RemovalService
from app.removal.states import Event, start_event
from tests.registry.test_interim import acknowledge, audited, interims, replica
from tests.registry.test_service import Ref, live, publish
from tests.service import Json, Service, data_url, png

DENIAL = {"reason_code": "no_match"}


def protection(service: Service, request_id: str) -> tuple[str | None, bool]:
    status: Json = service.status(request_id)
    return status["protection"], status["protected_at"] is not None


class TestStart:
    def test_at_automatic_approval(self, service: Service) -> None:
        request_id = service.file()["id"]
        assert interims(service) == [request_id]
        assert protection(service, request_id) == ("interim", False)
        acknowledge(service, replica(service), 1)
        assert protection(service, request_id) == ("interim", True)

    def test_at_approval_by_an_operator_and_not_before(self, manual: Service) -> None:
        request_id = manual.file()["id"]
        assert interims(manual) == []
        assert protection(manual, request_id) == (None, False)
        manual.post(f"/requests/{request_id}/approve", manual.operator)
        assert interims(manual) == [request_id]
        actors = audited(manual, request_id, "registry.%")
        assert actors == [("registry.protect", None)]

    def test_in_the_same_transaction(self, manual: Service) -> None:
        request_id = manual.file()["id"]
        session = manual.sessions()
        RemovalService(session, manual.settings).approve(request_id, actor="key_x")
        session.rollback()
        session.close()
        assert interims(manual) == []
        assert manual.status(request_id)["state"] == "in_review"

    def test_of_a_linked_request_is_that_of_the_first(self, service: Service) -> None:
        first, second = service.file()["id"], service.file()["id"]
        assert interims(service) == [first]
        assert protection(service, second) == ("interim", False)


class TestStays:
    def test_through_every_stage_and_wait(self, service: Service) -> None:
        request_id = service.file()["id"]
        lease = service.lease(request_id)
        for stage in ("prepare", "train", "calibrate", "verify"):
            with service.removal() as removal:
                removal.transition(request_id, start_event(stage), actor="w", token=lease.token)
            assert interims(service) == [request_id]
        with service.removal() as removal:
            removal.transition(request_id, Event.NEED_ATTENTION, actor="w", token=lease.token)
        assert protection(service, request_id) == ("interim", False)
        service.post(f"/requests/{request_id}/retry", service.operator)
        assert interims(service) == [request_id]
        assert len(audited(service, request_id)) == 1, "one start"

    def test_with_new_evidence_it_is_read_again(self, service: Service) -> None:
        request_id = service.file()["id"]
        acknowledge(service, replica(service), 1)
        lease = service.work_until(request_id, "calibrate")
        with service.removal() as removal:
            removal.transition(request_id, Event.NEED_EVIDENCE, actor="w", token=lease.token)
        assert protection(service, request_id) == ("interim", True)
        lease.release()
        more = service.post(f"/requests/{request_id}/evidence", json={"pictures": [data_url(png("blue"))]})
        assert more.json()["state"] == "queued"
        assert interims(service) == [request_id]
        assert protection(service, request_id) == ("interim", True), "still, by what was known before"

    def test_when_the_expert_failed(self, service: Service) -> None:
        """Published, silent replicas, attempts used up: the expert goes, the refusal stays."""
        request_id = service.file()["id"]
        lease = service.work_until(request_id, "publish")
        publish(service, request_id, Ref("exp_a"), lease.token)
        assert (protection(service, request_id), interims(service)) == (("expert", False), [])
        with service.removal() as removal:
            removal.transition(request_id, Event.FAIL, actor="w", token=lease.token)
        assert (live(service), interims(service)) == ([], [request_id])
        assert protection(service, request_id) == ("interim", False)
        revoked = service.post(f"/requests/{request_id}/revoke").json()
        assert (revoked["state"], revoked["protection"]) == ("revoked", None)
        assert interims(service) == []

    def test_a_new_request_takes_over_from_a_failed_one(self, service: Service) -> None:
        failed = service.file()["id"]
        with service.removal() as removal:
            removal.transition(failed, Event.FAIL, actor="w")
        assert interims(service) == [failed]
        again = service.file()["id"]
        other = service.file("Somebody Else")["id"]
        assert interims(service) == [again, other]
        assert audited(service, failed)[-1] == ("protection.end", "superseded")


class TestEnd:
    @pytest.mark.parametrize("end", ["cancel", "reject"])
    def test_with_the_request(self, service: Service, end: str) -> None:
        request_id = service.file()["id"]
        lease = service.work_until(request_id, "train")
        with service.removal() as removal:
            removal.transition(request_id, Event.NEED_ATTENTION, actor="w", token=lease.token)
        body = DENIAL if end == "reject" else {}
        ended = service.post(f"/requests/{request_id}/{end}", service.operator, json=body)
        assert ended.status_code == 200
        assert interims(service) == []
        assert protection(service, request_id) == (None, False)
        by = "rejected" if end == "reject" else "cancelled"
        assert audited(service, request_id) == [("protection.start", None), ("protection.end", by)]

    def test_revoked(self, service: Service) -> None:
        request_id = service.file()["id"]
        lease = service.work_until(request_id, "publish")
        publish(service, request_id, Ref("exp_a"), lease.token)
        with service.removal() as removal:
            removal.transition(request_id, Event.ACTIVATE, actor="w", token=lease.token)
        assert protection(service, request_id) == ("expert", True), "since it was active, if not before"
        service.post(f"/requests/{request_id}/revoke")
        assert (live(service), interims(service)) == ([], [])

    def test_rejected_before_approval_makes_no_generation(self, manual: Service) -> None:
        request_id = manual.file()["id"]
        manual.post(f"/requests/{request_id}/reject", manual.operator, json=DENIAL)
        assert audited(manual, request_id, "registry.%") == []
