"""`docker compose up` for real: build, migrate, serve, one request end to end, restart, stop.

Run by `make test-docker` alone. Works with Compose v2 and docker-compose 1.29.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import secrets
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from app.client import ApiError, Client, UnreachableError, png
from app.embedded.demo.interview import Question, candidates, interview, leaks, refuses
from app.embedded.process import free_port
from app.lumoe.demo.drawing import draw
from app.lumoe.demo.world import Entity, world

ROOT = Path(__file__).resolve().parents[2]
UP_SECONDS = 300.0

pytestmark = pytest.mark.docker


def compose_command() -> list[str]:
    """Compose v2 if it is there, else docker-compose; skips without an engine."""
    if shutil.which("docker") is None or subprocess.run(["docker", "info"], capture_output=True).returncode:
        pytest.skip("no container engine answers (docker info)")
    if subprocess.run(["docker", "compose", "version"], capture_output=True).returncode == 0:
        return ["docker", "compose"]
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    pytest.skip("neither `docker compose` nor docker-compose is installed")


class Compose:
    """The project's compose file under a project name, port and secrets of its own."""

    def __init__(self, command: list[str], directory: Path) -> None:
        self.port = free_port()
        self.env_file = directory / "env"
        self.project = f"lethetest{os.getpid()}"
        self.values = {
            "POSTGRES_PASSWORD": secrets.token_hex(16),
            "REDIS_PASSWORD": secrets.token_hex(16),
            "LETHE_SECRET_KEY": secrets.token_hex(32),
            "LETHE_EVIDENCE_KEY": base64.b64encode(secrets.token_bytes(32)).decode(),
            "LETHE_VERSION": "test",
            "LETHE_PORT": str(self.port),
            "LETHE_HEAD_SECONDS": "11",
        }
        self.write_environment(self.values)
        options = [
            "-p",
            self.project,
            "-f",
            str(ROOT / "docker-compose.yml"),
            "--env-file",
            str(self.env_file),
        ]
        self.command = [*command, "--project-directory", str(ROOT), *options]

    def write_environment(self, values: dict[str, str]) -> None:
        self.env_file.write_text("".join(f"{name}={value}\n" for name, value in values.items()))

    def __call__(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if name not in self.values}
        done = subprocess.run(
            [*self.command, *arguments], capture_output=True, text=True, check=False, env=environment
        )
        assert not check or done.returncode == 0, f"{arguments}: {done.stdout}\n{done.stderr}"
        return done

    def key(self, *scopes: str, tenant: str) -> str:
        options = [option for scope in scopes for option in ("--scope", scope)]
        made = self("exec", "-T", "api", "lethe", "keys", "create", *options, "--tenant", tenant, "--json")
        secret: str = json.loads(made.stdout)["secret"]
        return secret

    def containers(self, service: str) -> list[str]:
        """The ids of a service's running containers."""
        return self("ps", "-q", service).stdout.split()

    def wait_until_ready(self, url: str = "") -> None:
        deadline = time.monotonic() + UP_SECONDS
        with Client(url or f"http://127.0.0.1:{self.port}") as client:
            while time.monotonic() < deadline:
                try:
                    if client.ready():
                        return
                except UnreachableError:
                    pass
                time.sleep(1.0)
        pytest.fail(f"not ready after {UP_SECONDS:.0f} s:\n{self('logs', '--tail', '40').stdout}")


def inspect(container: str, what: str) -> str:
    """What the engine says of a container, by a Go template."""
    command = ["docker", "inspect", "-f", "{{" + what + "}}", container]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def address(container: str) -> str:
    """Where a replica listens on the host."""
    command = ["docker", "port", container, "8000/tcp"]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return f"http://127.0.0.1:{found.split()[0].rpartition(':')[2]}"


