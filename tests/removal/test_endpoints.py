"""Reading requests and acting on them over HTTP."""

import hashlib
import json
import threading
import time

import pytest
from sqlalchemy import select, update

from app.db.models import AuditEvent, RemovalRequest
from app.registry.service import RegistryService
from app.removal.records import Score
from app.removal.states import Event
from tests.registry.test_service import Ref
from tests.removal.active import activate_verified
from tests.service import Json, Service, assert_problem, data_url, png

READS = ["", "/status", "/events", "/report", "/certificate"]
ACTIONS = ["approve", "reject", "cancel", "retry", "revoke", "evidence"]
BODIES: dict[str, Json] = {
    "reject": {"reason_code": "no_match"},
    "evidence": {"pictures": [data_url(png("green"))]},
}


def _events(text: str) -> list[Json]:
    return [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]


class TestGet:
    def test_without_subject(self, shared: Service) -> None:
        body = shared.file("Fern Adair", note="remark")
        response = shared.get(f"/requests/{body['id']}")
        assert response.status_code == 200
        assert response.json()["subject"] is None
        assert response.json()["pictures"] == 1
        assert "Fern" not in response.text

    def test_with_subject_is_audited(self, shared: Service) -> None:
        request_id = shared.file("Fern Adair 2")["id"]
        response = shared.get(f"/requests/{request_id}?subject=true")
        assert response.json()["subject"]["name"] == "Fern Adair 2"
        with shared.sessions() as session:
            event = session.scalars(
                select(AuditEvent).where(AuditEvent.subject_id == request_id).order_by(AuditEvent.seq.desc())
            ).first()
            assert event is not None
            assert (event.kind, event.actor) == ("evidence.read", shared.principal().key_id)

    @pytest.mark.parametrize("path", READS)
    @pytest.mark.parametrize("request_id", ["req_" + "0" * 32, "x", "%00", "a" * 2000, "..%2f..", "'; --"])
    def test_unknown(self, shared: Service, path: str, request_id: str) -> None:
        response = shared.get(f"/requests/{request_id}{path}")
        assert response.status_code == 404
        assert response.headers["content-type"] == "application/problem+json"

    @pytest.mark.parametrize("path", READS)
    def test_other_tenant(self, shared: Service, path: str) -> None:
        request_id = shared.file("Other Tenant")["id"]
        assert_problem(shared.get(f"/requests/{request_id}{path}", shared.stranger), 404, "request-not-found")

    @pytest.mark.parametrize("action", ACTIONS)
    def test_other_tenant_cannot_act(self, shared: Service, action: str) -> None:
        request_id = shared.file("Other Tenant")["id"]
        response = shared.post(
            f"/requests/{request_id}/{action}", shared.stranger, json=BODIES.get(action, {})
        )
        assert_problem(response, 404, "request-not-found")

    def test_root_sees_every_tenant(self, shared: Service) -> None:
        request_id = shared.file("Root Sees")["id"]
        assert shared.get(f"/requests/{request_id}/status", shared.root).status_code == 200

    @pytest.mark.parametrize("path", READS[:2])
    def test_anonymous(self, shared: Service, path: str) -> None:
        response = shared.client.get(f"/requests/req_x{path}")
        assert_problem(response, 401, "unauthenticated")
        assert response.headers["www-authenticate"].startswith("Bearer")

    def test_chat_scope_is_not_enough(self, shared: Service) -> None:
        key = shared.key("acme", "chat")
        assert_problem(shared.get("/requests", key), 403, "forbidden")

    @pytest.mark.parametrize("action", ["approve", "reject", "retry"])
    def test_owner_cannot_review(self, shared: Service, action: str) -> None:
        request_id = shared.file("Owner Review")["id"]
        response = shared.post(f"/requests/{request_id}/{action}", json=BODIES.get(action, {}))
        assert assert_problem(response, 403, "forbidden")["needs_one_of"] == ["operator"]

    @pytest.mark.parametrize("action", ACTIONS)
    def test_auditor_cannot_act(self, shared: Service, action: str) -> None:
        response = shared.post(f"/requests/req_x/{action}", shared.auditor, json=BODIES.get(action, {}))
        assert response.status_code == 403


