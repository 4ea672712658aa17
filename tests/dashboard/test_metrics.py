"""`GET /metrics`, the service's half: what the database says."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text

from app.db.models import Replica
from app.registry.repository import ReplicaRepository
from app.removal.records import Score
from app.removal.states import State
from app.webhooks.delivery import Deliverer
from app.webhooks.sending import Sent
from tests.service import Service, assert_problem


def samples(service: Service) -> dict[tuple[str, str], float]:
    """Return values by name and the one label's value."""
    response = service.get("/metrics", service.key("watch", "metrics"))
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        (sample.name, "".join(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


class TestAccess:
    def test_anonymous(self, service: Service) -> None:
        assert_problem(service.client.get("/metrics"), 401, "unauthenticated")

    def test_other_scopes(self, service: Service) -> None:
        for key in (service.owner, service.operator, service.auditor, service.root):
            assert_problem(service.get("/metrics", key), 403, "forbidden")

    def test_its_scope_opens_nothing_else(self, service: Service) -> None:
        key = service.key("watch", "metrics")
        for path in ("/requests", "/experts", "/audit/events"):
            assert_problem(service.get(path, key), 403, "forbidden")


class TestFigures:
    def test_nothing_yet(self, service: Service) -> None:
        found = samples(service)
        assert {label for name, label in found if name == "lethe_requests"} == {
            state.value for state in State
        }
        assert sum(value for (name, _), value in found.items() if name == "lethe_requests") == 0
        assert found["lethe_jobs_waiting", ""] == found["lethe_jobs_oldest_seconds", ""] == 0
        assert found["lethe_registry_generation", ""] == 0

    def test_requests_jobs_leases_and_replicas(self, service: Service, manual: Service) -> None:
        first = service.file("Elodie Brandt")["id"]
        service.file("Mira Tovel", service.stranger)
        manual.file("Anna Brek")
        lease = service.lease(first)
        with service.sessions.begin() as session:
            replicas = ReplicaRepository(session)
            for name, generation, error in (("rep_a", 2, None), ("rep_b", -1, "broken")):
                replicas.register(Replica(id=name, name="host", generation=generation, error=error))
        found = samples(service)
        lease.release()
        assert found["lethe_requests", "queued"] == 2
        assert found["lethe_requests", "in_review"] == 1
        assert found["lethe_jobs_waiting", ""] == 2
        assert found["lethe_jobs_oldest_seconds", ""] > 0
        assert found["lethe_leases_live", ""] == 1
        assert found["lethe_interim_protections", ""] == found["lethe_registry_generation", ""] == 2
        assert found["lethe_replica_generation", "rep_a"] == 2
        assert found["lethe_replica_generation", "rep_b"] == -1
        assert (found["lethe_replica_failing", "rep_a"], found["lethe_replica_failing", "rep_b"]) == (0, 1)

    def test_nothing_personal(self, service: Service) -> None:
        filed = service.file("Elodie Brandt", aliases=["Lodi"], note="Remove her")
        text = service.get("/metrics", service.key("watch", "metrics")).text
        for secret in ("Elodie", "Lodi", "acme", "watch", filed["id"], filed["id"].removeprefix("req_")):
            assert secret not in text


def labelled(service: Service, name: str) -> dict[tuple[str, ...], float]:
    """Return one metric's values by the values of its labels, in the order of the labels' names."""
    text = service.get("/metrics", service.key("watch", "metrics")).text
    return {
        tuple(value for _, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name
    }


class TestWork:
    def test_stages(self, service: Service) -> None:
        request_id = service.file()["id"]
        service.work_until(request_id, "train").release()
        moments = {"preparing": 300, "training": 200}
        with service.sessions.begin() as session:
            for state, seconds in moments.items():
                session.execute(
                    text(
                        "UPDATE request_events SET created_at = now() - make_interval(secs => :s) "
                        "WHERE to_state = :state"
                    ),
                    {"s": seconds, "state": state},
                )
        found = labelled(service, "lethe_stage_seconds")
        assert found["0.5", "prepare"] == found["0.95", "prepare"] == pytest.approx(100, abs=1)
        assert ("0.5", "train") not in found, "it is still there"
        assert labelled(service, "lethe_stage_requests") == {
            ("prepare",): 1, ("train",): 0, ("calibrate",): 0, ("verify",): 0, ("publish",): 0,
        }  # fmt: skip

    def test_scores(self, service: Service) -> None:
        for name, value in (("A B", 1.0), ("C D", 0.5)):
            request_id = service.file(name)["id"]
            lease = service.work_until(request_id, "verify")
            score = Score("forget_quality", value, 40, threshold=0.98, passed=value >= 0.98)
            unknown = Score("prob", None, 0, reason="not measured")
            with service.removal() as removal:
                removal.save_scores(request_id, [score, unknown], attempt=1, token=lease.token)
            lease.release()
        found = labelled(service, "lethe_verification_score")
        assert found == {
            ("forget_quality", "mean"): 0.75, ("forget_quality", "min"): 0.5, ("forget_quality", "max"): 1.0,
        }  # fmt: skip
        assert labelled(service, "lethe_verifications") == {("forget_quality",): 2}
        assert labelled(service, "lethe_verifications_failed") == {("forget_quality",): 1}


class TestWebhooks:
    def test_waiting_delivered_and_failed(self, service: Service) -> None:
        service.post("/webhooks", json={"url": "https://hooks.example.org/"})
        service.file()
        assert labelled(service, "lethe_webhook_messages_waiting") == {(): 4}
        assert labelled(service, "lethe_webhook_messages_oldest_seconds")[()] > 0
        answers = iter([Sent(500, "status", 1), Sent(200, None, 1), Sent(410, "status", 1)])
        deliverer = Deliverer(service.sessions, service.settings, post=lambda *_, **__: next(answers))
        for _ in range(3):
            with service.sessions.begin() as session:
                session.execute(text("UPDATE webhook_messages SET next_at = now() - interval '1 second'"))
            assert deliverer.run_once() == 1
        assert labelled(service, "lethe_webhook_attempts") == {("delivered",): 1, ("failed",): 2}
        assert labelled(service, "lethe_webhooks") == {("enabled",): 0, ("disabled",): 1}
        assert labelled(service, "lethe_webhook_messages_waiting") == {(): 0}, "nobody expects them"
