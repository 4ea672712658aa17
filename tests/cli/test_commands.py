"""The commands against a real server on loopback: what is printed, what scripts read, and the exit status."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from typer.testing import CliRunner, Result

from app.cli import app
from app.embedded.process import free_port
from tests.service import Place, Service, png


@pytest.fixture(scope="module")
def url(place: Place) -> Iterator[str]:
    """The service with manual review, on a port of its own."""
    served = place.client("manual").app
    port = free_port()
    config = uvicorn.Config(served, host="127.0.0.1", port=port, lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        time.sleep(0.01)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(timeout=10)


class Shell:
    """Runs commands with a key."""

    def __init__(self, url: str, service: Service) -> None:
        self.url = url
        self.service = service
        self.key = service.key("acme", "owner", "operator", "auditor")

    def __call__(self, *arguments: str, key: str | None = None, input: str | None = None) -> Result:
        environment = {
            "LETHE_URL": self.url,
            "LETHE_API_KEY": key or self.key,
            "COLUMNS": "250",
            "TERM": "dumb",
        }
        return CliRunner().invoke(app, arguments, env=environment, input=input)

    def json(self, *arguments: str) -> object:
        done = self(*arguments, "--json")
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)


@pytest.fixture
def lethe(url: str, manual: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.setenv("LETHE_HOME", str(tmp_path / "home"))
    return Shell(url, manual)


@pytest.fixture
def picture(tmp_path: Path) -> str:
    path = tmp_path / "a.png"
    path.write_bytes(png())
    return str(path)


def filed(lethe: Shell, *arguments: str) -> str:
    found = lethe.json("submit", "--name", "Ann Lee", *arguments)
    assert isinstance(found, dict)
    return str(found["id"])


class TestFiling:
    def test_submit_and_status(self, lethe: Shell, picture: str) -> None:
        request_id = filed(lethe, "--picture", picture, "--alias", "A. Lee")
        shown = lethe("status", request_id)
        assert shown.exit_code == 0
        assert "in_review" in shown.stdout

    def test_follow_to_where_a_person_is_needed(self, lethe: Shell) -> None:
        followed = lethe("submit", "--name", "Ann Lee", "--follow", "--json")
        assert followed.exit_code == 10
        assert json.loads(followed.stdout)["state"] == "in_review"

    def test_watch_one_that_was_rejected(self, lethe: Shell) -> None:
        request_id = filed(lethe)
        assert lethe("reject", request_id, "--code", "no_match", "--reason", "not hers").exit_code == 0
        watched = lethe("status", request_id, "--watch")
        assert watched.exit_code == 1
        assert "not hers" in watched.stdout

    def test_fields_that_are_refused_are_named(self, lethe: Shell) -> None:
        refused = lethe("submit", "--name", "Ann Lee", "--ground", "spite")
        assert refused.exit_code == 7
        assert "legal_ground" in refused.stderr

    def test_list(self, lethe: Shell) -> None:
        one = filed(lethe)
        found = lethe.json("requests", "--state", "in_review")
        assert [r["id"] for r in found] == [one]  # type: ignore[attr-defined]  # a list
        assert one in lethe("requests").stdout
        assert "No requests" in lethe("requests", "--state", "active").stdout

    def test_list_over_several_pages(self, lethe: Shell) -> None:
        for n in range(3):
            lethe.service.file(f"Subject {n}", key=lethe.key)
        assert len(lethe.json("requests", "--limit", "2")) == 2  # type: ignore[arg-type]  # a list


class TestPolicy:
    @pytest.fixture
    def root(self, lethe: Shell) -> Shell:
        lethe.key = lethe.service.root
        return lethe

    def test_shows_what_is_set_and_what_are_settings(self, root: Shell) -> None:
        done = root("policy", "set", "max_leak=0.01", "recipe=strong", "--reason", "as agreed")
        assert done.exit_code == 0, done.output
        assert "as agreed" in done.stdout
        found = root.json("policy", "show")
        assert isinstance(found, dict)
        assert (found["version"], found["overridden"]) == (1, ["recipe", "max_leak"])

    def test_the_other_rules_stay(self, root: Shell) -> None:
        assert root("policy", "set", "max_leak=0.01", "--reason", "first").exit_code == 0
        assert root("policy", "set", "max_attempts=5", "--reason", "second").exit_code == 0
        found = root.json("policy", "set", "--default", "max_leak", "--reason", "third")
        assert isinstance(found, dict)
        assert (found["version"], found["overridden"], found["max_leak"]) == (3, ["max_attempts"], 0)
        history = root("policy", "history").stdout
        assert "max_leak=0.01, max_attempts=5" not in history.splitlines()[3]
        assert all(reason in history for reason in ("first", "second", "third"))

    @pytest.mark.parametrize(
        ("arguments", "status", "told"),
        [
            (["max_leak"], 2, "max_leak=0.01"),
            ([], 2, "nothing to change"),
            (["max_leak=2"], 7, "rules.max_leak"),
            (["nothing=1"], 7, "rules.nothing"),
        ],
        ids=str,
    )
    def test_what_cannot_be_set(self, root: Shell, arguments: list[str], status: int, told: str) -> None:
        refused = root("policy", "set", *arguments, "--reason", "why not")
        assert refused.exit_code == status
        assert told in refused.stderr

    def test_by_one_tenant_alone(self, lethe: Shell) -> None:
        refused = lethe("policy", "set", "max_leak=0.5", "--reason", "why not")
        assert refused.exit_code == 4
        assert "`root`" in refused.stderr


class TestReview:
    def test_approve_then_cancel(self, lethe: Shell) -> None:
        request_id = filed(lethe)
        assert "queued" in lethe("approve", request_id).stdout
        assert "cancelled" in lethe("cancel", request_id, "--reason", "no more").stdout

    def test_withdraw(self, lethe: Shell) -> None:
        assert "cancelled" in lethe("withdraw", filed(lethe)).stdout

    @pytest.mark.parametrize("command", ["retry", "revoke"])
    def test_not_in_this_state(self, lethe: Shell, command: str) -> None:
        refused = lethe(command, filed(lethe))
        assert refused.exit_code == 6
        assert "It is possible in" in refused.stderr

    def test_unknown_reason_code(self, lethe: Shell) -> None:
        assert lethe("reject", "req_1", "--code", "dislike").exit_code == 2


class TestRegistryAndTrail:
    def test_experts(self, lethe: Shell) -> None:
        lethe("approve", filed(lethe))
        shown = lethe("experts")
        assert shown.exit_code == 1, "there is no replica here"
        assert "1 refused without an expert" in shown.stdout
        listed = lethe.json("generations")
        assert listed["items"][0]["cause"] == "protect"  # type: ignore[index]  # a page

    def test_trail(self, lethe: Shell) -> None:
        request_id = filed(lethe)
        assert "request.receive" in lethe("audit", "events", "--about", request_id).stdout
        checked = lethe("audit", "check")
        assert (checked.exit_code, "Intact" in checked.stdout) == (0, True)
        exported = lethe("audit", "export")
        assert request_id in exported.stdout

    def test_certificate_of_what_is_not_active(self, lethe: Shell) -> None:
        assert lethe("certificate", "fetch", filed(lethe)).exit_code == 6


class TestExitStatus:
    def test_unknown_id(self, lethe: Shell) -> None:
        assert lethe("status", "req_" + "0" * 32).exit_code == 5

    def test_key_that_is_not_valid(self, lethe: Shell) -> None:
        assert lethe("requests", key="lethe_" + "x" * 43).exit_code == 4

    def test_key_without_the_scope(self, lethe: Shell) -> None:
        refused = lethe("experts", key=lethe.service.owner)
        assert refused.exit_code == 4
        assert "operator" in refused.stderr

    def test_help_lists_them(self, lethe: Shell) -> None:
        assert "10 the request waits for a person" in " ".join(lethe("--help").stdout.split())


class TestWebhooks:
    def test_from_creation_to_deletion(self, lethe: Shell) -> None:
        made = lethe("webhooks", "create", "https://hooks.example.org/lethe", "--json")
        webhook_id = json.loads(made.stdout)["id"]
        assert lethe("webhooks", "rotate", webhook_id).stdout.startswith("whsec_")
        filed(lethe)
        listed = lethe.json("webhooks", "list")
        assert [w["waiting"] for w in listed["items"]] == [2]  # type: ignore[index]  # a page
        assert "2 message(s) wait" in lethe("webhooks", "enable", webhook_id).stdout
        assert "Nothing has been sent yet" in lethe("webhooks", "log", webhook_id).stdout
        assert lethe("webhooks", "delete", webhook_id).exit_code == 0
        assert lethe("webhooks", "delete", webhook_id).exit_code == 5

    def test_address_that_is_refused(self, lethe: Shell) -> None:
        refused = lethe("webhooks", "create", "http://10.0.0.1/")
        assert refused.exit_code == 7
        assert "https" in refused.stderr
