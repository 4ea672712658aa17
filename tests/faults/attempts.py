"""Faults of one attempt: of the worker process, of what it holds, and of the files that it writes."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

from sqlalchemy import select, text

from app.db.models import RemovalRequest
from app.registry.service import RegistryService
from app.removal.service import RemovalService
from app.removal.states import WORKING, State
from tests.faults.house import House, Injected
from tests.faults.nursery import POINTS

KILLED = -signal.SIGKILL


def killed_at_points(house: House, chance: random.Random) -> Injected:
    """One request's worker is killed at every named point in turn."""
    request_id = house.file()
    with house.replica():
        for point in POINTS:
            assert house.work(request_id, point=point) == KILLED, point
            house.lease_runs_out(request_id)
        house.finish(request_id)
    return Injected({request_id: State.ACTIVE}, len(POINTS))


def killed_at_random(house: House, chance: random.Random, requests: int = 4, each: int = 3) -> Injected:
    """Workers are killed wherever they are."""
    killed, request_ids = 0, [house.file() for _ in range(requests)]
    with house.replica():
        for request_id in request_ids:
            for _ in range(each):
                killed += house.work(request_id, after=chance.uniform(0.02, 1.5)) == KILLED
                house.lease_runs_out(request_id)
            house.finish(request_id)
    return Injected(dict.fromkeys(request_ids, State.ACTIVE), killed)


def stopped_past_the_lease(house: House, chance: random.Random) -> Injected:
    """A worker stops (SIGSTOP), another takes over and finishes, the first one goes on: fenced."""
    request_id = house.file()
    point = chance.choice(POINTS[:-1])
    with house.replica():
        sleeper = house.nursery.start("attempt", {"point": point, "signal": "STOP"}, request=request_id)
        house.until("stopped", lambda: _is_stopped(sleeper))
        house.until("the lease ran out", lambda: not house.is_leased(request_id))
        house.finish(request_id)
        os.kill(sleeper, signal.SIGCONT)
        assert house.nursery.wait(sleeper) == 0, "whoever was fenced out says so and ends"
    return Injected({request_id: State.ACTIVE}, 1)


def stopped_until_both_work(house: House, chance: random.Random) -> Injected:
    """A stopped worker goes on while the one that took over is in the middle of its work."""
    request_id = house.file()
    with house.replica():
        sleeper = house.nursery.start(
            "attempt", {"point": chance.choice(POINTS[:-3]), "signal": "STOP"}, request=request_id
        )
        house.until("stopped", lambda: _is_stopped(sleeper))
        house.lease_runs_out(request_id)
        second = house.nursery.start("attempt", request=request_id)
        time.sleep(chance.uniform(0.05, 0.5))
        os.kill(sleeper, signal.SIGCONT)
        house.nursery.wait(sleeper)
        house.nursery.wait(second)
        house.finish(request_id)
    return Injected({request_id: State.ACTIVE}, 1)


def delivered_twice(house: House, chance: random.Random) -> Injected:
    """The same message reaches two workers at once."""
    request_id = house.file()
    with house.replica():
        pids = [house.nursery.start("attempt", request=request_id) for _ in range(2)]
        assert [house.nursery.wait(pid) for pid in pids] == [0, 0]
        house.finish(request_id)
    with house.sessions.begin() as session:
        attempts = session.scalars(
            select(RemovalRequest.attempt).where(RemovalRequest.id == request_id)
        ).one()
    assert attempts == 1, "the lease lets one of them in"
    return Injected({request_id: State.ACTIVE}, 1)


def clock_jumps(house: House, chance: random.Random) -> Injected:
    """A worker's clock jumps by a day while it holds the lease; another one asks for it meanwhile."""
    request_id = house.file()
    jump = chance.choice((-86_400, 86_400))
    with house.replica():
        first = house.nursery.start("attempt", {"clock": jump}, request=request_id)
        house.until_in(request_id, *WORKING, State.ACTIVE)
        second = house.nursery.start("attempt", {"clock": -jump}, request=request_id)
        house.nursery.wait(second)
        house.nursery.wait(first)
        house.finish(request_id)
    with house.sessions.begin() as session:
        attempts = session.scalars(
            select(RemovalRequest.attempt).where(RemovalRequest.id == request_id)
        ).one()
    assert attempts == 1, "the lease lives by the database's clock"
    return Injected({request_id: State.ACTIVE}, 1)


def out_of_memory(house: House, chance: random.Random) -> Injected:
    """Training asks for more than the address space holds (RLIMIT_AS): an error, and the next attempt."""
    request_id = house.file()
    with house.replica():
        assert house.work(request_id, memory=True) == 0, "an attempt that fails does not end its process"
        assert house.states([request_id]) == [State.TRAINING]
        house.finish(request_id)
    return Injected({request_id: State.ACTIVE}, 1)


