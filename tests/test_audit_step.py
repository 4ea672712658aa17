"""The audit step of CI: what fails it, what it says when it cannot look."""

import json
import runpy
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[1] / ".ci" / "audit.py"


@pytest.fixture
def audit() -> SimpleNamespace:
    return SimpleNamespace(**runpy.run_path(str(SCRIPT)))


def dependency(name: str, *ids: str) -> dict[str, Any]:
    return {"name": name, "version": "1", "vulns": [{"id": i, "fix_versions": []} for i in ids]}


def answering(audit: SimpleNamespace, output: str, status: int = 0) -> None:
    """Let the tools say this."""
    done = subprocess.CompletedProcess([], status, output, "error: connection refused")
    audit.main.__globals__["_run"] = lambda *_: done


class TestDependencies:
    def test_finding(self, audit: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
        answering(audit, json.dumps({"dependencies": [dependency("a"), dependency("b", "CVE-1")]}), 1)
        assert not audit.check_dependencies(online=False)
        assert "b 1: CVE-1" in capsys.readouterr().out

    def test_none(self, audit: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
        answering(
            audit, json.dumps({"dependencies": [dependency("a"), {"name": "b", "skip_reason": "local"}]})
        )
        assert audit.check_dependencies(online=True)
        assert "Checked 1 pinned packages: 0 with known vulnerabilities; 1 unknown" in capsys.readouterr().out

    @pytest.mark.parametrize(
        "output", ["", json.dumps({"dependencies": [{"name": "a", "skip_reason": "not found"}]})]
    )
    def test_offline(self, audit: SimpleNamespace, capsys: pytest.CaptureFixture[str], output: str) -> None:
        answering(audit, output, 1)
        assert audit.check_dependencies(online=False)
        assert "NOT CHECKED" in capsys.readouterr().out
        assert not audit.check_dependencies(online=True)


class TestSources:
    def finding(self, tmp_path: Path, line: str, rule: str) -> str:
        (tmp_path / "x.py").write_text(line + "\n")
        found = {"filename": "x.py", "line_number": 1, "test_id": rule, "issue_text": "careful"}
        return json.dumps({"results": [found]})

    @pytest.mark.parametrize(
        ("line", "rule", "explained"),
        [
            ("run(x)", "B603", False),
            ("run(x)  # noqa: S603  ours", "B603", True),
            ("run(x)  # noqa: E501, S603  ours", "B603", True),
            ("run(x)  # noqa: S607  ours", "B603", False),
            ("run(x)  # noqa", "B603", False),
            ("run(x)  # nosec", "B603", False),
            ("import subprocess", "B404", True),
            ("import pickle", "B404", False),
        ],
    )
    def test_reasons(
        self, audit: SimpleNamespace, tmp_path: Path, line: str, rule: str, explained: bool
    ) -> None:
        found = audit.unexplained(self.finding(tmp_path, line, rule), tmp_path)
        assert found == ([] if explained else [f"x.py:1: {rule} careful"])

    def test_nothing_is_switched_off(self, audit: SimpleNamespace) -> None:
        """No line hides from bandit, and every accepted one is still there."""
        sources = [path for room in audit.SOURCES for path in (SCRIPT.parents[1] / room).rglob("*.py")]
        lines = [line for path in sources for line in path.read_text(encoding="utf-8").splitlines()]
        assert not [line for line in lines if "# nosec" in line]
        stripped = {line.strip() for line in lines}
        assert all(line in stripped for _, line in audit.ACCEPTED)

    def test_bandit_that_does_not_run(self, audit: SimpleNamespace) -> None:
        answering(audit, "", 2)
        assert not audit.check_sources()
