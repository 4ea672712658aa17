"""The `lethe` command: what scripts and people get, above all when something is wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from typer.testing import CliRunner, Result

from app.cli import app
from app.client import Client
from app.embedded.home import Home, Running
from app.embedded.process import free_port
from app.settings import get_settings


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """No command sees a stack, a .env file or settings of the developer's."""
    monkeypatch.setenv("LETHE_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    get_settings.cache_clear()
    yield tmp_path / "home"
    get_settings.cache_clear()


def lethe(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments, env={"COLUMNS": "200", "TERM": "dumb"})


class TestKeys:
    def test_create_list_revoke(self, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LETHE_DATABASE_URL", database)
        made = lethe("keys", "create", "--scope", "owner", "--scope", "chat", "--tenant", "acme", "--json")
        assert made.exit_code == 0, made.output
        key = json.loads(made.stdout)
        assert key["secret"].startswith("lethe_")
        assert key["scopes"] == ["chat", "owner"]

        listed = lethe("keys", "list", "--json")
        (row,) = json.loads(listed.stdout)
        assert (row["id"], row["tenant"], row["state"]) == (key["id"], "acme", "valid")
        assert key["secret"] not in listed.stdout

        assert lethe("keys", "revoke", key["id"]).exit_code == 0
        assert json.loads(lethe("keys", "list", "--json").stdout)[0]["state"] == "revoked"

    def test_unknown_scope(self, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LETHE_DATABASE_URL", database)
        refused = lethe("keys", "create", "--scope", "god")
        assert refused.exit_code == 7
        assert "owner, operator, auditor, chat" in refused.stderr

    def test_unknown_key(self, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LETHE_DATABASE_URL", database)
        assert lethe("keys", "revoke", "key_none").exit_code == 5

    def test_no_tables_yet(self, empty_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LETHE_DATABASE_URL", empty_database)
        refused = lethe("keys", "list")
        assert refused.exit_code == 1
        assert "lethe migrate" in refused.stderr

    def test_no_database(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LETHE_DATABASE_URL", f"postgresql://x:secret@127.0.0.1:{free_port()}/x")
        refused = lethe("keys", "list")
        assert refused.exit_code == 3
        assert "LETHE_DATABASE_URL" in refused.stderr
        assert "secret" not in refused.output

    def test_works_on_the_stack_that_runs_here(self, database: str, own_home: Path) -> None:
        own_home.mkdir()
        Home(own_home).announce(Running(1, "http://127.0.0.1:1", {"LETHE_DATABASE_URL": database}))
        assert lethe("keys", "list", "--json").exit_code == 0


class TestMigrate:
    def test_empty_database(self, empty_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LETHE_DATABASE_URL", empty_database)
        for _ in range(2):
            assert lethe("migrate").exit_code == 0
        with psycopg.connect(empty_database.replace("+psycopg", "")) as connection:
            found = connection.execute("SELECT count(*) FROM removal_requests").fetchone()
        assert found == (0,)

    def test_no_database(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LETHE_DATABASE_URL", f"postgresql://x:secret@127.0.0.1:{free_port()}/x")
        refused = lethe("migrate")
        assert refused.exit_code == 3
        assert "LETHE_DATABASE_URL" in refused.stderr
        assert "secret" not in refused.output

    def test_unusable_url(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LETHE_DATABASE_URL", "mysql://x")
        refused = lethe("migrate")
        assert refused.exit_code == 1
        assert "LETHE_DATABASE_URL" in refused.stderr


class TestClientCommands:
    def test_no_key(self) -> None:
        refused = lethe("status", "req_1")
        assert refused.exit_code == 4
        assert "LETHE_API_KEY" in refused.stderr

    def test_no_server(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LETHE_API_KEY", "lethe_x")
        monkeypatch.setenv("LETHE_URL", f"http://127.0.0.1:{free_port()}")
        refused = lethe("chat", "Who is this?")
        assert refused.exit_code == 3
        assert "lethe up" in refused.stderr

    def test_picture_that_is_not_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LETHE_API_KEY", "lethe_x")
        assert lethe("submit", "--picture", "none.png").exit_code == 2


REPORT = {
    "request": {"id": "req_1", "state": "active"},
    "findings": [{"title": "Refused cleanly", "statement": "100.0 % of n = 40 [odd].", "met": True}],
    "not_claimed": ["It is not erased from the model's weights."],
}


class TestReport:
    @pytest.fixture(autouse=True)
    def server(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LETHE_API_KEY", "lethe_key")
        monkeypatch.setattr(Client, "report", lambda *_, **__: REPORT)
        monkeypatch.setattr(Client, "report_page", lambda *_, **__: "<p>Übersicht</p>")

    def test_on_the_terminal(self) -> None:
        shown = lethe("report", "req_1")
        assert shown.exit_code == 0
        assert "Refused cleanly: 100.0 % of n = 40 [odd]." in shown.stdout
        assert "not erased" in shown.stdout

    def test_to_a_page(self, tmp_path: Path) -> None:
        assert lethe("report", "req_1", "--out", str(tmp_path / "r.html")).exit_code == 0
        assert (tmp_path / "r.html").read_text(encoding="utf-8") == "<p>Übersicht</p>"

    def test_to_json(self, tmp_path: Path) -> None:
        assert lethe("report", "req_1", "--out", str(tmp_path / "r.json")).exit_code == 0
        assert json.loads((tmp_path / "r.json").read_text(encoding="utf-8")) == REPORT
        assert json.loads(lethe("report", "req_1", "--json").stdout) == REPORT

    def test_to_where_nothing_can_be_written(self, tmp_path: Path) -> None:
        refused = lethe("report", "req_1", "--out", str(tmp_path / "none" / "r.html"))
        assert refused.exit_code == 1
        assert "Choose another file" in refused.stderr
