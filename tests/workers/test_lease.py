"""Leases: one holder, fencing tokens, attempts counted and capped."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session, sessionmaker

from app.db.models import LeaseRow, RemovalRequest
from app.db.session import SessionFactory
from app.removal.states import Event
from tests.service import Service
from workers import lease as lease_module
from workers.lease import Lease, LeaseLost, acquire


@pytest.fixture
def request_id(service: Service) -> str:
    found: str = service.file()["id"]
    return found


def _expire(sessions: SessionFactory) -> None:
    with sessions.begin() as session:
        session.execute(text("UPDATE leases SET expires_at = clock_timestamp() - interval '1 second'"))


def _attempt(sessions: SessionFactory, request_id: str) -> int:
    with sessions() as session:
        return session.get_one(RemovalRequest, request_id).attempt


class TestAcquire:
    def test_one_of_many_at_once(self, sessions: SessionFactory, request_id: str) -> None:
        with ThreadPoolExecutor(8) as pool:
            leases = list(pool.map(lambda i: acquire(sessions, request_id, f"w{i}", 30), range(8)))
        held = [lease for lease in leases if lease is not None]
        assert len(held) == 1
        assert held[0].token == 1
        assert _attempt(sessions, request_id) == 1

    def test_after_it_ran_out_with_a_higher_token(
        self,
        sessions: SessionFactory,
        request_id: str,
    ) -> None:
        first = acquire(sessions, request_id, "a", 30)
        assert first is not None
        _expire(sessions)
        second = acquire(sessions, request_id, "b", 30)
        assert second is not None
        assert second.token == first.token + 1
        assert not first.renew()
        first.release()
        assert acquire(sessions, request_id, "c", 30) is None, "an old holder cannot release the new lease"
        assert _attempt(sessions, request_id) == 2

    def test_unknown_request(self, sessions: SessionFactory) -> None:
        assert acquire(sessions, "req_x", "a", 30) is None

    def test_final_waiting_and_linked_requests_are_left_alone(self, service: Service) -> None:
        first, second = service.file("A B")["id"], service.file("A B")["id"]
        assert acquire(service.sessions, second, "a", 30) is None
        lease = service.work_until(first, "verify")
        with service.removal() as removal:
            removal.transition(first, Event.NEED_ATTENTION, actor="w", token=lease.token)
        lease.release()
        assert acquire(service.sessions, first, "a", 30) is None
        third = service.file("C D")["id"]
        service.activate(third)
        assert acquire(service.sessions, third, "a", 30) is None

    def test_used_up_attempts_fail_the_request(self, service: Service, request_id: str) -> None:
        for _ in range(service.settings.max_attempts):
            lease = acquire(service.sessions, request_id, "a", 30)
            assert lease is not None
            lease.release()
        assert acquire(service.sessions, request_id, "a", 30) is None
        status = service.status(request_id)
        assert (status["state"], status["reason_code"]) == ("failed", "attempts_exhausted")
        assert status["attempt"] == 3

    def test_used_up_attempts_of_one_that_was_to_be_cancelled(
        self, service: Service, request_id: str
    ) -> None:
        for _ in range(service.settings.max_attempts - 1):
            service.lease(request_id).release()
        service.work_until(request_id, "train").release()
        service.post(f"/requests/{request_id}/cancel")
        assert acquire(service.sessions, request_id, "a", 30) is None
        assert service.status(request_id)["state"] == "cancelled"

    def test_sees_what_another_attempt_did_while_it_waited_for_the_lease(
        self, service: Service, request_id: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = service.work_until(request_id, "publish")
        take, held = lease_module._take, list[RemovalRequest]()

        def slow(session: Session, *arguments: Any) -> int | None:
            held.append(session.get_one(RemovalRequest, request_id))  # as it was before the first ended
            with service.removal() as removal:
                removal.transition(request_id, Event.ACTIVATE, actor="w", token=first.token)
            first.release()
            return take(session, *arguments)

        monkeypatch.setattr(lease_module, "_take", slow)
        assert acquire(service.sessions, request_id, "b", 30) is None
        assert _attempt(service.sessions, request_id) == 1


class TestHeartbeat:
    def test_outlives_its_length(self, sessions: SessionFactory, request_id: str) -> None:
        lease = acquire(sessions, request_id, "a", 0.6)
        assert lease is not None
        with lease:
            time.sleep(1.2)
            assert acquire(sessions, request_id, "b", 30) is None
            lease.check()
        assert acquire(sessions, request_id, "b", 30) is not None, "released at the end"

    def test_notices_that_it_was_lost(self, sessions: SessionFactory, request_id: str) -> None:
        lease = acquire(sessions, request_id, "a", 0.6)
        assert lease is not None
        with lease:
            with sessions.begin() as session:
                session.get_one(LeaseRow, request_id).token += 1
            assert lease.lost.wait(3)
            with pytest.raises(LeaseLost):
                lease.check()

    def test_a_database_that_is_gone_loses_it(self, sessions: SessionFactory, request_id: str) -> None:
        nowhere = sessionmaker(create_engine("postgresql+psycopg://x@127.0.0.1:1/x"))
        with Lease(nowhere, request_id, "a", 1, 0.3) as lease:
            assert lease.lost.wait(5)
