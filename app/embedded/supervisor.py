"""The embedded stack as one thing: servers, schema, first keys, API, worker; started, watched, ended."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Self

import httpx

from app.embedded.home import Home, Running
from app.embedded.keys import ensure_keys
from app.embedded.migrate import migrate
from app.embedded.postgres import EmbeddedPostgres
from app.embedded.process import Process, StackError, free_port, port_is_free
from app.embedded.valkey import EmbeddedValkey
from app.lumoe.errors import ModelNotFoundError
from app.lumoe.sources import where_is

DEFAULT_PORT = 8000
RESTARTS = 5
RESTART_WINDOW_SECONDS = 600.0
READY_SECONDS = float(os.environ.get("LETHE_START_SECONDS", "900"))
_LOOPBACK = "127.0.0.1"

Report = Callable[[str], None]


class Stack:
    """Everything `lethe up` runs, as child processes of the caller (use it from the main thread).

    A database or broker that ``LETHE_DATABASE_URL`` or ``LETHE_REDIS_URL`` names is used instead of an
    embedded one.

    Args:
        home: data, secrets, keys and logs.
        host: address the API listens on.
        port: port of the API; None takes 8000, or a free one if that is taken.
        environment: variables for the children, on top of this process's own.
        report: told in one line what is happening.
    """

    def __init__(
        self,
        home: Home,
        *,
        host: str = _LOOPBACK,
        port: int | None = None,
        environment: Mapping[str, str] | None = None,
        report: Report | None = None,
    ) -> None:
        self.home = home
        self.host = host
        self.port = port
        self.keys: dict[str, str] = {}
        self._extra = dict(environment or {})
        self._report: Report = report or (lambda _: None)
        self._cleanup = ExitStack()
        self._restarts: dict[str, deque[float]] = {}
        self._servers: list[EmbeddedPostgres | EmbeddedValkey] = []
        self._children: list[Process] = []

    @property
    def url(self) -> str:
        """Base URL of the API."""
        return f"http://{_LOOPBACK if self.host in ('0.0.0.0', '::') else self.host}:{self.port}"  # noqa: S104

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start everything and wait until the API is ready.

        Raises:
            StackError: something did not come up; the message holds the end of its log.
        """
        self._cleanup.enter_context(self.home.locked())
        self._look_for_model()
        self._choose_port()
        environment = self._start_servers()
        self._report("Migrating the database")
        migrate(environment["LETHE_DATABASE_URL"])
        self.keys = ensure_keys(self.home, environment)
        self._report(f"Starting API and worker (logs: {self.home.logs})")
        self._start_children(environment)
        self._wait_until_ready()
        self.home.announce(Running(os.getpid(), self.url, _shared(environment)))
        self._cleanup.callback(self.home.announce, None)

    def stop(self) -> None:
        """End API and worker, then the servers. Safe to call twice."""
        for child in self._children:
            child.send(child.stop_signal)  # all at once; each is then waited for
        self._cleanup.close()
        self._children, self._servers = [], []

    def watch(self) -> None:
        """Look after the children once: restart a crashed one.

        Raises:
            StackError: a child crashed more than `RESTARTS` times in ten minutes, or a server is gone.
        """
        for server in self._servers:
            if not server.running():
                raise StackError(f"{type(server).__name__} is gone", f"Its log is {server.log}. Start again.")
        for child in self._children:
            status = child.exit_status()
            if status is None:
                continue
            crashes = self._restarts.setdefault(child.name, deque())
            now = time.monotonic()
            while crashes and now - crashes[0] > RESTART_WINDOW_SECONDS:
                crashes.popleft()
            if len(crashes) >= RESTARTS:
                raise self._died(child, status, f"{RESTARTS + 1} times in ten minutes")
            crashes.append(now)
            self._report(f"The {child.name} ended unexpectedly ({_ended(status)}); restarting it")
            child.stop()  # what it left behind
            child.start()

    def _look_for_model(self) -> None:
        """Say at once what API and worker would say after everything has been started."""
        source = {**os.environ, **self._extra}.get("LETHE_MODEL", "demo")
        try:
            where_is(source)
        except ModelNotFoundError as error:
            raise StackError(str(error), "Nothing has been started.") from None

    def _choose_port(self) -> None:
        if self.port is None:
            self.port = DEFAULT_PORT if port_is_free(DEFAULT_PORT, self.host) else free_port()
        elif self.port == 0:
            self.port = free_port()
        elif not port_is_free(self.port, self.host):
            raise StackError(
                f"port {self.port} is taken", "Choose another with --port, or none for a free one."
            )

    def _start_servers(self) -> dict[str, str]:
        """Start what is not given by URL; return the environment of the children."""
        environment = {**os.environ, **self._extra}
        secrets = self.home.secrets()
        if not environment.get("LETHE_DATABASE_URL"):
            self._report("Starting Postgres")
            postgres = EmbeddedPostgres(
                self.home.root / "postgres",
                password=secrets.postgres_password,
                log=self.home.logs / "postgres.log",
            )
            self._cleanup.callback(postgres.stop)
            postgres.start()
            self._servers.append(postgres)
            postgres.ensure_database("lethe")
            environment["LETHE_DATABASE_URL"] = postgres.url("lethe")
        if not environment.get("LETHE_REDIS_URL"):
            self._report("Starting Valkey")
            valkey = EmbeddedValkey(
                self.home.root / "valkey", password=secrets.redis_password, log=self.home.logs / "valkey.log"
            )
            self._cleanup.callback(valkey.stop)
            valkey.start()
            self._servers.append(valkey)
            environment["LETHE_REDIS_URL"] = valkey.url()
        environment.setdefault("LETHE_SECRET_KEY", secrets.secret_key)
        environment.setdefault("LETHE_EVIDENCE_KEY", secrets.evidence_key)
        environment.setdefault("LETHE_EXPERTS_DIR", str(self.home.experts))
        environment.setdefault("LETHE_EXPERTS_CACHE", str(self.home.experts_cache))
        environment.setdefault(
            "HF_HUB_OFFLINE", "1" if environment.get("LETHE_MODEL", "demo") == "demo" else "0"
        )
        # API and worker share the cores: threads that spin at barriers slow each other down up to 100-fold,
        # threads that never spin train a third slower. A short spin (about 0.1 ms) has neither fault.
        environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        environment.setdefault("GOMP_SPINCOUNT", "20000")
        environment["PYTHONUNBUFFERED"] = "1"
        return environment

    def child(self, name: str) -> Process:
        """Return the child process `api` or `worker`."""
        return next(child for child in self._children if child.name == name)

    def _start_children(self, environment: Mapping[str, str]) -> None:
        api = ["app.serve", "--host", self.host, "--port", str(self.port), "--grace", "5"]
        worker = [
            "celery",
            "-A",
            "workers.celery_app:app",
            "worker",
            "--loglevel",
            "INFO",
            "--concurrency",
            "1",
        ]
        for name, command, grace in (("api", api, 15.0), ("worker", worker, 25.0)):
            child = Process(
                name,
                [sys.executable, "-m", *command],
                log=self.home.logs / f"{name}.log",
                env=environment,
                grace_seconds=grace,
            )
            self._cleanup.callback(child.stop)
            child.start()
            self._children.append(child)

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        with httpx.Client(timeout=5.0, trust_env=False) as client:
            while time.monotonic() < deadline:
                for child in self._children:
                    if (status := child.exit_status()) is not None:
                        raise self._died(child, status)
                try:
                    if client.get(f"{self.url}/readyz").status_code == httpx.codes.OK:
                        return
                except httpx.TransportError:
                    pass  # not listening yet
                time.sleep(0.1)
        raise StackError(
            f"the API was not ready after {READY_SECONDS:.0f} s:\n{self._children[0].tail()}",
            "A large model may need longer: set LETHE_START_SECONDS.",
        )

    def _died(self, child: Process, status: int, how_often: str = "") -> StackError:
        hint = f"The whole log is {child.log}"
        for line in reversed(child.tail(60).splitlines()):
            name, _, explanation = line.partition("ConfigurationError: ")
            if explanation and not name.strip(" .abcdefghijklmnopqrstuvwxyz"):
                return StackError(explanation, hint)  # the process itself says what is wrong
        message = f"the {child.name} ended {how_often or 'at start'} ({_ended(status)}). Its last lines:\n"
        return StackError(message + child.tail(), hint)


def _shared(environment: Mapping[str, str]) -> dict[str, str]:
    """What another process of ours needs to work on the same stack."""
    return {name: value for name, value in environment.items() if name.startswith("LETHE_")}


def _ended(status: int) -> str:
    return f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