class TestList:
    def test_pages_newest_first(self, service: Service) -> None:
        ids = [service.file(f"Name {i}")["id"] for i in range(5)]
        service.file(key=service.stranger)
        found: list[str] = []
        cursor: str | None = None
        for _ in range(3):
            query = f"&cursor={cursor}" if cursor else ""
            page = service.get(f"/requests?limit=2{query}").json()
            found += [item["id"] for item in page["items"]]
            cursor = page["next"]
        assert found == ids[::-1]
        assert cursor is None

    def test_by_state(self, service: Service) -> None:
        kept, cancelled = service.file("A B")["id"], service.file("C D")["id"]
        service.post(f"/requests/{cancelled}/cancel")
        assert [i["id"] for i in service.get("/requests?state=queued").json()["items"]] == [kept]
        both = service.get("/requests?state=queued&state=cancelled").json()["items"]
        assert len(both) == 2

    def test_root_sees_all_tenants(self, service: Service) -> None:
        service.file()
        service.file(key=service.stranger)
        assert len(service.get("/requests", service.root).json()["items"]) == 2

    @pytest.mark.parametrize(
        "query", ["cursor=%00", "cursor=!!", "cursor=aGk'", "limit=0", "limit=x", "state=?"]
    )
    def test_invalid_query(self, shared: Service, query: str) -> None:
        assert_problem(shared.get(f"/requests?{query}"), 422, "invalid-input")


