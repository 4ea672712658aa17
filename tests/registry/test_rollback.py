"""Rolling back to an earlier generation: nothing that has ended comes back, nobody active loses protection.

Whether the result is sound is asked of the doctor, on real files.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import select, text

from app.db.models import AuditEvent
from app.doctor.findings import Check, Finding
from app.doctor.registry import check_files
from app.doctor.service import look
from app.kit.ids import expert_id_of
from app.registry.service import RegistryService
from app.removal.datakeys import DataKeys
from app.removal.erasure import ErasureService, erase_files
from app.removal.states import Event
from app.settings import get_settings
from tests.doctor.files import write
from tests.doctor.sound import activate
from tests.registry.test_interim import interims
from tests.registry.test_service import Ref, live, publish
from tests.service import Service
from tests.test_cli import lethe

ELSEWHERE = {Check.NO_REPLICA, Check.CHECKPOINT, Check.BROKER}
"""What a test without replicas and API process lacks."""


@pytest.fixture
def house(service: Service, tmp_path: Path) -> Service:
    """The service with an experts directory of its own."""
    settings = service.settings.model_copy(update={"experts_dir": tmp_path / "experts"})
    settings.experts_dir.mkdir()
    return Service(service.client, settings, service.sessions)


def active(house: Service, name: str) -> str:
    return activate(house, house.settings.experts_dir, name)


def rollback(house: Service, generation: int) -> int:
    with house.sessions.begin() as session:
        return RegistryService(session, house.settings).rollback(generation, actor="system:test")


def newest(house: Service) -> int:
    with house.sessions.begin() as session:
        return RegistryService(session, house.settings).newest()


def served(house: Service) -> list[tuple[str, int]]:
    return sorted((expert_id.replace("exp_", "req_"), version) for expert_id, version in live(house))


def findings(house: Service) -> list[Finding]:
    keys = DataKeys(house.sessions, house.settings)
    with house.sessions() as session:
        looked = look(session, house.settings)
        found = [*looked.findings, *check_files(house.settings, looked.live, keys)]
    return [finding for finding in found if finding.check not in ELSEWHERE]


def withdraw(house: Service, request_id: str) -> None:
    assert house.post(f"/requests/{request_id}/revoke").status_code == 200


class TestEnded:
    def test_a_revoked_requests_expert_does_not_come_back(self, house: Service) -> None:
        first, second = active(house, "A B"), active(house, "C D")
        both = newest(house)
        withdraw(house, second)
        rollback(house, both)
        assert (served(house), interims(house)) == ([(first, 1)], [])
        assert findings(house) == []

    def test_nor_an_erased_ones_whose_files_are_gone(self, house: Service) -> None:
        first, second = active(house, "A B"), active(house, "C D")
        both = newest(house)
        withdraw(house, second)
        with house.sessions.begin() as session:
            ErasureService(session).erase(second, actor="system:cli")
        erase_files(house.settings, second)
        rollback(house, both)
        assert served(house) == [(first, 1)]
        assert findings(house) == []

    def test_nor_one_that_failed_since_but_its_subject_stays_refused(self, house: Service) -> None:
        first = active(house, "A B")
        second = house.file("C D")["id"]
        lease = house.work_until(second, "publish")
        ref = write(house.settings.experts_dir, second, house.settings)
        number = publish(house, second, ref, lease.token)
        with house.removal() as removal:
            removal.transition(second, Event.FAIL, actor="worker:test", token=lease.token)
        rollback(house, number)
        assert (served(house), interims(house)) == ([(first, 1)], [second])
        assert findings(house) == []

    def test_interim_protection_of_a_request_that_was_cancelled_since(self, house: Service) -> None:
        first = active(house, "A B")
        second = house.file("C D")["id"]
        protected = newest(house)
        house.post(f"/requests/{second}/cancel")
        rollback(house, protected)
        assert (served(house), interims(house)) == ([(first, 1)], [])
        assert findings(house) == []


class TestActive:
    def test_one_that_became_active_later_keeps_its_expert(self, house: Service) -> None:
        first = active(house, "A B")
        before = newest(house)
        second = active(house, "C D")
        rollback(house, before)
        assert (served(house), interims(house)) == ([(first, 1), (second, 1)], [])
        assert findings(house) == []

    def test_before_everything(self, house: Service) -> None:
        first = active(house, "A B")
        waiting = house.file("C D")["id"]
        rollback(house, 0)
        assert (served(house), interims(house)) == ([(first, 1)], [waiting])
        assert findings(house) == []

    def test_the_version_of_then_comes_back(self, house: Service) -> None:
        request_id = house.file("A B")["id"]
        lease = house.work_until(request_id, "publish")
        for version in (1, 2):
            ref = write(house.settings.experts_dir, request_id, house.settings, version)
            publish(house, request_id, ref, lease.token)
        rollback(house, newest(house) - 1)
        assert served(house) == [(request_id, 1)]

    def test_one_approved_since_is_refused_all_the_same(self, house: Service) -> None:
        first = active(house, "A B")
        before = newest(house)
        second = house.file("C D")["id"]
        rollback(house, before)
        assert (served(house), interims(house)) == ([(first, 1)], [second])
        assert findings(house) == []

    def test_one_that_is_being_published_is_refused_without_its_expert(self, house: Service) -> None:
        before = newest(house)
        request_id = house.file("A B")["id"]
        lease = house.work_until(request_id, "publish")
        publish(house, request_id, Ref(expert_id_of(request_id)), lease.token)
        rollback(house, before)
        assert (served(house), interims(house)) == ([], [request_id])
        assert findings(house) == []


class TestRepair:
    def test_the_newest_generation_is_put_right(self, house: Service) -> None:
        """What an earlier release's rollback left behind: an expert of nobody, an active request without."""
        first, second, third = (active(house, name) for name in ("A B", "C D", "E F"))
        withdraw(house, second)
        number = newest(house)
        stray, lost = expert_id_of(second), expert_id_of(third)
        with house.sessions.begin() as session:
            session.execute(text("UPDATE generation_experts SET until_generation = :n WHERE expert_id = :id"),
                            {"id": lost, "n": number})  # fmt: skip
            session.execute(text("INSERT INTO generation_experts VALUES (:id, 1, :n)"),
                            {"id": stray, "n": number})  # fmt: skip
        assert {f.check for f in findings(house)} >= {Check.STRAY_EXPERT, Check.NO_EXPERT}
        rollback(house, number)
        assert served(house) == sorted([(first, 1), (third, 1)])
        assert findings(house) == []

    def test_twice_is_the_same(self, house: Service) -> None:
        active(house, "A B")
        house.file("C D")
        before = (served(house), interims(house))
        rollback(house, newest(house))
        rollback(house, newest(house))
        assert (served(house), interims(house)) == before
        assert findings(house) == []


