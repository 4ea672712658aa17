"""Child processes: started in their own session, ended by pid with everything they started."""

from __future__ import annotations

import socket
import sys
import time
from pathlib import Path

import pytest

from app.embedded.process import Process, free_port, minimal_environment, port_is_free
from app.embedded.valkey import EmbeddedValkey
from tests.embedded.test_servers import gone_within

_WITH_GRANDCHILD = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(child.pid, flush=True)
time.sleep(60)
"""
_DEAF = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf", flush=True)
time.sleep(60)
"""


def first_line(process: Process) -> str:
    deadline = time.monotonic() + 10
    while not process.tail() and time.monotonic() < deadline:
        time.sleep(0.02)
    return process.tail().splitlines()[0]


class TestStop:
    def test_ends_descendants_too(self, tmp_path: Path) -> None:
        process = Process("parent", [sys.executable, "-c", _WITH_GRANDCHILD], log=tmp_path / "log")
        process.start()
        grandchild = int(first_line(process))
        process.stop()
        assert not process.running()
        assert gone_within(grandchild, 5.0)

    def test_kills_what_does_not_listen(self, tmp_path: Path) -> None:
        process = Process("deaf", [sys.executable, "-c", _DEAF], log=tmp_path / "log", grace_seconds=0.3)
        process.start()
        assert first_line(process) == "deaf"
        pid = process.pid
        assert pid is not None
        process.stop()
        assert gone_within(pid, 5.0)

    def test_twice_and_before_start(self, tmp_path: Path) -> None:
        process = Process("short", [sys.executable, "-c", "pass"], log=tmp_path / "log")
        process.stop()
        process.start()
        process.stop()
        process.stop()
        assert process.exit_status() is None


def test_exit_status_and_tail(tmp_path: Path) -> None:
    lines = "for i in range(40): print('line', i)"
    process = Process(
        "failing", [sys.executable, "-c", f"{lines}\nraise SystemExit(3)"], log=tmp_path / "log"
    )
    process.start()
    deadline = time.monotonic() + 10
    while process.exit_status() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert process.exit_status() == 3
    assert process.tail(2) == "line 38\nline 39"


def test_ports() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert not port_is_free(taken.getsockname()[1])
    assert port_is_free(free_port())


def test_a_program_that_is_not_ours_gets_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LETHE_SECRET_KEY", "LETHE_EVIDENCE_KEY", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN"):
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("PATH", "/bin")
    assert minimal_environment()["PATH"] == "/bin"
    assert "secret" not in minimal_environment().values()


def test_the_servers_get_no_secrets(monkeypatch: pytest.MonkeyPatch, server_directory: Path) -> None:
    monkeypatch.setenv("LETHE_EVIDENCE_KEY", "very-secret")
    server = EmbeddedValkey(
        server_directory / "bare", password="p", log=server_directory / "bare.log", durable=False
    )
    server.start()
    try:
        assert b"very-secret" not in Path(f"/proc/{server.pid}/environ").read_bytes()
    finally:
        server.stop()
