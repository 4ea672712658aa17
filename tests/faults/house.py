"""Real servers and processes to break, and the judgement over what became of the requests."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx
import redis
from celery import Celery
from sqlalchemy import select, text

from app.accounts.service import authenticate, create_key
from app.audit.checkpoints import CheckpointService
from app.chat.loader import ExpertLoader
from app.db.base import Base
from app.db.models import AuditEvent, RemovalRequest, RequestEvent
from app.db.session import create_engine_from, session_factory
from app.doctor.service import examine
from app.embedded.migrate import migrate
from app.embedded.postgres import EmbeddedPostgres
from app.embedded.process import free_port
from app.embedded.valkey import EmbeddedValkey
from app.registry.replica import ReplicaAgent
from app.registry.service import RegistryService
from app.removal.datakeys import DataKeys
from app.removal.filing import FilingService
from app.removal.lifecycle import PROCESS_TASK
from app.removal.schemas import Submission
from app.removal.states import FINAL, WAITING, State
from app.settings import Settings, load_settings
from tests.faults.proxy import TcpProxy
from tests.lumoe.tiny import save_tiny_llava
from tests.workers.pipeline_world import SUBJECT, _png
from workers.outbox import Dispatcher

PATIENCE_SECONDS = 240.0
"""How long anything may take on a machine that others use, too."""

QUICK = {
    "max_attempts": 50, "lease_seconds": 4.0, "redelivery_seconds": 2.0, "sweep_seconds": 0.3,
    "outbox_poll_seconds": 0.1, "replica_lease_seconds": 6.0, "registry_poll_seconds": 0.1,
}  # fmt: skip
"""Settings of the service: what heals itself within a minute heals within seconds here."""


@dataclass
class Judgement:
    """What became of the requests; `unsound` is what the doctor found, and what else is wrong."""

    requests: int = 0
    lost: int = 0
    doubled: int = 0
    unsound: list[str] = field(default_factory=list)


@dataclass
class Injected:
    """What a fault did: to which requests, how often, and where each of them must end."""

    expected: dict[str, State]
    times: int


class Nursery:
    """Talks to `tests.faults.nursery`."""

    def __init__(self, settings: Settings, model: Path, log: Path) -> None:
        named = {f"LETHE_{name.upper()}": str(getattr(settings, name)) for name in QUICK}
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("LETHE_")},
            **named,
            "LETHE_DATABASE_URL": settings.database_url,
            "LETHE_REDIS_URL": settings.redis_url,
            "LETHE_EXPERTS_DIR": str(settings.experts_dir),
            "LETHE_DEVICE": "cpu",
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
        }
        self.log = log
        self._sink = log.open("w")
        self._started: list[int] = []
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tests.faults.nursery", str(model)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._sink, text=True, env=environment,
        )  # fmt: skip
        self._answer()

    def start(self, what: str, faults: Mapping[str, Any] | None = None, **more: Any) -> int:
        """Fork a process, and return its id."""
        pid = int(self._ask({"start": what, "faults": dict(faults or {}), **more})["pid"])
        self._started.append(pid)
        return pid

    def wait(self, pid: int, seconds: float = PATIENCE_SECONDS) -> int | None:
        """Return how the process ended (-9: killed), None if it goes on."""
        status: int | None = self._ask({"wait": pid, "seconds": seconds})["status"]
        return status

    def end_all(self) -> None:
        """End whatever a fault that did not go as it must has left behind."""
        for pid in self._started:
            if self.wait(pid, 0) is None:
                self.end(pid)

    def kill_all_below(self, pid: int) -> None:
        """Kill the process and what it has forked, all at once."""
        os.killpg(pid, signal.SIGKILL)

    def end(self, pid: int, signum: signal.Signals = signal.SIGKILL) -> None:
        """End a process with everything below it, and wait for it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signum)
        assert self.wait(pid) is not None, f"process {pid} does not end"

    def close(self) -> None:
        self._process.communicate(timeout=30)
        self._sink.close()

    def _ask(self, order: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, self.log.read_text()[-3000:]
        found: dict[str, Any] = json.loads(line)
        return found


class House:
    """A service on a database of its own, with a broker behind a proxy and a nursery of processes.

    Args:
        database_url: of a migrated, empty database; nobody else uses it.
        directory: for the broker, the experts, the model and logs.
    """

    def __init__(self, database_url: str, directory: Path) -> None:
        self.directory = directory
        self.valkey = EmbeddedValkey(
            directory / "valkey", password="test", log=directory / "valkey.log", durable=False
        )
        self.valkey.start()
        self.broker = TcpProxy(self.valkey.port)
        self.settings = load_settings(
            _env_file=None,
            database_url=database_url,
            redis_url=through(self.valkey.url(), self.broker.port),
            experts_dir=directory / "experts",
            device="cpu",
            **QUICK,
        )
        self.experts.mkdir(parents=True)
        self.engine = create_engine_from(self.settings)
        self.sessions = session_factory(self.engine)
        self.nursery = Nursery(
            self.settings, save_tiny_llava(directory / "tiny"), directory / "processes.log"
        )
        self._numbers = iter(range(1_000_000))
        self.empty()

    @property
    def experts(self) -> Path:
        """Where experts lie."""
        return self.settings.experts_dir

    def empty(self) -> None:
        """Begin afresh: no request, no expert, nothing in the broker."""
        with self.sessions.begin() as session:
            session.execute(text("SET LOCAL session_replication_role = replica"))  # in any order
            for table in Base.metadata.tables:
                session.execute(text(f"DELETE FROM {table}"))
        shutil.rmtree(self.experts)
        self.experts.mkdir()
        self.flush_broker()
        with self.sessions.begin() as session:
            self._key = create_key(session, tenant="acme", scopes=["owner"]).secret

    def flush_broker(self) -> None:
        """Everything in it is gone."""
        with redis.Redis.from_url(self.valkey.url()) as client:
            client.flushall()

    def close(self) -> None:
        self.nursery.close()
        self.engine.dispose()
        self.broker.close()
        self.valkey.stop()

    def restart_broker(self, seconds: float) -> None:
        """End the broker, and start it again after so many seconds, empty."""
        self.valkey.stop()
        self.broker.cut()
        time.sleep(seconds)
        self.valkey.start()
        self.broker.target = self.valkey.port

    def restart_database(self, *, crash: bool) -> None:
        """End the database and start it again."""
        raise NotImplementedError("this house's Postgres serves others, too: take an OwnHouse")

    # -- what people do ----------------------------------------------------------------------------

    def file(self) -> str:
        """File a request for a subject of its own."""
        number = next(self._numbers)
        name = f"{SUBJECT.name} {''.join(chr(ord('a') + int(digit)) for digit in str(number))}"
        submission = Submission.model_validate({"name": name, "class": SUBJECT.klass})
        with self.sessions.begin() as session:
            principal = authenticate(self.sessions, self._key)
            filed = FilingService(session, self.settings).file(principal, submission, [_png(0), _png(1)])
        return str(filed.body["id"])

    def states(self, request_ids: Sequence[str]) -> list[State]:
        """Return where the requests are."""
        with self.sessions.begin() as session:
            rows = session.execute(
                select(RemovalRequest.id, RemovalRequest.state).where(RemovalRequest.id.in_(request_ids))
            ).all()
        found = {row[0]: State(row[1]) for row in rows}
        return [found[request_id] for request_id in request_ids]

    # -- what runs ---------------------------------------------------------------------------------

    def work(self, request_id: str, **faults: Any) -> int | None:
        """Have a worker take the request up once, and return how it ended."""
        return self.nursery.wait(self.nursery.start("attempt", faults, request=request_id))

    def finish(self, request_id: str, attempts: int = 12) -> None:
        """Take the request up until nobody works on it any more: what broker and sweeper do elsewhere."""
        for _ in range(attempts):
            if self.settled([request_id]):
                break
            self.lease_runs_out(request_id)
            self.work(request_id)
        Dispatcher(self.sessions, lambda _: None).run_once()

    def lease_runs_out(self, request_id: str) -> None:
        """As after `lease_seconds`: nobody renews a dead worker's lease."""
        with self.sessions.begin() as session:
            session.execute(
                text("UPDATE leases SET expires_at = clock_timestamp() WHERE request_id = :r"),
                {"r": request_id},
            )

    def is_leased(self, request_id: str) -> bool:
        """Whether somebody holds the request, by the database's clock."""
        with self.sessions.begin() as session:
            live = "SELECT count(*) FROM leases WHERE request_id = :r AND expires_at > clock_timestamp()"
            return bool(session.execute(text(live), {"r": request_id}).scalar_one())

    def publish_again(self, request_ids: Sequence[str], times: int) -> None:
        """Put more messages for the requests into the queue, as a broker that delivers twice does."""
        app = Celery("lethe", broker=self.settings.redis_url)
        app.conf.task_default_queue = "lethe"
        for _ in range(times):
            for request_id in request_ids:
                app.send_task(PROCESS_TASK, args=[request_id])
        app.close()

    def settled(self, request_ids: Sequence[str]) -> bool:
        """Whether no worker is expected to go on with any of them."""
        return all(state in FINAL or state in WAITING for state in self.states(request_ids))

    def until(self, what: str, condition: Any, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until the condition holds. A condition that cannot ask the database does not hold."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with contextlib.suppress(Exception):
                if condition():
                    return
            time.sleep(0.05)
        raise AssertionError(f"{what}: not within {seconds:g} s\n{self.nursery.log.read_text()[-3000:]}")

    def until_in(self, request_id: str, *states: State) -> None:
        """Wait until a worker has brought the request so far."""
        self.until(f"{request_id} in {states}", lambda: self.states([request_id])[0] in states)

    def until_settled(self, request_ids: Sequence[str]) -> None:
        """Wait for workers that run by themselves."""
        with contextlib.suppress(AssertionError):  # lost, and counted as such
            self.until("settled", lambda: self.settled(request_ids))

    @contextlib.contextmanager
    def celery(self, **faults: Any) -> Iterator[int]:
        """A Celery worker, ended at the end however it is then."""
        pid = self.nursery.start("celery", faults)
        try:
            yield pid
        finally:
            self.nursery.end(pid)

    @contextlib.contextmanager
    def api(self, **faults: Any) -> Iterator[tuple[int, str]]:
        """An API process that is ready; its process id and URL."""
        port = free_port()
        pid, url = self.nursery.start("api", faults, port=port), f"http://127.0.0.1:{port}"
        with httpx.Client(trust_env=False, timeout=5) as client:
            self.until("API ready", lambda: client.get(f"{url}/readyz").is_success)
        try:
            yield pid, url
        finally:
            self.nursery.end(pid)

    @contextlib.contextmanager
    def replica(self) -> Iterator[ReplicaAgent]:
        """A replica in this process: it loads every expert of a generation, checks it, and acknowledges."""
        loader = ExpertLoader(self.settings, DataKeys(self.sessions, self.settings))
        agent = ReplicaAgent(self.sessions, self.settings, None, lambda _, rows, __: _load(loader, rows))
        agent.start()
        try:
            yield agent
        finally:
            agent.stop()

    # -- what must be true afterwards ----------------------------------------------------------------

    def judge(self, injected: Injected) -> Judgement:
        """Look at requests, registry, files and audit trail, and have the doctor look. A replica must run."""
        expected = injected.expected
        self.until("the replica serves the newest generation", self._served)
        found = Judgement(requests=len(expected))
        with self.sessions.begin() as session:
            CheckpointService(session, self.settings).issue()
        ended = dict(zip(expected, self.states(list(expected)), strict=True))
        with self.sessions.begin() as session:
            live = Counter(row.request_id for row in RegistryService(session, self.settings).live_experts())
            activated = Counter(
                session.scalars(select(RequestEvent.request_id).where(RequestEvent.event == "activate"))
            )
            audited = Counter(
                session.scalars(select(AuditEvent.subject_id).where(AuditEvent.kind == "request.activate"))
            )
            versions = Counter(
                (event.subject_id, event.payload.get("version"))
                for event in session.scalars(select(AuditEvent).where(AuditEvent.kind == "registry.publish"))
            )
        for request_id, state in expected.items():
            wanted = int(state is State.ACTIVE)
            if ended[request_id] is not state or live[request_id] < wanted:
                found.lost += 1
                found.unsound.append(
                    f"{request_id} is {ended[request_id]} with {live[request_id]} experts, not {state}"
                )
            twice = [key for key, n in versions.items() if key[0] == request_id and n > 1]
            if live[request_id] > wanted or activated[request_id] > wanted or twice:
                found.doubled += 1
                found.unsound.append(f"{request_id} was activated {activated[request_id]} times, {twice}")
            if audited[request_id] != activated[request_id]:
                found.unsound.append(f"{request_id}: the audit trail has {audited[request_id]} activations")
        report = examine(self.sessions, self.settings)
        found.unsound += [f"{f.check}: {f.subject}: {f.detail}" for f in report.findings]
        return found

    def _served(self) -> bool:
        with self.sessions.begin() as session:
            registry = RegistryService(session, self.settings)
            return registry.acknowledged(registry.newest())


class OwnHouse(House):
    """A house with a Postgres of its own, behind a proxy."""

    postgres: EmbeddedPostgres
    front: TcpProxy

    @classmethod
    def build(cls, directory: Path) -> OwnHouse:
        """Start everything. The database is durable: it must survive a crash."""
        directory.mkdir(parents=True, exist_ok=True)
        postgres = EmbeddedPostgres(directory / "postgres", password="test", log=directory / "postgres.log")
        postgres.start()
        postgres.ensure_database("lethe")
        migrate(postgres.url("lethe"))
        front = TcpProxy(postgres.port)
        made = cls(through(postgres.url("lethe"), front.port), directory)
        made.postgres, made.front = postgres, front
        return made

    def restart_database(self, *, crash: bool) -> None:
        """Stop it ("fast", open transactions are rolled back), or have it end at once and recover."""
        if crash:
            assert self.postgres.pid is not None
            os.kill(self.postgres.pid, signal.SIGQUIT)
        self.postgres.stop()
        self.front.cut()
        self.postgres.start()
        self.front.target = self.postgres.port

    def close(self) -> None:
        super().close()
        self.front.close()
        self.postgres.stop()


def _load(loader: ExpertLoader, rows: Any) -> None:
    loader.load(rows)


def through(url: str, port: int) -> str:
    """Return the URL with the proxy's port."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{parts.netloc.rpartition(':')[0]}:{port}"))
