"""`GET /metrics`, the service's half: what the database says."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from app.db.models import Replica
from app.registry.repository import ReplicaRepository
from app.removal.states import State
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
