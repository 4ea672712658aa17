"""The home keeps one stack's data apart from others', and its secrets from other people."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest

from app.embedded.home import Home, Running
from app.embedded.keys import ensure_keys
from app.embedded.process import StackError


class TestLocked:
    def test_second_stack_is_told_where_the_first_is(self, tmp_path: Path) -> None:
        first, second = Home(tmp_path), Home(tmp_path)
        with first.locked():
            first.announce(Running(os.getpid(), "http://127.0.0.1:8123", {}))
            with pytest.raises(StackError, match=r"http://127\.0\.0\.1:8123"), second.locked():
                pass
        with second.locked():
            pass

    def test_unusable_directory(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(StackError) as caught, Home(tmp_path / "file").locked():
            pass
        assert "LETHE_HOME" in caught.value.hint


class TestSecrets:
    def test_drawn_once_and_private(self, tmp_path: Path) -> None:
        secrets = Home(tmp_path).secrets()
        assert Home(tmp_path).secrets() == secrets
        assert len(base64.b64decode(secrets.evidence_key)) == 32
        assert (tmp_path / "secrets.json").stat().st_mode & 0o777 == 0o600

    def test_differ_between_homes(self, tmp_path: Path) -> None:
        (tmp_path / "a").mkdir()
        (tmp_path / "b").mkdir()
        assert Home(tmp_path / "a").secrets() != Home(tmp_path / "b").secrets()


class TestRunning:
    def test_announced_and_taken_back(self, tmp_path: Path) -> None:
        home = Home(tmp_path)
        running = Running(os.getpid(), "http://127.0.0.1:1", {"LETHE_MODEL": "demo"})
        home.announce(running)
        assert home.running() == running
        home.announce(None)
        assert home.running() is None

    def test_dead_stack_is_not_running(self, tmp_path: Path) -> None:
        home = Home(tmp_path)
        home.announce(Running(2**22 + 1, "http://127.0.0.1:1", {}))  # beyond the largest pid
        assert home.running() is None


class TestEnsureKeys:
    def test_made_once_and_kept(self, database: str, tmp_path: Path) -> None:
        home, environment = Home(tmp_path), {"LETHE_DATABASE_URL": database}
        keys = ensure_keys(home, environment)
        assert set(keys) == {"owner", "chat", "operator", "auditor"}
        assert ensure_keys(home, environment) == keys == home.keys()
        assert (tmp_path / "keys.json").stat().st_mode & 0o777 == 0o600

    def test_made_again_for_a_new_database(self, database: str, tmp_path: Path) -> None:
        home = Home(tmp_path)
        home.save_keys({"owner": "lethe_of-another-database"})
        keys = ensure_keys(home, {"LETHE_DATABASE_URL": database})
        assert keys["owner"] != "lethe_of-another-database"
        assert home.keys() == keys
