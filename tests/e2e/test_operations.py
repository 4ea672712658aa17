"""The operator's and the auditor's commands on the whole stack, after it has had some life."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from app.embedded.supervisor import Stack


def lethe(stack: Stack, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("LETHE_")},
        "LETHE_HOME": str(stack.home.root),
    }
    return subprocess.run(
        [sys.executable, "-m", "app.cli", *arguments],
        env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_doctor_finds_nothing(stack: Stack) -> None:
    done = lethe(stack, "doctor", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["findings"] == []


def test_the_log_is_checked_without_the_stack(stack: Stack, tmp_path: Path) -> None:
    log, keys = tmp_path / "audit.jsonl", tmp_path / "jwks.json"
    exported = lethe(stack, "audit", "export", "--output", str(log))
    assert exported.returncode == 0, exported.stderr
    keys.write_text(lethe(stack, "audit", "keys").stdout)
    done = lethe(stack, "audit", "verify", str(log), "--key", str(keys), "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["events"] > 0
    assert report["checkpoints"] > 0