class TestActions:
    def test_approve(self, manual: Service) -> None:
        request_id = manual.file()["id"]
        response = manual.post(f"/requests/{request_id}/approve", manual.operator)
        assert response.json()["state"] == "queued"
        again = manual.post(f"/requests/{request_id}/approve", manual.operator)
        problem = assert_problem(again, 409, "illegal-transition")
        assert problem["possible_in"] == ["in_review"]

    def test_reject(self, manual: Service) -> None:
        request_id = manual.file()["id"]
        response = manual.post(
            f"/requests/{request_id}/reject",
            manual.operator,
            json={"reason_code": "suspected_fraud", "reason": "not theirs"},
        )
        status = response.json()
        assert (status["state"], status["reason_code"]) == ("rejected", "suspected_fraud")
        assert status["final"]

    @pytest.mark.parametrize("bad", ["a\x00b", "\x1b[31mred", "\x85"])
    @pytest.mark.parametrize("action", ["approve", "reject", "revoke"])
    def test_a_reason_is_plain_text(self, manual: Service, action: str, bad: str) -> None:
        request_id = manual.file()["id"]
        body = BODIES.get(action, {}) | {"reason": bad}
        before = manual.status(request_id)["state"]
        answer = manual.post(f"/requests/{request_id}/{action}", manual.operator, json=body)
        assert_problem(answer, 422, "invalid-input")
        assert manual.status(request_id)["state"] == before

    def test_reject_needs_a_known_reason(self, manual: Service) -> None:
        request_id = manual.file()["id"]
        response = manual.post(
            f"/requests/{request_id}/reject", manual.operator, json={"reason_code": "mood"}
        )
        assert_problem(response, 422, "invalid-input")

    def test_cancel(self, shared: Service) -> None:
        request_id = shared.file("To Cancel")["id"]
        response = shared.post(f"/requests/{request_id}/cancel", json={"reason": "changed our mind"})
        assert (response.json()["state"], response.json()["reason"]) == ("cancelled", "changed our mind")

    def test_retry(self, shared: Service) -> None:
        request_id = shared.file("To Retry")["id"]
        lease = shared.work_until(request_id, "verify")
        with shared.removal() as removal:
            removal.transition(
                request_id, Event.NEED_ATTENTION, actor="w", token=lease.token, reason="leak above threshold"
            )
        waiting = shared.status(request_id)
        assert (waiting["state"], waiting["reason"]) == ("needs_attention", "leak above threshold")
        assert "retry" in waiting["hint"]
        status = shared.post(f"/requests/{request_id}/retry", shared.operator).json()
        assert (status["state"], status["attempt"], status["reason"]) == ("queued", 0, None)

    def test_evidence(self, shared: Service) -> None:
        request_id = shared.file("More Evidence", pictures=[])["id"]
        lease = shared.work_until(request_id, "calibrate")
        with shared.removal() as removal:
            removal.transition(request_id, Event.NEED_EVIDENCE, actor="w", token=lease.token)
        assert "evidence" in shared.status(request_id)["hint"]
        none = shared.post(f"/requests/{request_id}/evidence", json={"pictures": []})
        assert_problem(none, 422, "picture-invalid")
        response = shared.post(f"/requests/{request_id}/evidence", files=[("pictures", ("a.png", png()))])
        assert response.json()["state"] == "queued"
        assert shared.get(f"/requests/{request_id}").json()["pictures"] == 1

    def test_revoke(self, service: Service) -> None:
        request_id = service.file()["id"]
        lease = service.work_until(request_id, "publish")
        with service.sessions.begin() as session:
            RegistryService(session, service.settings).publish(
                request_id=request_id, ref=Ref("exp_a"), token=lease.token
            )
        with service.removal() as removal:
            removal.transition(request_id, Event.ACTIVATE, actor="w", token=lease.token)
        follower = service.file()["id"]
        refused = service.post(f"/requests/{request_id}/revoke")
        assert assert_problem(refused, 409, "linked-requests-stand")["linked"] == [follower]
        assert service.post(f"/requests/{follower}/revoke").json()["state"] == "revoked"
        assert service.status(request_id)["state"] == "active"
        assert service.post(f"/requests/{request_id}/revoke").json()["state"] == "revoked"
        with service.sessions.begin() as session:
            registry = RegistryService(session, service.settings)
            assert (registry.live_experts(), registry.live_interims()) == ([], [])

    @pytest.mark.parametrize("end", ["cancel", "reject", "fail"])
    def test_an_expert_that_was_published_in_vain_goes_out(self, service: Service, end: str) -> None:
        """Published, but a replica stayed silent: when the request ends, nothing of it stays live."""
        request_id = service.file()["id"]
        lease = service.work_until(request_id, "publish")
        with service.sessions.begin() as session:
            RegistryService(session, service.settings).publish(
                request_id=request_id, ref=Ref("exp_a"), token=lease.token
            )
        with service.removal() as removal:
            if end == "fail":
                removal.transition(request_id, Event.FAIL, actor="w", token=lease.token)
            else:
                removal.transition(request_id, Event.NEED_ATTENTION, actor="w", token=lease.token)
        if end != "fail":
            action = service.post(f"/requests/{request_id}/{end}", service.operator, json=BODIES.get(end, {}))
            assert action.status_code == 200
        assert service.status(request_id)["final"]
        with service.sessions.begin() as session:
            assert RegistryService(session, service.settings).live_experts() == []

    def test_revoke_before_active(self, shared: Service) -> None:
        request_id = shared.file("Not Active")["id"]
        assert_problem(shared.post(f"/requests/{request_id}/revoke"), 409, "illegal-transition")

    def test_unknown_body_field(self, shared: Service) -> None:
        request_id = shared.file("Unknown Field")["id"]
        response = shared.post(f"/requests/{request_id}/cancel", json={"why": "x"})
        assert_problem(response, 422, "invalid-input")


class TestStatus:
    def test_linked_one_shows_the_first_ones_work(self, service: Service) -> None:
        first, second = service.file()["id"], service.file()["id"]
        lease = service.work_until(first, "train")
        with service.removal() as removal:
            removal.progress(first, stage="train", percent=100, message="done", token=lease.token)
            removal.save_scores(first, [Score("leak", 0.0, 5)], attempt=1, token=lease.token)
        status = service.status(second)
        assert status["linked_to"] == first
        assert (status["state"], status["stage"], status["percent"]) == ("training", "train", 60)
        assert status["scores"][0]["metric"] == "leak"

    def test_eta_from_earlier_requests(self, service: Service) -> None:
        service.activate(service.file("A B")["id"])
        status = service.status(service.file("C D")["id"])
        assert status["state"] == "queued"
        assert status["eta"] is not None

    def test_times_are_utc(self, shared: Service) -> None:
        status = shared.status(shared.file("Time Zone")["id"])
        assert status["created_at"].endswith("Z")
        assert all(t["at"].endswith("Z") for t in status["transitions"])


