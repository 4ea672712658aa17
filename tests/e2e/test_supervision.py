"""`lethe up` as a person and a process manager meet it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from app.client import Client
from app.embedded.home import Home
from app.embedded.supervisor import Stack
from app.lumoe.demo.world import world
from tests.e2e.conftest import THREADS
from tests.embedded.test_servers import alive, gone_within

START_SECONDS = 90.0


def descendants(pid: int) -> set[int]:
    """Pids of all processes below ``pid``."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue
    found: set[int] = set()
    grown = {pid}
    while grown:
        grown = {child for child, parent in parents.items() if parent in grown} - found
        found |= grown
    return found


def environment(home: Path, **more: str) -> dict[str, str]:
    return {**os.environ, **THREADS, "LETHE_HOME": str(home), **more}


def lethe(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "from app.cli import main; main()", *arguments]


class TestUp:
    @pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
    def test_ends_without_orphans(self, tmp_path: Path, how: signal.Signals) -> None:
        home = Home(tmp_path / "home")
        up = subprocess.Popen(
            lethe("up", "--port", "0"), env=environment(home.root), stdout=subprocess.PIPE, text=True
        )
        try:
            deadline = time.monotonic() + START_SECONDS
            while (running := home.running()) is None and time.monotonic() < deadline:
                assert up.poll() is None, "lethe up ended at start"
                time.sleep(0.1)
            assert running is not None
            children = descendants(up.pid)
            assert len(children) >= 4
            up.send_signal(how)
            status = up.wait(60)
            assert all(gone_within(pid, 30.0) for pid in children)
        finally:
            up.kill()
            up.communicate()
        assert status == (0 if how is signal.SIGINT else -signal.SIGKILL)
        assert home.running() is None

    def test_model_that_is_not_there(self, tmp_path: Path) -> None:
        done = subprocess.run(
            lethe("up", "--port", "0"),
            env=environment(tmp_path / "home", LETHE_MODEL="/no/such/model"),
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
            check=False,
        )
        assert done.returncode == 1
        assert "LETHE_MODEL" in done.stderr
        assert "Traceback" not in done.stderr

    def test_second_one_in_the_same_home(self, stack: Stack) -> None:
        done = subprocess.run(
            lethe("up", "--port", "0"),
            env=environment(stack.home.root),
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == 1
        assert stack.url in done.stderr


class TestWatch:
    @pytest.mark.parametrize("name", ["worker", "api"])
    def test_restarts_what_was_killed(self, stack: Stack, name: str) -> None:
        child = next(c for c in stack._children if c.name == name)
        first = child.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        deadline = time.monotonic() + 10.0
        while child.pid == first and time.monotonic() < deadline:
            stack.watch()  # a killed process with threads can be waited for only when the last has ended
            time.sleep(0.05)
        assert child.pid not in (None, first)
        assert child.pid is not None
        assert alive(child.pid)
        stack._wait_until_ready()
        protected = world().protected[0]
        with Client(stack.url, stack.keys["chat"]) as chat:
            shown = chat.chat([{"role": "user", "content": f"Tell me about {protected.name}."}])
        assert shown["message"]["content"]
