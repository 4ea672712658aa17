"""A worker that is killed between any two steps: the request ends `active` once; the doctor finds nothing."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import select, text

from app.db.models import AuditEvent, Expert, RequestEvent
from app.doctor.findings import Check
from app.doctor.registry import check_files
from app.doctor.service import look
from app.registry.replica import ReplicaAgent
from app.removal.filing import FilingService
from app.removal.schemas import Submission
from app.settings import Settings
from tests.lumoe.tiny import save_tiny_llava
from tests.service import Service, own_settings, service, sessions  # noqa: F401
from tests.workers.doomed import POINTS
from tests.workers.pipeline_world import SUBJECT, _png
from workers.outbox import Purger

KILLED = -9


class Workers:
    """Worker processes, one after another."""

    def __init__(self, settings: Settings, model: Path, log: Path) -> None:
        command = [sys.executable, "-W", "ignore", "-m", "tests.workers.doomed"]
        arguments = [settings.database_url, settings.redis_url, str(settings.experts_dir), str(model)]
        self._sink = log.open("w")
        self._log = log
        self._process = subprocess.Popen(
            [*command, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._sink,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        )
        assert self._answer() == "ready"

    def work(self, request_id: str, point: str = "-") -> int:
        """Have one worker work on the request up to the point; return its exit status."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{request_id} {point}\n")
        self._process.stdin.flush()
        return int(self._answer())

    def close(self) -> None:
        self._process.communicate(timeout=30)
        self._sink.close()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        assert line, self._log.read_text()[-3000:]
        return line


@pytest.fixture
def house(service: Service, tmp_path: Path) -> Service:  # noqa: F811
    own = {"experts_dir": tmp_path / "experts", "max_attempts": 50, "registry_poll_seconds": 0.05}
    (tmp_path / "experts").mkdir()
    return Service(service.client, service.settings.model_copy(update=own), service.sessions)


@pytest.fixture
def workers(house: Service, tmp_path: Path) -> Iterator[Workers]:
    made = Workers(house.settings, save_tiny_llava(tmp_path / "tiny"), tmp_path / "workers.log")
    yield made
    made.close()


def file(house: Service, name: str = SUBJECT.name) -> str:
    submission = Submission.model_validate({"name": name, "class": SUBJECT.klass})
    with house.sessions.begin() as session:
        filed = FilingService(session, house.settings).file(house.principal(), submission, [_png(0), _png(1)])
    return str(filed.body["id"])


def let_the_lease_run_out(house: Service) -> None:
    """As after `lease_seconds`: nobody renews a dead worker's lease."""
    with house.sessions.begin() as session:
        session.execute(text("UPDATE leases SET expires_at = clock_timestamp() - interval '1 second'"))


def sound(house: Service, request_ids: Sequence[str]) -> None:
    """Every request is active once, with one expert that was published once, and the doctor finds nothing."""
    with house.sessions() as session:
        activated = session.scalars(
            select(RequestEvent.request_id).where(RequestEvent.event == "activate")
        ).all()
        kinds = ("request.activate", "registry.publish")
        audited = session.execute(
            select(AuditEvent.kind, AuditEvent.subject_id).where(AuditEvent.kind.in_(kinds))
        ).all()
        experts = session.scalars(select(Expert.request_id)).all()
        looked = look(session, house.settings)
    assert sorted(activated) == sorted(experts) == sorted(request_ids)
    assert sorted((row[0], row[1]) for row in audited) == sorted((k, r) for k in kinds for r in request_ids)
    assert {house.status(request_id)["state"] for request_id in request_ids} == {"active"}
    found = [*looked.findings, *check_files(house.settings, looked.live)]
    assert {finding.check for finding in found} <= {Check.NO_REPLICA, Check.CHECKPOINT, Check.BROKER}, found
    assert len(looked.live) == len(request_ids)


@contextmanager
def replica(house: Service) -> Iterator[None]:
    agent = ReplicaAgent(house.sessions, house.settings, None, lambda _, __, ___: None)
    agent.start()
    try:
        yield
    finally:
        agent.stop()


def test_at_every_point_in_turn(house: Service, workers: Workers) -> None:
    request_id = file(house)
    with replica(house):
        for point in POINTS:
            assert workers.work(request_id, point) == KILLED, point
            let_the_lease_run_out(house)
        assert workers.work(request_id) == 0
    sound(house, [request_id])
    at_once = house.settings.model_copy(update={"evidence_retention_days": 0.0})
    assert Purger(house.sessions, at_once).run_once() == 2
    assert not list(house.settings.experts_dir.glob(".work/*")), "left by the worker that was killed last"
    assert len(list(house.settings.experts_dir.glob("exp_*/*/manifest.json"))) == 1


@pytest.mark.long
def test_at_random_moments(house: Service, workers: Workers) -> None:
    chance = random.Random(11)
    request_ids, killed = [], 0
    with replica(house):
        for i in range(20):
            request_ids.append(file(house, f"{SUBJECT.name} {'abcdefghijklmnopqrst'[i]}"))
            for _ in range(3):
                killed += workers.work(request_ids[-1], f"in:{chance.uniform(0.02, 1.5):.3f}") == KILLED
                let_the_lease_run_out(house)
            assert workers.work(request_ids[-1]) == 0
    sound(house, request_ids)
    assert killed > 20