class TestRecord:
    def test_says_what_was_kept_and_dropped(self, house: Service) -> None:
        first = active(house, "A B")
        before = newest(house)
        withdraw(house, first)
        active(house, "C D")
        number = rollback(house, before)
        with house.sessions() as session:
            event = session.scalars(select(AuditEvent).where(AuditEvent.kind == "registry.rollback")).one()
        assert (event.actor, event.payload) == (
            "system:test",
            {"generation": number, "experts": 1, "restored": before, "kept": 1, "dropped": 1},
        )

    def test_at_once_with_a_revocation(self, house: Service) -> None:
        """Whichever comes first: the expert of a request that was revoked is not served in the end."""
        ids = [active(house, f"Name {i}") for i in range(3)]
        number = newest(house)
        with ThreadPoolExecutor(5) as pool:
            back = [pool.submit(rollback, house, number) for _ in range(3)]
            list(pool.map(lambda request_id: withdraw(house, request_id), ids[:2]))
            assert len({one.result() for one in back}) == 3
        assert served(house) == [(ids[2], 1)]
        assert findings(house) == []

    def test_command(self, house: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        request_id = active(house, "A B")
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("LETHE_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("LETHE_DATABASE_URL", house.settings.database_url)
        monkeypatch.setenv("LETHE_REDIS_URL", house.settings.redis_url)
        get_settings.cache_clear()
        done, wrong = lethe("rollback", "0"), lethe("rollback", "99")
        get_settings.cache_clear()
        assert done.exit_code == 0, done.output
        assert "has 1 expert(s) as in generation 0" in done.stdout
        assert served(house) == [(request_id, 1)]
        assert wrong.exit_code == 5
        assert "There is no generation 99" in wrong.stderr