def out_of_memory_every_time(house: House, chance: random.Random) -> Injected:
    """It never fits: the attempts are capped, and the subject stays refused."""
    request_id = house.file()
    cap = 3
    with house.sessions.begin() as session:  # the policy that was in force when it was approved
        session.execute(
            text("UPDATE removal_requests SET policy = jsonb_set(policy::jsonb, '{max_attempts}', '3')")
        )
    with house.replica():
        for _ in range(cap):
            assert house.work(request_id, memory=True) == 0
        house.finish(request_id)
    return Injected({request_id: State.FAILED}, cap)


def disk_full(house: House, chance: random.Random) -> Injected:
    """No file can be written (RLIMIT_FSIZE) in one stage; there is room again for the next attempt."""
    stages = ("prepare", "train", "calibrate")
    request_ids = [house.file() for _ in stages]
    with house.replica():
        for stage, request_id in zip(stages, request_ids, strict=True):
            assert house.work(request_id, disk=stage) == 0
            assert house.states([request_id])[0] in WORKING, stage
            house.finish(request_id)
    return Injected(dict.fromkeys(request_ids, State.ACTIVE), len(stages))


def candidate_damaged(house: House, chance: random.Random) -> Injected:
    """A verified expert's files are changed, cut short or gone when the next attempt is to publish them."""
    request_id = house.file()
    with house.replica():
        point = chance.choice(("before:enter:publish", "before:progress:publish", "before:_activate"))
        assert house.work(request_id, point=point) == KILLED
        for manifest in house.experts.rglob("manifest.json"):
            damage(manifest.parent, chance)
        house.lease_runs_out(request_id)
        house.finish(request_id)
    return Injected({request_id: State.ACTIVE}, 1)


def live_expert_damaged(house: House, chance: random.Random) -> Injected:
    """A live expert's files are damaged: the next request waits for a person, who restores them."""
    first, second = house.file(), house.file()
    with house.replica():
        house.finish(first)
        with house.sessions.begin() as session:
            (row,) = RegistryService(session, house.settings).live_experts()
        folder = house.experts / row.path
        kept = {file.name: file.read_bytes() for file in folder.iterdir()}
        damage(folder, chance)
        found = house.judge(Injected({first: State.ACTIVE}, 0)).unsound
        assert any(finding.startswith("expert-files") for finding in found), found
        house.finish(second)
        assert house.states([second]) == [State.NEEDS_ATTENTION]
        for name, content in kept.items():
            (folder / name).write_bytes(content)
        with house.sessions.begin() as session:
            RemovalService(session, house.settings).retry(second, actor="system:test")
        house.finish(second)
    return Injected({first: State.ACTIVE, second: State.ACTIVE}, 1)


def damage(folder: Path, chance: random.Random) -> None:
    """Change one bit of one of an expert's files, cut it short, or delete it."""
    file = chance.choice(sorted(folder.iterdir()))
    content = bytearray(file.read_bytes())
    how = chance.choice(("flip", "cut", "delete"))
    if how == "delete":
        file.unlink()
    elif how == "cut":
        file.write_bytes(content[: len(content) // 2])
    else:
        content[chance.randrange(len(content))] ^= 1
        file.write_bytes(content)


def connections_killed(house: House, chance: random.Random) -> Injected:
    """Every connection to the database is ended, again and again, in the middle of whatever it does."""
    request_ids, killed = [house.file() for _ in range(2)], 0
    with house.replica():
        for request_id in request_ids:
            pid = house.nursery.start("attempt", request=request_id)
            for _ in range(3):
                if house.nursery.wait(pid, chance.uniform(0.05, 0.5)) is not None:
                    break
                killed += end_connections(house)
            else:
                house.nursery.wait(pid)
            house.finish(request_id)
    return Injected(dict.fromkeys(request_ids, State.ACTIVE), killed)


def end_connections(house: House) -> int:
    """End everybody's connection to the house's database but our own, and return how many there were."""
    with house.sessions.begin() as session:
        return len(
            session.execute(
                text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            ).all()
        )


def cancelled_and_killed(house: House, chance: random.Random) -> Injected:
    """A worker dies before it sees that its request was cancelled; the next attempt does."""
    request_id = house.file()
    with house.replica():
        assert house.work(request_id, point=chance.choice(POINTS[:6])) == KILLED
        with house.sessions.begin() as session:
            RemovalService(session, house.settings).cancel(request_id, actor="system:test")
        house.lease_runs_out(request_id)
        house.finish(request_id)
    return Injected({request_id: State.CANCELLED}, 1)


def _is_stopped(pid: int) -> bool:
    with open(f"/proc/{pid}/stat") as stat:
        return stat.read().rpartition(")")[2].split()[0] == "T"
