"""A child process of ours: own session, own log file, ended by its pid, gone when we are gone."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path


class StackError(RuntimeError):
    """The embedded stack cannot go on; ``hint`` says what to do about it."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


_ORDINARY = frozenset(
    {
        "HOME",
        "LANG",
        "LANGUAGE",
        "LC_ALL",
        "LC_CTYPE",
        "LD_LIBRARY_PATH",
        "PATH",
        "SHELL",
        "TMPDIR",
        "TZ",
        "USER",
    }
)


def minimal_environment() -> dict[str, str]:
    """What a program that is not ours gets of our environment: no keys, no passwords."""
    return {name: value for name, value in os.environ.items() if name in _ORDINARY}


def free_port() -> int:
    """A TCP port that nothing listened on at 127.0.0.1 a moment ago."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def port_is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether ``host:port`` can be bound right now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def dies_with_parent(signal_name: str = "TERM") -> list[str]:
    """Command prefix that makes the kernel signal the child when we die, however we die.

    Empty where ``setpriv`` (util-linux) is missing: children are then ended by `Process.stop` only.
    """
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", signal_name] if setpriv else []


class Process:
    """Starts one command, keeps its output in ``log``, and ends it together with its descendants."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        prefix: Sequence[str] | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
        grace_seconds: float = 15.0,
    ) -> None:
        self.name = name
        self.command = [*(dies_with_parent() if prefix is None else prefix), *command]
        self.log = log
        self.env = dict(os.environ if env is None else env)
        self.cwd = cwd
        self.stop_signal = stop_signal
        self.grace_seconds = grace_seconds
        self._popen: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The child's pid, or None before `start`."""
        return self._popen.pid if self._popen else None

    def start(self) -> None:
        """Start the child in a session of its own, so that Ctrl-C reaches it only through us."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as sink:
            self._popen = subprocess.Popen(  # noqa: S603 - the command is ours, no shell
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                env=self.env,
                cwd=self.cwd,
                start_new_session=True,
            )

    def exit_status(self) -> int | None:
        """The child's exit status, or None while it runs (or was never started)."""
        return self._popen.poll() if self._popen else None

    def running(self) -> bool:
        """Whether the child was started and has not ended."""
        return self._popen is not None and self._popen.poll() is None

    def send(self, signum: signal.Signals) -> None:
        """Signal the child itself, not its descendants."""
        if self._popen is not None and self._popen.poll() is None:
            self._popen.send_signal(signum)

    def stop(self) -> None:
        """Ask the child to end, wait ``grace_seconds``, then kill what is left of its session."""
        if self._popen is None:
            return
        self.send(self.stop_signal)
        try:
            self._popen.wait(self.grace_seconds)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()
        self._end_session(self._popen.pid)
        self._popen = None

    @staticmethod
    def _end_session(session: int) -> None:
        """Kill descendants that outlived the child: they share the process group it led."""
        try:
            os.killpg(session, signal.SIGTERM)
            deadline = time.monotonic() + 2.0
            while time.monotonic() < deadline:
                os.killpg(session, 0)
                time.sleep(0.02)
            os.killpg(session, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            return

    def tail(self, lines: int = 15) -> str:
        """The last ``lines`` lines of the child's log, for an error message."""
        try:
            with self.log.open("rb") as source:
                source.seek(0, os.SEEK_END)
                source.seek(max(0, source.tell() - 16_384))
                text = source.read().decode("utf-8", "replace")
        except FileNotFoundError:
            return ""
        return "\n".join(text.splitlines()[-lines:])
