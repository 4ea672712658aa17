"""GET /experts."""

from app.db.models import Replica
from app.kit.ids import new_id
from app.registry.repository import ReplicaRepository
from tests.registry.test_service import Ref, publish, published
from tests.removal.active import activate_verified
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
    def test_newest_first(self, service: Service) -> None:
        request_id = activate_verified(service)
        steps = service.get("/experts/generations", service.operator).json()["items"]
        assert [(s["number"], s["cause"], s["request_id"]) for s in steps] == [
            (2, "publish", request_id),
            (1, "protect", request_id),
        ]

    def test_whose_is_said_only_of_ones_own(self, service: Service) -> None:
        activate_verified(service)
        steps = service.get("/experts/generations", service.stranger).json()["items"]
        assert [s["request_id"] for s in steps] == [None, None]

    def test_pages(self, service: Service) -> None:
        activate_verified(service)
        page = service.get("/experts/generations?limit=1", service.operator).json()
        following = service.get(f"/experts/generations?cursor={page['next']}", service.operator).json()
        assert [s["number"] for s in following["items"]] == [1]


class TestRollback:
    def test_by_root(self, service: Service) -> None:
        activate_verified(service)
        done = service.post("/experts/rollback", service.root, json={"generation": 2})
        assert done.status_code == 200, done.text
        assert (done.json()["number"], done.json()["cause"], done.json()["restored_from"]) == (
            3,
            "rollback",
            2,
        )

    def test_one_tenants_operator_may_not(self, service: Service) -> None:
        activate_verified(service)
        answer = service.post("/experts/rollback", service.operator, json={"generation": 2})
        assert_problem(answer, 403, "forbidden")

    def test_unknown_generation(self, service: Service) -> None:
        answer = service.post("/experts/rollback", service.root, json={"generation": 99})
        assert_problem(answer, 404, "generation-not-found")
