"""The Lethe home: where the embedded stack keeps its data, secrets, keys and logs (``LETHE_HOME``)."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from app.embedded.process import StackError


@dataclass(frozen=True, slots=True)
class Secrets:
    """Made once per home; the database in the same home is encrypted under them."""

    postgres_password: str
    redis_password: str
    secret_key: str
    evidence_key: str


@dataclass(frozen=True, slots=True)
class Running:
    """What a running stack tells the other commands of ``lethe``."""

    pid: int
    url: str
    environment: dict[str, str]


class Home:
    """The directory of one embedded stack. Files with secrets in them are readable by their owner alone."""

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().resolve()
        self.logs = self.root / "logs"
        self.experts = self.root / "experts"
        self.experts_cache = self.root / "experts-cache"
        self._secrets = self.root / "secrets.json"
        self._keys = self.root / "keys.json"
        self._running = self.root / "running.json"

    @classmethod
    def from_environment(cls) -> Home:
        """The home that ``LETHE_HOME`` names, ``./var`` without it."""
        return cls(Path(os.environ.get("LETHE_HOME") or "var"))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the home for one stack.

        Raises:
            StackError: another stack runs in it, or it cannot be written.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            lock = (self.root / "lock").open("w")
        except OSError as error:
            raise StackError(
                f"cannot write to {self.root}: {error.strerror}",
                "Set LETHE_HOME to a directory you may write to.",
            ) from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                running = self.running()
                where = f" at {running.url} (pid {running.pid})" if running else ""
                raise StackError(
                    f"a stack already runs in {self.root}{where}",
                    "Use it, stop it with Ctrl-C where it runs, or set LETHE_HOME to another directory.",
                ) from None
            yield

    def secrets(self) -> Secrets:
        """The home's secrets, drawn on first use."""
        if self._secrets.exists():
            return Secrets(**json.loads(self._secrets.read_text(encoding="utf-8")))
        drawn = Secrets(
            postgres_password=secrets.token_hex(24),
            redis_password=secrets.token_hex(24),
            secret_key=secrets.token_hex(32),
            evidence_key=base64.b64encode(secrets.token_bytes(32)).decode(),
        )
        _write_private(self._secrets, asdict(drawn))
        return drawn

    def keys(self) -> dict[str, str]:
        """API keys of the embedded stack by name; empty before its first start."""
        if not self._keys.exists():
            return {}
        return {
            str(name): str(key) for name, key in json.loads(self._keys.read_text(encoding="utf-8")).items()
        }

    def save_keys(self, keys: Mapping[str, str]) -> None:
        """Keep the stack's own API keys for the other commands of ``lethe``."""
        _write_private(self._keys, dict(keys))

    def announce(self, running: Running | None) -> None:
        """Write down (or, with None, take back) where the stack answers."""
        if running is None:
            self._running.unlink(missing_ok=True)
        else:
            _write_private(self._running, asdict(running))

    def running(self) -> Running | None:
        """The stack that runs in this home, if there is one."""
        try:
            found = Running(**json.loads(self._running.read_text(encoding="utf-8")))
            os.kill(found.pid, 0)
        except (FileNotFoundError, ProcessLookupError, ValueError, TypeError):
            return None
        except PermissionError:
            pass  # alive, and somebody else's
        return found


def _write_private(path: Path, content: object) -> None:
    temporary = path.with_suffix(".new")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as sink:
        json.dump(content, sink, indent=2)
        sink.write("\n")
    temporary.replace(path)