class TestEvents:
    def test_all_then_the_end(self, shared: Service) -> None:
        request_id = shared.file("Follow Me")["id"]
        shared.activate(request_id)
        response = shared.get(f"/requests/{request_id}/events")
        assert response.headers["content-type"].startswith("text/event-stream")
        found = _events(response.text)
        assert [e["state"] for e in found][-1] == "active"
        assert [e["id"] for e in found] == sorted(e["id"] for e in found)

    def test_resumes(self, shared: Service) -> None:
        request_id = shared.file("Resume")["id"]
        shared.activate(request_id)
        found = _events(shared.get(f"/requests/{request_id}/events").text)
        rest = shared.get(f"/requests/{request_id}/events", headers={"Last-Event-ID": str(found[2]["id"])})
        assert _events(rest.text) == found[3:]
        done = shared.get(f"/requests/{request_id}/events", headers={"Last-Event-ID": str(found[-1]["id"])})
        assert done.status_code == 204

    def test_follows_what_happens_meanwhile(self, shared: Service) -> None:
        request_id = shared.file("Meanwhile")["id"]

        def work() -> None:
            time.sleep(0.4)
            lease = shared.work_until(request_id, "train")
            with shared.removal() as removal:
                removal.progress(request_id, stage="train", percent=10, message="m", token=lease.token)
            with shared.removal() as removal:
                removal.transition(request_id, Event.FAIL, actor="w", token=lease.token, reason="broke")

        thread = threading.Thread(target=work)
        thread.start()
        found = _events(shared.get(f"/requests/{request_id}/events").text)
        thread.join()
        assert [e["kind"] for e in found][-2:] == ["progress", "state"]
        assert found[-1]["state"] == "failed"

    @pytest.mark.parametrize("last", ["x", "-1", "9" * 30])
    def test_invalid_last_event_id(self, shared: Service, last: str) -> None:
        request_id = shared.file("Bad Last Id")["id"]
        response = shared.get(f"/requests/{request_id}/events", headers={"Last-Event-ID": last})
        assert_problem(response, 422, "invalid-input")


class TestReport:
    @pytest.fixture
    def active(self, service: Service) -> str:
        return activate_verified(service)

    def test_says_what_was_measured_and_nothing_personal(self, service: Service, active: str) -> None:
        response = service.get(f"/requests/{active}/report", service.auditor)
        report = response.json()
        assert report["scope"].startswith("Suppressed at this endpoint, not erased from the weights")
        assert report["measured"][0]["n"] == 40
        assert report["measured"][0]["interval_95"] == [0.912, 1.0]
        assert report["measured"][1]["reason"] == "needs a retrained model"
        assert report["passed"] is True
        assert report["exclusion_manifest"]["pictures"] == [hashlib.sha256(png()).hexdigest()]
        assert report["expert"]["id"] == "exp_a"
        assert report["policy"]["min_forget_quality"] == 0.98
        assert report["base_model"]["knows_subject"] is True
        assert report["audit"]["events"] > 5
        assert "Elodie" not in response.text

    def test_before_anything_was_measured(self, shared: Service) -> None:
        report = shared.get(f"/requests/{shared.file('Nothing Yet')['id']}/report").json()
        assert report["measured"] == []
        assert report["passed"] is None
        assert report["expert"] is None

    def test_no_certificate_before_active(self, shared: Service) -> None:
        request_id = shared.file("No Certificate")["id"]
        assert_problem(shared.get(f"/requests/{request_id}/certificate"), 409, "not-active")


def test_purged_evidence_says_so(service: Service) -> None:
    request_id = service.file()["id"]
    with service.sessions.begin() as session:
        session.execute(update(RemovalRequest).values(subject_sealed=None))
    assert_problem(service.get(f"/requests/{request_id}?subject=true"), 409, "evidence-purged")
    assert service.get(f"/requests/{request_id}/report").status_code == 200
