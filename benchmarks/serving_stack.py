"""Real Postgres, Valkey and API processes to measure, and a registry that is full from the beginning."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import httpx
from sqlalchemy import insert

from app.accounts.service import create_key
from app.db.models import Expert, Generation, GenerationExpert, LeaseRow, RemovalRequest
from app.db.session import SessionFactory, create_engine_from, session_factory
from app.embedded.process import Process, free_port
from app.kit.clock import utcnow
from app.kit.ids import expert_id_of, new_id
from app.lumoe.demo import Entity, draw
from app.lumoe.expert import ExpertRef, write_expert
from app.lumoe.gate.record import GateRecord
from app.lumoe.interim import interim_record
from app.lumoe.mllm import MLLM, target_linears
from app.settings import Settings, load_settings
from benchmarks.farm import sequence
from benchmarks.servers import servers
from benchmarks.serving_models import random_adapter, write_adapter

READY_SECONDS = 300.0
RECORD_PICTURES = 4
QUIET = {
    "OMP_WAIT_POLICY": "PASSIVE",
    "GOMP_SPINCOUNT": "20000",
    "HF_HUB_OFFLINE": "1",
    "PYTHONUNBUFFERED": "1",
    "LETHE_CHECKPOINT_SECONDS": "1e9",
}
"""As the embedded stack starts its processes; no audit checkpoint falls into a measurement."""


def environment(threads: int, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return this process's environment for a child that computes with so many threads."""
    held = {name: value for name, value in os.environ.items() if not name.startswith("LETHE_")}
    return {**held, **QUIET, "OMP_NUM_THREADS": str(threads), **(more or {})}


@dataclass(frozen=True, slots=True)
class Published:
    """An expert's files and the request it belongs to."""

    request_id: str
    ref: ExpertRef


@dataclass
class House:
    """Servers, settings, a key for everything, and where experts lie."""

    folder: Path
    settings: Settings
    sessions: SessionFactory
    key: str
    tenant_id: str
    key_id: str
    threads: int
    model: str = "demo"
    pids: list[int] = field(default_factory=list)

    @property
    def variables(self) -> dict[str, str]:
        """What an API process needs to know of this house."""
        return {
            "LETHE_DATABASE_URL": self.settings.database_url,
            "LETHE_REDIS_URL": self.settings.redis_url,
            "LETHE_EXPERTS_DIR": str(self.settings.experts_dir),
            "LETHE_MODEL": self.model,
            "LETHE_DEVICE": "cpu",
        }

    @contextmanager
    def replica(
        self,
        *,
        command: Sequence[str] = ("app.serve",),
        more: Mapping[str, str] | None = None,
    ) -> Iterator[str]:
        """Start an API process (`python -m app.serve`) and yield its URL once it is ready."""
        with self.replicas(1, command=command, more=more) as urls:
            yield urls[0]

    @contextmanager
    def replicas(
        self,
        n: int,
        *,
        command: Sequence[str] = ("app.serve",),
        more: Mapping[str, str] | None = None,
    ) -> Iterator[list[str]]:
        """Start n API processes on this house's database and yield their URLs once all are ready.

        Raises:
            RuntimeError: One ended, or was not ready in time; the message has the end of its log.
        """
        ports = [free_port() for _ in range(n)]
        children = [
            Process(
                f"replica {port}",
                [sys.executable, "-m", *command, "--port", str(port)],
                log=self.folder / f"replica-{port}.log",
                env=environment(self.threads, {**self.variables, **(more or {})}),
            )
            for port in ports
        ]
        try:
            for child in children:
                child.start()
            self.pids = [child.pid for child in children if child.pid is not None]
            urls = [f"http://127.0.0.1:{port}" for port in ports]
            for child, url in zip(children, urls, strict=True):
                wait_until_ready(child, f"{url}/readyz")
            yield urls
        finally:
            for child in children:
                child.stop()


def wait_until_ready(child: Process, url: str) -> None:
    """Wait until `url` is answered with 200. Raises RuntimeError with the child's log if it never is."""
    deadline = time.monotonic() + READY_SECONDS
    with httpx.Client(trust_env=False, timeout=10) as client:
        while child.running() and time.monotonic() < deadline:
            try:
                if client.get(url).status_code == httpx.codes.OK:
                    return
            except httpx.TransportError:
                pass  # not listening yet
            time.sleep(0.1)
    raise RuntimeError(f"{child.name} did not become ready:\n{child.tail(30)}")


