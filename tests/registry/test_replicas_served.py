"""Three API processes behind a round-robin proxy; the compose stack's own form is in tests/docker."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.embedded.process import Process, free_port
from app.kit.ids import expert_id_of
from app.lumoe.expert import write_expert
from app.lumoe.mllm import MLLM
from app.registry.service import RegistryService
from app.removal.datakeys import DataKeys
from app.removal.states import Event
from app.settings import Settings
from tests.lumoe.experts import make_adapter, make_record
from tests.lumoe.tiny import save_tiny_llava
from tests.registry.balancer import Balancer, is_ready
from tests.service import Service

PATIENCE_SECONDS = 180.0
LEASE_SECONDS = 3.0


@dataclass
class Replicas:
    """API processes as `app.serve` starts them, by port, and the proxy before them."""

    service: Service
    settings: Settings
    model: Path
    folder: Path
    processes: dict[int, Process]
    balancer: Balancer
    key: str

    def start(self) -> int:
        """Start one more; return its port at once."""
        port = free_port()
        environment = {
            **os.environ,
            "LETHE_DATABASE_URL": self.settings.database_url,
            "LETHE_REDIS_URL": self.settings.redis_url,
            "LETHE_EXPERTS_DIR": str(self.settings.experts_dir),
            "LETHE_MODEL": str(self.model),
            "LETHE_DEVICE": "cpu",
            "LETHE_REGISTRY_POLL_SECONDS": "0.1",
            "LETHE_REPLICA_LEASE_SECONDS": str(LEASE_SECONDS),
        }
        command = [sys.executable, "-W", "ignore", "-m", "app.serve", "--port", str(port)]
        self.processes[port] = Process(str(port), command, log=self.folder / f"{port}.log", env=environment)
        self.processes[port].start()
        self.balancer.ports = list(self.processes)
        return port

    def signal(self, port: int, signum: signal.Signals) -> None:
        pid = self.processes[port].pid
        assert pid is not None
        os.kill(pid, signum)

    def until_ready(self, port: int) -> None:
        until(f"{port} ready\n{self.processes[port].tail()}", lambda: is_ready(port))

    def ask(self, url: str, name: str) -> tuple[int, str | None]:
        """Ask for somebody; the status (0 if nobody listens), and which expert claimed it."""
        body = {"messages": [{"role": "user", "content": f"Tell me about {name}."}], "max_tokens": 4}
        headers = {"Authorization": f"Bearer {self.key}"}
        try:
            answer = httpx.post(f"{url}/chat", json=body, headers=headers, trust_env=False, timeout=60)
        except httpx.TransportError:
            return 0, None
        if answer.status_code != 200:
            return answer.status_code, None
        found: str | None = answer.json()["routing"]["expert_id"]
        return 200, found

    def everywhere(self, name: str) -> set[tuple[int, str | None]]:
        """Ask until every replica has answered through the proxy."""
        self.balancer.answered.clear()
        found = set()

        def all_did() -> bool:
            found.add(self.ask(self.balancer.url, name))
            return set(self.balancer.answered) == set(self.processes)

        until("an answer of every replica", all_did)
        return found

    def acknowledged(self) -> bool:
        with self.service.sessions.begin() as session:
            registry = RegistryService(session, self.settings)
            return registry.acknowledged(registry.newest())

    def go_live(self, name: str, mllm: MLLM) -> str:
        """File a request and bring it to active, as a worker does; return the expert's id."""
        request_id: str = self.service.file(name)["id"]
        lease = self.service.work_until(request_id, "publish")
        ref = write_expert(
            self.settings.experts_dir,
            expert_id=expert_id_of(request_id),
            version=1,
            request_id=request_id,
            adapter_dir=make_adapter(mllm, self.folder / "adapter", seed=1),
            gate=make_record(name),
            model_fingerprint=mllm.fingerprint,
            key=DataKeys(self.service.sessions, self.settings).of(request_id),
            created_at=datetime(2026, 1, 1, tzinfo=UTC),
        )
        with self.service.sessions.begin() as session:
            registry = RegistryService(session, self.settings)
            registry.publish(
                request_id=request_id, ref=ref, token=lease.token, model_fingerprint=mllm.fingerprint
            )
        until("every replica's word", self.acknowledged)
        with self.service.removal() as removal:
            removal.transition(request_id, Event.ACTIVATE, actor="worker:test", token=lease.token)
        lease.release()
        return ref.expert_id


def until(what: str, condition: Any) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError(f"not within {PATIENCE_SECONDS:g} s: {what}")


@pytest.fixture
def replicas(service: Service, tmp_path: Path) -> Iterator[Replicas]:
    settings = service.settings.model_copy(
        update={"experts_dir": tmp_path / "experts", "replica_lease_seconds": LEASE_SECONDS}
    )
    key = service.key("root", "operator", "chat")
    made = Replicas(service, settings, save_tiny_llava(tmp_path / "tiny"), tmp_path, {}, Balancer([]), key)
    try:
        for _ in range(3):
            made.start()
        for port in list(made.processes):
            made.until_ready(port)
        yield made
    finally:
        made.balancer.close()
        for process in made.processes.values():
            if process.running():
                os.kill(process.pid or 0, signal.SIGKILL)
            process.stop()


def test_one_is_killed_and_one_stands_still(replicas: Replicas) -> None:
    mllm = MLLM.load(str(replicas.model), "cpu")
    assert replicas.everywhere("Korvane") == {(200, None)}
    expert = replicas.go_live("Korvane", mllm)
    assert replicas.everywhere("Korvane") == {(200, expert)}

    killed = next(iter(replicas.processes))
    replicas.signal(killed, signal.SIGKILL)
    replicas.processes.pop(killed).stop()
    fresh = replicas.start()
    direct, proxied = set(), set()
    url = f"http://127.0.0.1:{fresh}"
    while not is_ready(fresh):
        direct.add(replicas.ask(url, "Korvane"))
        proxied.add(replicas.ask(replicas.balancer.url, "Korvane"))
        assert replicas.processes[fresh].running(), replicas.processes[fresh].tail()
    assert direct <= {(0, None), (503, None), (200, expert)}, "it answered before it had the expert"
    assert (200, expert) in proxied
    assert proxied <= {(200, expert), (502, None)}
    assert replicas.ask(url, "Korvane") == (200, expert)
    assert replicas.everywhere("Korvane") == {(200, expert)}

    still = next(iter(replicas.processes))
    replicas.signal(still, signal.SIGSTOP)
    second = replicas.go_live("Mirasol", mllm)  # without it, once its heartbeat has run out
    url = f"http://127.0.0.1:{still}"
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(replicas.ask, url, "Mirasol") for _ in range(4)]
        time.sleep(0.3)  # they wait in its socket: the first thing it does is to answer them
        replicas.signal(still, signal.SIGCONT)
        woken = {one.result() for one in asked}
    while not is_ready(still):
        woken.add(replicas.ask(url, "Mirasol"))
    assert woken <= {(503, None), (200, second)}, "it answered without the expert that everybody relies on"
    assert replicas.everywhere("Mirasol") == {(200, second)}
