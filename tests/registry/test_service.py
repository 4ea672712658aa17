"""Publishing, revoking, rolling back, acknowledging."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
import redis
from sqlalchemy import select, text, update

from app.db.models import AuditEvent, Replica
from app.kit.ids import new_id
from app.registry.errors import GenerationNotFound, NotLive, NotPublishing
from app.registry.generations import CHANNEL
from app.registry.repository import ReplicaRepository
from app.registry.service import ExpertRefLike, RegistryService, StalePublish
from tests.service import Service


@dataclass(frozen=True)
class Ref:
    """Stands for what `write_expert` returns."""

    expert_id: str
    version: int = 1
    manifest_sha256: str = "a" * 64
    bytes: int = 1000

    @property
    def path(self) -> str:
        return f"{self.expert_id}/{self.version}"


def publish(service: Service, request_id: str, ref: ExpertRefLike, token: int) -> int:
    with service.sessions.begin() as session:
        return RegistryService(session, service.settings).publish(request_id=request_id, ref=ref, token=token)


def live(service: Service, generation: int | None = None) -> list[tuple[str, int]]:
    with service.sessions.begin() as session:
        rows = RegistryService(session, service.settings).live_experts(generation)
        return [(row.id, row.version) for row in rows]


def published(service: Service, name: str, expert_id: str) -> str:
    request_id: str = service.file(name)["id"]
    lease = service.work_until(request_id, "publish")
    publish(service, request_id, Ref(expert_id), lease.token)
    return request_id


class TestPublish:
    def test_adds_to_the_newest(self, service: Service) -> None:
        assert live(service) == []
        published(service, "A B", "exp_a")
        published(service, "C D", "exp_b")
        assert live(service) == [("exp_a", 1), ("exp_b", 1)]
        assert live(service, 1) == []
        assert live(service, 2) == [("exp_a", 1)]
        with service.sessions() as session:
            events = select(AuditEvent.kind).where(AuditEvent.kind.like("registry.%"))
            kinds = session.scalars(events.order_by(AuditEvent.seq)).all()
            assert kinds == ["registry.protect", "registry.publish"] * 2

    def test_costs_what_it_changes(self, service: Service) -> None:
        """A row for each expert that came or went, and every generation is still known."""
        for name, expert_id in (("A B", "exp_a"), ("C D", "exp_b"), ("E F", "exp_c")):
            published(service, name, expert_id)
        with service.sessions.begin() as session:
            RegistryService(session, service.settings).revoke(
                service.get("/requests").json()["items"][1]["id"]
            )
            spans = session.execute(text("SELECT * FROM generation_experts ORDER BY 1")).all()
            sizes = session.execute(text("SELECT experts FROM generations ORDER BY number")).scalars().all()
        assert [tuple(row) for row in spans] == [
            ("exp_a", 1, 2, None), ("exp_b", 1, 4, 7), ("exp_c", 1, 6, None),
        ]  # fmt: skip
        assert sizes == [0, 1, 1, 2, 2, 3, 2]
        assert [len(live(service, n)) for n in range(1, 8)] == sizes

    def test_again_changes_nothing(self, service: Service) -> None:
        request_id = service.file()["id"]
        token = service.work_until(request_id, "publish").token
        assert publish(service, request_id, Ref("exp_a"), token) == 2
        assert publish(service, request_id, Ref("exp_a"), token) == 2
        assert live(service) == [("exp_a", 1)]

    def test_a_new_version_takes_the_old_ones_place(self, service: Service) -> None:
        request_id = service.file()["id"]
        token = service.work_until(request_id, "publish").token
        publish(service, request_id, Ref("exp_a"), token)
        assert publish(service, request_id, Ref("exp_a", 2), token) == 3
        assert live(service) == [("exp_a", 2)]

    def test_stale_token(self, service: Service) -> None:
        request_id = service.file()["id"]
        old = service.work_until(request_id, "publish")
        old.release()
        new = service.lease(request_id)
        with pytest.raises(StalePublish):
            publish(service, request_id, Ref("exp_a"), old.token)
        assert live(service) == []
        assert publish(service, request_id, Ref("exp_a"), new.token) == 2

    def test_only_while_publishing(self, service: Service) -> None:
        request_id = service.file()["id"]
        token = service.work_until(request_id, "verify").token
        with pytest.raises(NotPublishing):
            publish(service, request_id, Ref("exp_a"), token)

    def test_at_once_loses_none(self, service: Service) -> None:
        jobs = []
        for i in range(6):
            request_id = service.file(f"Name {i}")["id"]
            jobs.append((request_id, f"exp_{i}", service.work_until(request_id, "publish").token))
        with ThreadPoolExecutor(6) as pool:
            numbers = list(pool.map(lambda job: publish(service, job[0], Ref(job[1]), job[2]), jobs))
        assert sorted(numbers) == [7, 8, 9, 10, 11, 12]
        assert len(live(service)) == 6

    def test_wakes_replicas_after_the_commit_only(self, service: Service) -> None:
        request_id = service.file()["id"]
        token = service.work_until(request_id, "publish").token
        with redis.Redis.from_url(service.settings.redis_url) as client, client.pubsub() as channel:
            channel.subscribe(CHANNEL)
            assert channel.get_message(timeout=2)["type"] == "subscribe"
            session = service.sessions()
            RegistryService(session, service.settings).publish(
                request_id=request_id, ref=Ref("exp_a"), token=token
            )
            assert channel.get_message(timeout=0.2) is None
            session.rollback()
            session.close()
            assert channel.get_message(timeout=0.2) is None
            publish(service, request_id, Ref("exp_a"), token)
            assert channel.get_message(timeout=2)["data"] == b"2"

    def test_without_redis(self, service: Service) -> None:
        request_id = service.file()["id"]
        token = service.work_until(request_id, "publish").token
        settings = service.settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"})
        with service.sessions.begin() as session:
            registry = RegistryService(session, settings)
            registry.publish(request_id=request_id, ref=Ref("exp_a"), token=token)
        assert live(service) == [("exp_a", 1)]


class TestRevoke:
    def test_takes_out_this_one(self, service: Service) -> None:
        first = published(service, "A B", "exp_a")
        published(service, "C D", "exp_b")
        with service.sessions.begin() as session:
            assert RegistryService(session, service.settings).revoke(first) == 5
        assert live(service) == [("exp_b", 1)]

    def test_not_live(self, service: Service) -> None:
        with pytest.raises(NotLive), service.sessions.begin() as session:
            RegistryService(session, service.settings).revoke("req_x")


class TestRollback:
    def test_is_a_new_generation(self, service: Service) -> None:
        published(service, "A B", "exp_a")
        published(service, "C D", "exp_b")
        with service.sessions.begin() as session:
            assert RegistryService(session, service.settings).rollback(2) == 5
        assert live(service) == [("exp_a", 1)]

    def test_unknown_generation(self, service: Service) -> None:
        with pytest.raises(GenerationNotFound), service.sessions.begin() as session:
            RegistryService(session, service.settings).rollback(9)


class TestAcknowledged:
    def _replica(self, service: Service, generation: int) -> str:
        replica = Replica(id=new_id("rep"), name="r")
        with service.sessions.begin() as session:
            replicas = ReplicaRepository(session)
            replicas.register(replica)
            if generation > 0:
                replicas.acknowledge(replica.id, generation)
        return replica.id

    def _acknowledged(self, service: Service, generation: int) -> bool:
        with service.sessions.begin() as session:
            return RegistryService(session, service.settings).acknowledged(generation)

    def test_needs_every_live_replica(self, service: Service) -> None:
        published(service, "A B", "exp_a")
        assert not self._acknowledged(service, 1), "there is no replica"
        first = self._replica(service, 1)
        assert self._acknowledged(service, 1)
        second = self._replica(service, 0)
        assert not self._acknowledged(service, 1), "one does not serve it"
        with service.sessions.begin() as session:
            ReplicaRepository(session).failed(second, 1, "corrupt")
        assert not self._acknowledged(service, 1)
        with service.sessions.begin() as session:
            ReplicaRepository(session).acknowledge(second, 1)
        assert self._acknowledged(service, 1)
        assert not self._acknowledged(service, 2)
        with service.sessions.begin() as session:
            ReplicaRepository(session).stop(first)
            ReplicaRepository(session).stop(second)
        assert not self._acknowledged(service, 1)

    def test_a_dead_one_does_not_count(self, service: Service) -> None:
        published(service, "A B", "exp_a")
        self._replica(service, 1)
        dead = self._replica(service, 0)
        with service.sessions.begin() as session:
            session.execute(
                update(Replica)
                .where(Replica.id == dead)
                .values(heartbeat_at=text("clock_timestamp() - interval '1 hour'"))
            )
        assert self._acknowledged(service, 1)


class TestTakeBack:
    def undo(self, service: Service, request_id: str, generation: int, token: int) -> int:
        with service.sessions.begin() as session:
            return RegistryService(session, service.settings).take_back(
                request_id, generation, token=token, actor="worker:test", payload={"answers": 2}
            )

    def interims(self, service: Service) -> list[str]:
        with service.sessions.begin() as session:
            rows = RegistryService(session, service.settings).live_interims()
            return [row.request_id for row in rows]

    def test_equals_the_generation_before_and_the_subject_is_refused_again(self, service: Service) -> None:
        published(service, "A B", "exp_a")
        request_id = service.file("C D")["id"]
        token = service.work_until(request_id, "publish").token
        number = publish(service, request_id, Ref("exp_b"), token)
        restored = self.undo(service, request_id, number, token)
        assert restored == number + 1
        assert live(service, restored) == live(service, number - 1) == [("exp_a", 1)]
        assert self.interims(service) == [request_id]
        with service.sessions() as session:
            event = session.scalars(select(AuditEvent).where(AuditEvent.kind == "registry.rollback")).one()
        assert event.subject_id == request_id
        assert event.payload["because"] == "regression"
        assert (event.payload["restored"], event.payload["answers"]) == (number - 1, 2)

    def test_what_others_published_meanwhile_stays(self, service: Service) -> None:
        request_id = service.file("C D")["id"]
        token = service.work_until(request_id, "publish").token
        number = publish(service, request_id, Ref("exp_b"), token)
        published(service, "E F", "exp_c")
        self.undo(service, request_id, number, token)
        assert live(service) == [("exp_c", 1)]

    def test_an_earlier_version_comes_back(self, service: Service) -> None:
        request_id = service.file("C D")["id"]
        token = service.work_until(request_id, "publish").token
        publish(service, request_id, Ref("exp_b"), token)
        number = publish(service, request_id, Ref("exp_b", 2), token)
        self.undo(service, request_id, number, token)
        assert live(service) == [("exp_b", 1)]
        assert self.interims(service) == []

    def test_stale_token(self, service: Service) -> None:
        request_id = service.file("C D")["id"]
        token = service.work_until(request_id, "publish").token
        number = publish(service, request_id, Ref("exp_b"), token)
        with pytest.raises(StalePublish):
            self.undo(service, request_id, number, token + 1)
        assert live(service) == [("exp_b", 1)]

    def test_nothing_live(self, service: Service) -> None:
        request_id = service.file("C D")["id"]
        token = service.work_until(request_id, "publish").token
        with pytest.raises(NotLive):
            self.undo(service, request_id, 1, token)
