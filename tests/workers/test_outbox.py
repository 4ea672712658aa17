"""The dispatcher and the sweeper: nothing lost, and doubles only where they do no harm."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from celery import Celery
from kombu.exceptions import OperationalError
from sqlalchemy import select, text

from app.db.models import OutboxMessage
from app.kit.ids import new_id
from app.removal.states import Event
from tests.faults.clock import set_clock
from tests.service import Service
from workers.outbox import Dispatcher, OutboxLoop, Sweeper, celery_publisher


class Broker:
    """Stands for the broker where a test needs one that fails on demand."""

    def __init__(self) -> None:
        self.accepted: list[tuple[str, str]] = []
        self.down = False

    def __call__(self, message: OutboxMessage) -> None:
        if self.down:
            raise OperationalError("connection refused")
        self.accepted.append((message.id, message.request_id))


@pytest.fixture
def broker() -> Broker:
    return Broker()


def _rows(service: Service) -> list[OutboxMessage]:
    with service.sessions() as session:
        return list(session.scalars(select(OutboxMessage).order_by(OutboxMessage.id)))


def _age(service: Service, seconds: float) -> None:
    """Let everything have happened `seconds` earlier."""
    columns = {"outbox": "published_at", "removal_requests": "updated_at", "leases": "expires_at"}
    with service.sessions.begin() as session:
        for table, column in columns.items():
            session.execute(
                text(f"UPDATE {table} SET {column} = {column} - make_interval(secs => :s)"), {"s": seconds}
            )


class TestDispatcher:
    def test_publishes_once_with_the_rows_id(self, service: Service, broker: Broker) -> None:
        request_id = service.file()["id"]
        dispatcher = Dispatcher(service.sessions, broker)
        assert (dispatcher.run_once(), dispatcher.run_once()) == (1, 0)
        (row,) = _rows(service)
        assert broker.accepted == [(row.id, request_id)]
        assert row.published_at is not None

    def test_in_order(self, service: Service, broker: Broker) -> None:
        ids = [service.file(f"Name {i}")["id"] for i in range(4)]
        Dispatcher(service.sessions, broker).run_once()
        assert [request_id for _, request_id in broker.accepted] == ids

    def test_a_broker_that_is_down_loses_nothing(self, service: Service, broker: Broker) -> None:
        service.file()
        dispatcher = Dispatcher(service.sessions, broker)
        broker.down = True
        assert dispatcher.run_once() == 0
        (row,) = _rows(service)
        assert (row.published_at, row.tries, row.last_error) == (None, 1, "OperationalError")
        broker.down = False
        assert dispatcher.run_once() == 1

    def test_many_dispatchers_at_once(self, service: Service, broker: Broker) -> None:
        for i in range(6):
            service.file(f"Name {i}")
        with ThreadPoolExecutor(4) as pool:
            counts = list(pool.map(lambda _: Dispatcher(service.sessions, broker).run_once(), range(4)))
        assert sum(counts) == 6
        assert len(set(broker.accepted)) == 6

    def test_reaches_a_real_queue(self, service: Service) -> None:
        request_id = service.file()["id"]
        app = Celery("test", broker=service.settings.redis_url)
        assert Dispatcher(service.sessions, celery_publisher(app)).run_once() == 1
        with app.connection_for_read() as connection, connection.SimpleQueue("celery") as queue:
            message = queue.get(timeout=5)
            assert message.headers["id"] == _rows(service)[0].id
            assert message.headers["task"] == "lethe.process_request"
            assert message.payload[0] == [request_id]
            message.ack()


class TestSweeper:
    def _sweep(self, service: Service) -> int:
        return Sweeper(service.sessions, service.settings).run_once()

    def test_publishes_again_what_the_broker_lost(self, service: Service, broker: Broker) -> None:
        request_id = service.file()["id"]
        dispatcher = Dispatcher(service.sessions, broker)
        dispatcher.run_once()
        assert self._sweep(service) == 0, "not yet"
        _age(service, 100)
        assert self._sweep(service) == 1
        assert self._sweep(service) == 0, "its row waits to be published"
        dispatcher.run_once()
        assert [found for _, found in broker.accepted] == [request_id] * 2
        assert len({task for task, _ in broker.accepted}) == 2

    def test_leaves_alone_what_is_worked_on(self, service: Service, broker: Broker) -> None:
        request_id = service.file()["id"]
        Dispatcher(service.sessions, broker).run_once()
        service.work_until(request_id, "train", service.lease(request_id, seconds=1000))
        _age(service, 100)
        assert self._sweep(service) == 0

    def test_takes_up_what_a_dead_worker_left(self, service: Service, broker: Broker) -> None:
        request_id = service.file()["id"]
        Dispatcher(service.sessions, broker).run_once()
        service.work_until(request_id, "train", service.lease(request_id, seconds=1))
        _age(service, 100)
        assert self._sweep(service) == 1
        assert service.status(request_id)["state"] == "training", "the next attempt goes on from there"

    def test_leaves_alone_what_waits_or_is_done(self, service: Service, broker: Broker) -> None:
        waiting, done = service.file("A B")["id"], service.file("C D")["id"]
        service.file("A B")  # follows the first
        lease = service.work_until(waiting, "verify")
        with service.removal() as removal:
            removal.transition(waiting, Event.NEED_ATTENTION, actor="w", token=lease.token)
        service.activate(done)
        Dispatcher(service.sessions, broker).run_once()
        _age(service, 100)
        assert self._sweep(service) == 0

    def test_used_up_attempts_fail(self, service: Service, broker: Broker) -> None:
        request_id = service.file()["id"]
        for _ in range(service.settings.max_attempts):
            service.lease(request_id).release()
        Dispatcher(service.sessions, broker).run_once()
        _age(service, 100)
        assert self._sweep(service) == 1
        status = service.status(request_id)
        assert (status["state"], status["reason_code"]) == ("failed", "attempts_exhausted")

    def test_waiting_for_busy_workers_is_no_failure(self, service: Service, broker: Broker) -> None:
        request_id = service.file()["id"]
        dispatcher = Dispatcher(service.sessions, broker)
        dispatcher.run_once()
        for _ in range(120):
            with service.sessions.begin() as session:
                session.add(
                    OutboxMessage(id=new_id("out"), request_id=request_id, task="lethe.process_request")
                )
        dispatcher.run_once()
        dispatcher.run_once()
        dispatcher.run_once()
        _age(service, 100)
        assert self._sweep(service) == 1
        assert service.status(request_id)["state"] == "queued"

    def test_with_a_clock_that_is_two_days_slow(self, service: Service, broker: Broker) -> None:
        service.file()
        set_right = set_clock(-2 * 86_400)
        try:
            Dispatcher(service.sessions, broker).run_once()
        finally:
            set_right()
        with service.sessions.begin() as session:  # nothing has happened to it for long
            session.execute(text("UPDATE removal_requests SET updated_at = updated_at - interval '1 hour'"))
        assert self._sweep(service) == 0, "by the database's clock it was published a moment ago"

    def test_two_at_once_publish_once(self, service: Service, broker: Broker) -> None:
        with ThreadPoolExecutor(4) as pool:
            for i in range(6):  # the race is narrow: the second must look before the first has committed
                service.file(f"Name {i}")
                Dispatcher(service.sessions, broker).run_once()
                _age(service, 100)
                assert sum(pool.map(lambda _: self._sweep(service), range(4))) == i + 1
                Dispatcher(service.sessions, broker).run_once()


class TestLoop:
    def test_outlives_whatever_a_driver_throws(self, service: Service, broker: Broker) -> None:
        thrown: list[str] = []

        def publish(message: OutboxMessage) -> None:
            if not thrown:
                thrown.append(message.id)
                raise RuntimeError("a driver's bug")
            broker(message)

        settings = service.settings.model_copy(update={"outbox_poll_seconds": 0.02})
        service.file()
        loop = OutboxLoop(service.sessions, settings, publish)
        loop.start()
        deadline = time.monotonic() + 5
        while not broker.accepted and time.monotonic() < deadline:
            time.sleep(0.02)
        loop.stop()
        assert [message for message, _ in broker.accepted] == thrown

    def test_publishes_and_stops(self, service: Service, broker: Broker) -> None:
        settings = service.settings.model_copy(update={"outbox_poll_seconds": 0.02})
        loop = OutboxLoop(service.sessions, settings, broker)
        loop.start()
        service.file()
        deadline = time.monotonic() + 5
        while not broker.accepted and time.monotonic() < deadline:
            time.sleep(0.02)
        loop.stop()
        assert len(broker.accepted) == 1
        service.file("Another One")
        time.sleep(0.1)
        assert len(broker.accepted) == 1
