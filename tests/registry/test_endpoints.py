"""GET /experts."""

from app.db.models import Replica
from app.kit.ids import new_id
from app.registry.repository import ReplicaRepository
from tests.registry.test_service import Ref, publish, published
from tests.service import Service, assert_problem


class TestExperts:
    def test_own_tenants_only(self, service: Service) -> None:
        published(service, "A B", "exp_a")
        request_id = service.file(key=service.stranger)["id"]
        lease = service.work_until(request_id, "publish")
        publish(service, request_id, Ref("exp_b"), lease.token)
        with service.sessions.begin() as session:
            replica = ReplicaRepository(session)
            replica.register(Replica(id=new_id("rep"), name="r"))
        own = service.get("/experts", service.operator).json()
        assert [item["id"] for item in own["items"]] == ["exp_a"]
        assert (own["generation"], own["acknowledged"], own["interim"]) == (4, False, 0)
        assert [replica["name"] for replica in own["replicas"]] == ["r"]
        everybody = service.get("/experts?limit=1", service.root).json()
        assert [item["id"] for item in everybody["items"]] == ["exp_b"]
        rest = service.get(f"/experts?cursor={everybody['next']}", service.root).json()
        assert [item["id"] for item in rest["items"]] == ["exp_a"]

    def test_interim(self, service: Service) -> None:
        own = service.file("A B")["id"]
        others = service.file("C D", key=service.stranger)["id"]
        assert service.get("/experts", service.operator).json()["interim"] == 2
        listed = service.get("/experts/interim", service.operator).json()
        assert [item["request_id"] for item in listed["items"]] == [own]
        assert listed["items"][0]["expert_id"] == own.replace("req_", "exp_")
        assert listed["items"][0]["since_generation"] == 1
        assert listed["items"][0]["protected_at"] is None
        first = service.get("/experts/interim?limit=1", service.root).json()
        assert [item["request_id"] for item in first["items"]] == [others]
        rest = service.get(f"/experts/interim?cursor={first['next']}", service.root).json()
        assert [item["request_id"] for item in rest["items"]] == [own]
        assert rest["next"] is None
        assert_problem(service.get("/experts/interim"), 403, "forbidden")

    def test_not_for_owners(self, shared: Service) -> None:
        assert_problem(shared.get("/experts"), 403, "forbidden")

    def test_not_for_auditors(self, shared: Service) -> None:
        assert_problem(shared.get("/experts", shared.auditor), 403, "forbidden")


class TestGenerations:
    def test_newest_first_and_others_requests_unnamed(self, service: Service) -> None:
        own = service.file("A B")["id"]
        service.file("C D", key=service.stranger)
        listed = service.get("/experts/generations", service.operator).json()
        assert [(g["number"], g["cause"], g["request_id"]) for g in listed["items"]] == [
            (2, "protect", None),
            (1, "protect", own),
        ]
        first = service.get("/experts/generations?limit=1", service.root).json()
        assert first["items"][0]["request_id"] is not None
        rest = service.get(f"/experts/generations?cursor={first['next']}", service.root).json()
        assert ([g["number"] for g in rest["items"]], rest["next"]) == ([1], None)


class TestRollback:
    def test_makes_a_generation(self, service: Service) -> None:
        published(service, "A B", "exp_a")
        found = service.post("/experts/rollback", service.root, json={"generation": 1}).json()
        assert (found["number"], found["cause"], found["restored_from"]) == (3, "rollback", 1)

    def test_unknown(self, service: Service) -> None:
        response = service.post("/experts/rollback", service.root, json={"generation": 9})
        assert_problem(response, 404, "generation-not-found")

    def test_one_tenant_cannot(self, shared: Service) -> None:
        response = shared.post("/experts/rollback", shared.operator, json={"generation": 0})
        assert "root" in assert_problem(response, 403, "forbidden")["hint"]