@contextmanager
def house(folder: Path, *, threads: int, model: str = "demo") -> Iterator[House]:
    """Start Postgres and Valkey in `folder`, migrate, make a key with every scope."""
    with servers(folder) as (database_url, redis_url):
        experts = folder / "experts"
        experts.mkdir()
        settings = load_settings(
            _env_file=None, database_url=database_url, redis_url=redis_url, experts_dir=experts, model=model
        )
        engine = create_engine_from(settings)
        sessions = session_factory(engine)
        with sessions.begin() as session:
            key = create_key(session, tenant="root", scopes=["owner", "operator", "auditor", "chat"])
        try:
            yield House(folder, settings, sessions, key.secret, key.tenant_id, key.id, threads, model)
        finally:
            engine.dispose()


def record_of(mllm: MLLM, entity: Entity) -> GateRecord:
    """Return the gate record of an entity: names and pictures as filed, all it is known for as facts."""
    pictures = [draw(entity, view) for view in range(RECORD_PICTURES)]
    names = (entity.name, *entity.aliases)
    record = interim_record(mllm, names, entity.klass, pictures, list(entity.facts.values()))
    return replace(record, refusals=("I cannot talk about that.",))


def write_experts(place: House, mllm: MLLM, n: int) -> list[Published]:
    """Write n random experts of the world's entities, in the order of the tasks, without publishing them.

    With more experts than entities the later ones have the same subjects under other names.
    """
    layers, cipher = target_linears(mllm.network), place.settings.evidence_cipher()
    entities, found = sequence(), []
    for i in range(n):
        entity, turn = entities[i % len(entities)], i // len(entities)
        record = record_of(mllm, entity)
        if turn:
            record = replace(record, aliases=tuple(f"{name} {_letters(turn)}" for name in record.aliases))
        request_id = new_id("req")
        adapter = write_adapter(place.folder / "adapter", random_adapter(layers, i))
        ref = write_expert(
            place.settings.experts_dir,
            expert_id=expert_id_of(request_id),
            version=1,
            request_id=request_id,
            adapter_dir=adapter,
            gate=record,
            model_fingerprint=mllm.fingerprint,
            key=cipher,
            created_at=utcnow(),
        )
        found.append(Published(request_id, ref))
    return found


def _letters(number: int) -> str:
    return "".join(chr(ord("a") + int(digit)) for digit in str(number))


def enrol(place: House, experts: Sequence[Published], fingerprint: str) -> None:
    """Write experts into the registry as generation 1, all at once, as if they had been published."""
    with place.sessions.begin() as session:
        session.execute(insert(RemovalRequest), [_request(place, e, "active") for e in experts])
        session.execute(
            insert(Expert),
            [
                {
                    "id": e.ref.expert_id,
                    "version": e.ref.version,
                    "request_id": e.request_id,
                    "path": str(e.ref.path),
                    "manifest_sha256": e.ref.manifest_sha256,
                    "bytes": e.ref.bytes,
                    "model_fingerprint": fingerprint,
                }
                for e in experts
            ],
        )
        first = {"number": 1, "cause": "publish", "experts": len(experts)}
        session.execute(insert(Generation), [first])
        members = [
            {"expert_id": e.ref.expert_id, "version": e.ref.version, "from_generation": 1} for e in experts
        ]
        session.execute(insert(GenerationExpert), members)


TOKEN = 1
"""The fencing token under which `about_to_publish` leaves its requests."""


def about_to_publish(place: House, experts: Sequence[Published]) -> None:
    """Write requests whose worker has come to the publish stage and holds the lease."""
    now = utcnow()
    with place.sessions.begin() as session:
        session.execute(insert(RemovalRequest), [_request(place, e, "publishing") for e in experts])
        session.execute(
            insert(LeaseRow),
            [
                {
                    "request_id": e.request_id,
                    "token": TOKEN,
                    "holder": "benchmark",
                    "acquired_at": now,
                    "heartbeat_at": now,
                    "expires_at": now + timedelta(hours=1),
                }
                for e in experts
            ],
        )


def _request(place: House, expert: Published, state: str) -> dict[str, object]:
    now = utcnow()
    return {
        "id": expert.request_id,
        "tenant_id": place.tenant_id,
        "created_by": place.key_id,
        "state": state,
        "percent": 100 if state == "active" else 95,
        "klass": "Personage",
        "legal_ground": "gdpr_art_17",
        "subject_token": expert.ref.manifest_sha256,
        "queued_at": now,
        "expected_by": now + timedelta(days=30),
    }