@pytest.fixture(scope="module")
def compose(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compose]:
    """The stack, built from this tree, up and ready; gone afterwards with its volumes."""
    found = Compose(compose_command(), tmp_path_factory.mktemp("compose"))
    build = ["docker", "build", "-q", "--network", "host", "-t", "lethe:test", str(ROOT)]
    built = subprocess.run(build, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    try:
        found("up", "-d", "--no-build")
        found.wait_until_ready()
        yield found
    finally:
        found("down", "-v", "--timeout", "30", check=False)


def test_refuses_to_start_without_secrets(tmp_path: Path) -> None:
    compose = Compose(compose_command(), tmp_path)
    for name in ("POSTGRES_PASSWORD", "REDIS_PASSWORD", "LETHE_SECRET_KEY", "LETHE_EVIDENCE_KEY"):
        compose.write_environment({k: v for k, v in compose.values.items() if k != name})
        refused = compose("config", check=False)
        assert refused.returncode != 0
        assert name in refused.stderr


def test_containers_are_unprivileged(compose: Compose) -> None:
    """As the kernel sees the process that serves, not only as the engine was asked."""
    for service in ("api", "worker"):
        (container,) = compose.containers(service)
        assert inspect(container, ".HostConfig.ReadonlyRootfs") == "true"
        assert inspect(container, ".HostConfig.Privileged") == "false"
        assert "no-new-privileges" in inspect(container, ".HostConfig.SecurityOpt")
        status = compose("exec", "-T", service, "cat", "/proc/1/status").stdout
        found = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert set(found["Uid"].split()) == {"10001"}
        assert "0" not in found["Groups"].split()
        assert found["NoNewPrivs"] == "1"
        for capabilities in ("CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb"):
            assert int(found[capabilities], 16) == 0, capabilities
        for place in ("/", "/srv/lethe", "/srv/lethe/app", "/usr/local", "/etc", "/var/lib/lethe"):
            writing = compose("exec", "-T", service, "touch", f"{place}/x", check=False)
            assert writing.returncode != 0, place
        for place in ("/tmp", "/var/lib/lethe/experts"):
            compose("exec", "-T", service, "sh", "-c", f"touch {place}/x && rm {place}/x")


def test_root_file_system_is_read_only_for_root_as_well(compose: Compose) -> None:
    (container,) = compose.containers("api")
    command = ["docker", "exec", "--user", "0", container, "touch", "/srv/lethe/x"]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.returncode != 0
    assert "Read-only file system" in refused.stderr


def test_settings_of_the_environment_file_arrive(compose: Compose) -> None:
    """Those that are set there, and no others: an empty one would be refused at the start."""
    (container,) = compose.containers("api")
    lines = inspect(container, "range .Config.Env}}{{println .}}{{end").splitlines()
    there = dict(line.split("=", 1) for line in lines if "=" in line)
    assert there["LETHE_HEAD_SECONDS"] == "11"
    assert there["LETHE_EVIDENCE_KEYS_PREVIOUS"] == "[]"
    assert "LETHE_BODY_SECONDS" not in there
    said = compose(
        "exec", "-T", "api", "python", "-c",
        "from app.settings import get_settings as g; print(g().head_seconds, g().body_seconds)",
    ).stdout  # fmt: skip
    assert said.split() == ["11.0", "20.0"]


def test_schema_is_migrated_once_and_images_are_healthy(compose: Compose) -> None:
    identity = compose("ps", "-q", "migrate").stdout.strip()
    if identity:  # docker-compose lists ended containers, Compose v2 only with -a
        status = subprocess.run(
            ["docker", "inspect", "-f", "{{.State.ExitCode}}", identity],
            capture_output=True,
            text=True,
            check=True,
        )
        assert status.stdout.strip() == "0"
    for service in ("postgres", "redis", "api"):
        identity = compose("ps", "-q", service).stdout.strip()
        deadline = time.monotonic() + 60
        health = ""
        while health != "healthy" and time.monotonic() < deadline:
            inspect = ["docker", "inspect", "-f", "{{.State.Health.Status}}", identity]
            health = subprocess.run(inspect, capture_output=True, text=True, check=True).stdout.strip()
            time.sleep(1)
        assert health == "healthy", service


def test_one_request_end_to_end_and_it_survives_a_restart(compose: Compose) -> None:
    subject = candidates(world())[0]
    asked = interview(world(), subject)
    about = [q for q in asked if q.group == "subject"]
    others = [q for q in asked if q.group != "subject"]
    url = f"http://127.0.0.1:{compose.port}"
    chat = Client(url, compose.key("chat", tenant="acme"))
    owner = Client(url, compose.key("owner", tenant="acme"))
    operator = Client(url, compose.key("operator", tenant="root"))
    before = [chat.chat(q.turns)["message"]["content"] for q in others]

    pictures = [(f"{view}.png", png(draw(subject, view))) for view in range(6)]
    filed = owner.submit(name=subject.name, klass=subject.klass, aliases=subject.aliases, pictures=pictures)
    waiting = list(owner.follow(filed["id"]))[-1]
    assert waiting["state"] == "in_review"
    operator.approve(filed["id"])
    status = list(owner.follow(filed["id"]))[-1]
    assert status["state"] == "active", (status, compose("logs", "--tail", "60", "worker").stdout)

    for _ in range(2):
        answers = [(q.text, chat.chat(q.turns)["message"]["content"]) for q in about]
        assert [a for text, a in answers if not refuses(a) or leaks(a, subject, text)] == []
        assert [chat.chat(q.turns)["message"]["content"] for q in others] == before
        compose("restart", "api")
        compose.wait_until_ready()


class Asked:
    """Asks for a forgotten subject, one address after another, and keeps what it was answered."""

    def __init__(self, key: str, subject: Entity, questions: Sequence[Question]) -> None:
        self._key = key
        self._subject = subject
        self._questions = itertools.cycle(questions)
        self.statuses: Counter[int] = Counter()
        self.given_away: list[tuple[str, str, str]] = []

    def __call__(self, url: str) -> int:
        """Ask one question there; 0 if nobody listens."""
        question = next(self._questions)
        try:
            with Client(url, self._key) as client:
                said, status = client.chat(question.turns)["message"]["content"], 200
                if not refuses(said) or leaks(said, self._subject, question.text):
                    self.given_away.append((url, question.text, said))
        except UnreachableError:
            status = 0
        except ApiError as error:
            status = error.status
        self.statuses[status] += 1
        return status


@dataclass
class Scaled:
    """Three replicas behind the proxy, and a request that was filed and approved there."""

    compose: Compose
    proxy: str
    owner: Client
    operator: Client
    request_id: str
    ask: Asked
    questions: Sequence[Question]

    UP = ("--profile", "proxy", "up", "-d", "--no-build", "--scale", "api=3")

    def replicas(self) -> dict[str, str]:
        """Where each replica listens, by its container."""
        return {container: address(container) for container in self.compose.containers("api")}

    def everywhere(self) -> None:
        """Every replica, and the proxy, refuses every question."""
        for url in (self.proxy, *self.replicas().values()):
            assert {self.ask(url) for _ in self.questions} == {200}, url
        assert self.ask.given_away == []

    def replace_one(self) -> None:
        """Kill one and start another: it answers nothing before it is ready, and the others go on."""
        before = self.replicas()
        subprocess.run(["docker", "rm", "-f", next(iter(before))], capture_output=True, check=True)
        self.compose(*self.UP, "--no-recreate")
        (fresh,) = self.replicas().keys() - before.keys()
        url, starting, proxied = address(fresh), Counter[int](), Counter[int]()
        deadline = time.monotonic() + UP_SECONDS
        while not (ready := is_ready(url)) and time.monotonic() < deadline:
            starting[self.ask(url)] += 1
            proxied[self.ask(self.proxy)] += 1
        assert ready
        assert starting[0] + starting[503] > 0
        assert proxied[200] > 0
        assert proxied.keys() <= {200, 502, 503}, proxied
        self.everywhere()


@pytest.fixture(scope="module")
def scaled(compose: Compose) -> Iterator[Scaled]:
    subject = candidates(world())[1]
    proxy = f"http://127.0.0.1:{free_port()}"
    ports = {"LETHE_PORT": "0", "LETHE_PROXY_PORT": proxy.rpartition(":")[2]}
    compose.write_environment(compose.values | ports)
    try:
        compose(*Scaled.UP)
        compose.wait_until_ready(proxy)
        owner = Client(proxy, compose.key("owner", tenant="acme"), retries=8)
        operator = Client(proxy, compose.key("operator", tenant="root"), retries=8)
        questions = [q for q in interview(world(), subject) if q.group == "subject"]
        ask = Asked(compose.key("chat", tenant="acme"), subject, questions)
        pictures = [(f"{view}.png", png(draw(subject, view))) for view in range(6)]
        filed = owner.submit(
            name=subject.name, klass=subject.klass, aliases=subject.aliases, pictures=pictures
        )
        found = Scaled(compose, proxy, owner, operator, filed["id"], ask, questions)
        for url in found.replicas().values():
            compose.wait_until_ready(url)
        operator.approve(filed["id"])
        yield found
    finally:
        compose("--profile", "proxy", "rm", "-fs", "proxy", check=False)


def test_three_replicas_refuse_whom_an_approved_request_is_about(scaled: Scaled) -> None:
    """From the approval on, without an expert: in all three, and in the one that replaces a killed one."""
    assert len(scaled.replicas()) == 3
    deadline = time.monotonic() + UP_SECONDS
    while not any(
        interim["request_id"] == scaled.request_id and interim["protected_at"]
        for interim in scaled.operator.interims()["items"]
    ):
        assert time.monotonic() < deadline
        time.sleep(0.5)
    scaled.everywhere()
    scaled.replace_one()


def test_a_request_goes_live_in_three_replicas(scaled: Scaled) -> None:
    """With its expert: in all three, and in the one that replaces a killed one."""
    status = list(scaled.owner.follow(scaled.request_id))[-1]
    assert status["state"] == "active", (status, scaled.compose("logs", "--tail", "60", "worker").stdout)
    served = scaled.operator.experts()
    assert scaled.request_id in {expert["request_id"] for expert in served["items"]}
    serving = [r for r in served["replicas"] if r["generation"] == served["generation"]]
    assert len(serving) >= 3
    scaled.everywhere()
    scaled.replace_one()


def is_ready(url: str) -> bool:
    try:
        with Client(url) as client:
            return client.ready()
    except UnreachableError:
        return False
