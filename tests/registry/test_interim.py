"""Interim protection in the registry: which generations have it, who knows since when, what ends it."""

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import literal, select

from app.db.models import AuditEvent, InterimProtection, Replica
from app.kit.ids import new_id
from app.registry.generations import GenerationWriter
from app.registry.repository import ReplicaRepository, protection_of
from app.registry.service import RegistryService
from tests.registry.test_service import Ref, live, publish, published
from tests.service import Service


def interims(service: Service, generation: int | None = None) -> list[str]:
    with service.sessions.begin() as session:
        rows = RegistryService(session, service.settings).live_interims(generation)
        return [row.request_id for row in rows]


class Protection(NamedTuple):
    kind: str
    since: datetime | None


def protection(service: Service, request_id: str) -> Protection | None:
    with service.sessions.begin() as session:
        since, by_expert, by_rule = session.execute(select(*protection_of(literal(request_id)))).one()
    kind = "expert" if by_expert else "interim" if by_rule else None
    return Protection(kind, since) if kind else None


def audited(service: Service, request_id: str, like: str = "protection.%") -> list[tuple[str, Any]]:
    with service.sessions() as session:
        events = session.scalars(
            select(AuditEvent)
            .where(AuditEvent.kind.like(like), AuditEvent.subject_id == request_id)
            .order_by(AuditEvent.seq)
        ).all()
        return [(event.kind, event.payload.get("by")) for event in events]


def replica(service: Service) -> str:
    made = Replica(id=new_id("rep"), name="r")
    with service.sessions.begin() as session:
        ReplicaRepository(session).register(made)
    return made.id


def acknowledge(service: Service, replica_id: str, generation: int) -> None:
    with service.sessions.begin() as session:
        RegistryService(session, service.settings).acknowledge(replica_id, generation)


class TestProtect:
    def test_twice_changes_nothing(self, service: Service) -> None:
        request_id = service.file()["id"]
        assert interims(service) == [request_id]
        with service.sessions.begin() as session:
            writer = GenerationWriter(session, None)
            assert writer.protect(request_id, actor="a", tenant_id=None) is None
        assert interims(service) == [request_id]

    def test_not_beside_the_expert(self, service: Service) -> None:
        request_id = published(service, "A B", "exp_a")
        with service.sessions.begin() as session:
            writer = GenerationWriter(session, None)
            assert writer.protect(request_id, actor="a", tenant_id=None) is None
        assert interims(service) == []

    def test_renewed_is_another_entry(self, service: Service) -> None:
        request_id = service.file()["id"]
        with service.sessions.begin() as session:
            first = RegistryService(session, service.settings).live_interims()
            number = GenerationWriter(session, None).protect(
                request_id, actor="a", tenant_id=None, renew=True
            )
            second = RegistryService(session, service.settings).live_interims()
            assert RegistryService(session, service.settings).live_interims(1) == first
        assert number == 2
        assert [row.request_id for row in second] == [request_id]
        assert second[0].id != first[0].id

    def test_leaves_the_live_experts(self, service: Service) -> None:
        published(service, "A B", "exp_a")
        request_id = service.file("C D")["id"]
        assert live(service) == [("exp_a", 1)]
        assert interims(service) == [request_id]


class TestPublish:
    def test_takes_the_place_of_the_interim_entry_in_one_generation(self, service: Service) -> None:
        other = service.file("C D")["id"]
        request_id = service.file("A B")["id"]
        token = service.work_until(request_id, "publish").token
        number = publish(service, request_id, Ref("exp_a"), token)
        assert (interims(service, number - 1), live(service, number - 1)) == ([other, request_id], [])
        assert (interims(service, number), live(service, number)) == ([other], [("exp_a", 1)])
        assert audited(service, request_id)[-1] == ("protection.end", "publish")
        assert protection(service, request_id) == Protection("expert", None)


class TestConfirm:
    def test_when_the_last_live_replica_has_acknowledged(self, service: Service) -> None:
        first, second = replica(service), replica(service)
        request_id = service.file()["id"]
        assert protection(service, request_id) == Protection("interim", None)
        acknowledge(service, first, 1)
        assert protection(service, request_id) == Protection("interim", None)
        acknowledge(service, second, 1)
        found = protection(service, request_id)
        assert found is not None
        assert found.since is not None
        assert audited(service, request_id) == [("protection.start", None), ("protection.confirmed", None)]
        later = replica(service)
        acknowledge(service, later, 1)
        assert protection(service, request_id) == found, "the first time counts"

    def test_at_once(self, service: Service) -> None:
        """Whichever of several acknowledgements comes last, somebody notes that it was the last."""
        replicas = [replica(service) for _ in range(6)]
        request_id = service.file()["id"]
        with ThreadPoolExecutor(6) as pool:
            list(pool.map(lambda id: acknowledge(service, id, 1), replicas))
        found = protection(service, request_id)
        assert found is not None
        assert found.since is not None
        assert [kind for kind, _ in audited(service, request_id)].count("protection.confirmed") == 1

    def test_without_a_replica(self, service: Service) -> None:
        request_id = service.file()["id"]
        with service.sessions.begin() as session:
            RegistryService(session, service.settings).confirm()
        assert protection(service, request_id) == Protection("interim", None)

    def test_first_by_the_expert(self, service: Service) -> None:
        request_id = published(service, "A B", "exp_a")
        acknowledge(service, replica(service), 2)
        found = protection(service, request_id)
        assert found is not None
        assert (found.kind, found.since is not None) == ("expert", True)

    def test_not_once_it_has_ended(self, service: Service) -> None:
        request_id = service.file()["id"]
        service.post(f"/requests/{request_id}/cancel")
        acknowledge(service, replica(service), 2)
        with service.sessions() as session:
            assert session.scalars(select(InterimProtection.protected_at)).all() == [None]
        assert protection(service, request_id) is None


class TestRollback:
    def test_who_loses_an_expert_is_refused_without_one(self, service: Service) -> None:
        first = published(service, "A B", "exp_a")
        second = published(service, "C D", "exp_b")
        with service.sessions.begin() as session:
            RegistryService(session, service.settings).rollback(2)
        assert (live(service), interims(service)) == ([("exp_a", 1)], [second])
        with service.sessions.begin() as session:
            RegistryService(session, service.settings).rollback(4)
        assert (live(service), interims(service)) == ([("exp_a", 1), ("exp_b", 1)], [])
        assert protection(service, first) == Protection("expert", None)
