"""The embedded servers are real, durable, private, and gone when their parent is gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from app.embedded import valkey as valkey_module
from app.embedded.postgres import EmbeddedPostgres
from app.embedded.process import StackError
from app.embedded.valkey import EmbeddedValkey


def alive(pid: int) -> bool:
    """Whether a process exists and is not merely waiting to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def gone_within(pid: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not alive(pid)


class TestPostgres:
    def test_started_fast(self, server_directory: Path) -> None:
        server = EmbeddedPostgres(
            server_directory / "fast", password="p", log=server_directory / "fast.log", durable=False
        )
        start = time.monotonic()
        server.start()
        try:
            assert time.monotonic() - start < 3.0
        finally:
            server.stop()

    def test_data_and_password_survive_a_restart(self, server_directory: Path) -> None:
        directory, log = server_directory / "durable", server_directory / "durable.log"
        server = EmbeddedPostgres(directory, password="p@ss/word%", log=log)
        server.start()
        try:
            server.ensure_database("lethe")
            server.ensure_database("lethe")
            with server.connect("lethe") as connection:
                connection.execute("CREATE TABLE kept (value int)")
                connection.execute("INSERT INTO kept VALUES (7)")
            server.stop()
            server.start()
            with server.connect("lethe") as connection:
                assert connection.execute("SELECT value FROM kept").fetchone() == (7,)
        finally:
            server.stop()

    def test_listens_on_loopback_and_wants_the_password(self, postgres: EmbeddedPostgres) -> None:
        with postgres.connect() as connection:
            assert connection.execute("SHOW listen_addresses").fetchone() == ("127.0.0.1",)
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(
                host="127.0.0.1", port=postgres.port, user="lethe", password="no", dbname="postgres"
            )

    def test_never_runs_as_root(self, postgres: EmbeddedPostgres) -> None:
        assert Path(f"/proc/{postgres.pid}").stat().st_uid != 0

    def test_clone_and_drop(self, postgres: EmbeddedPostgres) -> None:
        postgres.ensure_database("original")
        postgres.clone_database("copy", "original")
        with psycopg.connect(postgres.url("copy").replace("+psycopg", "")):
            postgres.drop_database("copy")  # although somebody is connected
        with pytest.raises(psycopg.OperationalError, match="does not exist"):
            psycopg.connect(postgres.url("copy").replace("+psycopg", ""))
        postgres.drop_database("original")

    def test_damaged_directory_is_explained(self, server_directory: Path) -> None:
        directory = server_directory / "damaged"
        directory.mkdir()
        (directory / "stray").write_text("not a cluster")
        server = EmbeddedPostgres(directory, password="p", log=server_directory / "damaged.log")
        with pytest.raises(StackError, match="exists but is not empty"):
            server.start()


class TestValkey:
    def test_data_survives_a_restart(self, server_directory: Path) -> None:
        server = EmbeddedValkey(server_directory / "vk", password="p", log=server_directory / "vk.log")
        server.start()
        try:
            with redis.Redis.from_url(server.url()) as client:
                client.set("kept", "7")
            server.stop()
            server.start()
            with redis.Redis.from_url(server.url()) as client:
                assert client.get("kept") == b"7"
        finally:
            server.stop()

    def test_wants_the_password_and_evicts_nothing(self, valkey: EmbeddedValkey) -> None:
        with pytest.raises(redis.AuthenticationError):
            redis.Redis(port=valkey.port, retry=Retry(NoBackoff(), 0)).ping()
        with redis.Redis.from_url(valkey.url()) as client:
            assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
            assert client.config_get("bind") == {"bind": "127.0.0.1"}

    def test_missing_binary_says_what_to_do(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", "/nonexistent")
        monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
        with pytest.raises(StackError) as caught:
            valkey_module.binary()
        assert "LETHE_REDIS_URL" in caught.value.hint


_PARENT = """
import sys, time
from pathlib import Path
from app.embedded.postgres import EmbeddedPostgres
from app.embedded.valkey import EmbeddedValkey
at = Path(sys.argv[1])
postgres = EmbeddedPostgres(at / "postgres", password="p", log=at / "postgres.log", durable=False)
valkey = EmbeddedValkey(at / "valkey", password="p", log=at / "valkey.log")
postgres.start(); valkey.start()
print(postgres.pid, valkey.pid, flush=True)
time.sleep(60)
"""


def test_killed_parent_leaves_no_orphans_and_the_next_one_starts(server_directory: Path) -> None:
    directory = server_directory / "orphans"
    directory.mkdir()
    parent = subprocess.Popen(
        [sys.executable, "-c", _PARENT, str(directory)], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(pids) == 2
    assert all(alive(pid) for pid in pids)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    successor = EmbeddedPostgres(
        directory / "postgres", password="p", log=directory / "successor.log", durable=False
    )
    successor.start()
    successor.stop()
    assert all(gone_within(pid, 10.0) for pid in pids)
