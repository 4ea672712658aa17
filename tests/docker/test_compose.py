"""`docker compose up` for real: build, migrate, serve, one request end to end, restart, stop.

Run by `make test-docker` alone. Works with Compose v2 and docker-compose 1.29.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.client import Client, UnreachableError, png
from app.embedded.demo.interview import candidates, interview, leaks, refuses
from app.embedded.process import free_port
from app.lumoe.demo.drawing import draw
from app.lumoe.demo.world import world

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

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + UP_SECONDS
        with Client(f"http://127.0.0.1:{self.port}") as client:
            while time.monotonic() < deadline:
                try:
                    if client.ready():
                        return
                except UnreachableError:
                    pass
                time.sleep(1.0)
        pytest.fail(f"not ready after {UP_SECONDS:.0f} s:\n{self('logs', '--tail', '40').stdout}")


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
    for service in ("api", "worker"):
        assert compose("exec", "-T", service, "id", "-u").stdout.strip() == "10001"
        writing = compose("exec", "-T", service, "touch", "/srv/lethe/x", check=False)
        assert writing.returncode != 0


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
