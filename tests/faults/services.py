"""Faults of what runs for long: Celery workers, the broker, the database, API replicas."""

from __future__ import annotations

import os
import random
import signal
import time

import httpx

from app.removal.states import WORKING, State
from tests.faults.attempts import end_connections
from tests.faults.house import House, Injected

HALF_OPEN_SECONDS = 3.0


def queue_flushed(house: House, chance: random.Random) -> Injected:
    """FLUSHALL while one request is worked on and another one waits in the queue."""
    request_ids = [house.file(), house.file()]
    with house.replica(), house.celery():
        house.until_in(request_ids[0], *WORKING)
        house.flush_broker()
        house.until_settled(request_ids)
    return Injected(dict.fromkeys(request_ids, State.ACTIVE), 1)


def broker_restarted(house: House, chance: random.Random) -> Injected:
    """The broker ends, with all it knew, and comes back."""
    request_ids = [house.file(), house.file()]
    with house.replica(), house.celery():
        house.until_in(request_ids[0], *WORKING)
        house.restart_broker(chance.uniform(0, 2))
        request_ids.append(house.file())
        house.until_settled(request_ids)
    return Injected(dict.fromkeys(request_ids, State.ACTIVE), 1)


def broker_half_open(house: House, chance: random.Random) -> Injected:
    """The broker's host takes every byte and answers none; the connections of that time never come back."""
    first = house.file()
    with house.replica(), house.celery():
        house.until_in(first, *WORKING, State.ACTIVE)
        house.broker.silent = True
        second = house.file()
        time.sleep(HALF_OPEN_SECONDS)
        house.broker.silent = False
        house.until_settled([first, second])
    return Injected({first: State.ACTIVE, second: State.ACTIVE}, 1)


def pool_child_killed(house: House, chance: random.Random) -> Injected:
    """The kernel kills the pool's process in training (SIGKILL, as its out-of-memory killer does)."""
    request_ids = [house.file(), house.file()]
    latch = house.directory / f"latch-{request_ids[0]}"
    with house.replica(), house.celery(point="after:enter:train", latch=str(latch)):
        house.until_settled(request_ids)
    assert latch.exists(), "nobody was killed"
    return Injected(dict.fromkeys(request_ids, State.ACTIVE), 1)


def worker_killed(house: House, chance: random.Random) -> Injected:
    """A worker dies, pool and all, while it holds a task that it has not acknowledged; another one starts."""
    request_ids = [house.file(), house.file()]
    with house.replica():
        with house.celery() as pid:
            house.until_in(request_ids[0], *WORKING)
            time.sleep(chance.uniform(0, 0.5))
            house.nursery.kill_all_below(pid)
        with house.celery():
            house.until_settled(request_ids)
    return Injected(dict.fromkeys(request_ids, State.ACTIVE), 1)


def worker_terminated(house: House, chance: random.Random) -> Injected:
    """SIGTERM: a worker finishes or leaves a checkpoint, and ends; another one starts."""
    request_ids = [house.file(), house.file()]
    with house.replica():
        with house.celery() as pid:
            house.until_in(request_ids[0], *WORKING)
            os.kill(pid, signal.SIGTERM)
            assert house.nursery.wait(pid) == 0, "a worker that is asked to end does"
        with house.celery():
            house.until_settled(request_ids)
    return Injected(dict.fromkeys(request_ids, State.ACTIVE), 1)


def two_workers_one_message(house: House, chance: random.Random) -> Injected:
    """Every message is published three times over, to two Celery workers."""
    request_ids = [house.file() for _ in range(3)]
    with house.replica(), house.celery(), house.celery():
        house.publish_again(request_ids, 3)
        house.until_settled(request_ids)
    return Injected(dict.fromkeys(request_ids, State.ACTIVE), 3 * len(request_ids))


def replica_killed(house: House, chance: random.Random) -> Injected:
    """An API process is killed around its acknowledgement of an expert; another one serves on."""
    request_id = house.file()
    point = chance.choice(("before:acknowledge", "after:acknowledge"))
    with house.replica():
        with house.api(point=point) as (pid, _):
            worker = house.nursery.start("attempt", request=request_id)
            assert house.nursery.wait(pid) == -signal.SIGKILL
            house.nursery.wait(worker)
        house.finish(request_id)
    return Injected({request_id: State.ACTIVE}, 1)


def only_replica_killed(house: House, chance: random.Random) -> Injected:
    """The only API process is killed around its acknowledgement; it is started again."""
    request_id = house.file()
    point = chance.choice(("before:acknowledge", "after:acknowledge"))
    with house.api(point=point) as (pid, _):
        worker = house.nursery.start("attempt", request=request_id)
        assert house.nursery.wait(pid) == -signal.SIGKILL
    with house.api() as (_, url):
        house.nursery.wait(worker)
        house.finish(request_id)
        with httpx.Client(trust_env=False, timeout=5) as client:
            assert client.get(f"{url}/readyz").json()["generation"] > 0
    return Injected({request_id: State.ACTIVE}, 1)


def database_restarted(house: House, chance: random.Random) -> Injected:
    """Postgres is stopped ("fast") while a worker works, and started again."""
    return _database(house, chance, crash=False)


def database_crashed(house: House, chance: random.Random) -> Injected:
    """Postgres ends at once, without a checkpoint, and recovers from its log."""
    return _database(house, chance, crash=True)


def _database(house: House, chance: random.Random, *, crash: bool) -> Injected:
    request_ids = [house.file(), house.file()]
    with house.replica(), house.celery():
        house.until_in(request_ids[0], *WORKING)
        time.sleep(chance.uniform(0, 1))
        house.restart_database(crash=crash)
        house.until_settled(request_ids)
    return Injected(dict.fromkeys(request_ids, State.ACTIVE), 1)


def connections_killed_everywhere(house: House, chance: random.Random) -> Injected:
    """Every connection of Celery worker, outbox, API and replica is ended, again and again."""
    request_ids, killed = [house.file(), house.file()], 0
    with house.api(), house.celery():
        for _ in range(4):
            time.sleep(chance.uniform(0.1, 1))
            killed += end_connections(house)
        house.until_settled(request_ids)
    return Injected(dict.fromkeys(request_ids, State.ACTIVE), killed)
