"""docs/certificates.md: its script runs, checks a real certificate, and refuses a changed one."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import app
from tests.removal.active import activate_verified
from tests.service import Service

PAGE = Path(app.__file__).parents[1] / "docs" / "certificates.md"


def script() -> str:
    (found,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return str(found)


@pytest.fixture
def folder(service: Service, tmp_path: Path) -> Path:
    request_id = activate_verified(service)
    certificate = service.get(f"/requests/{request_id}/certificate").text
    (tmp_path / "certificate.jws").write_text(certificate)
    (tmp_path / "jwks.json").write_text(service.client.get("/.well-known/jwks.json").text)
    return tmp_path


def run(folder: Path) -> subprocess.CompletedProcess[str]:
    """Without our code on the path."""
    return subprocess.run(
        [sys.executable, "-I", "-c", script()],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_ten_lines_without_our_code() -> None:
    lines = [line for line in script().splitlines() if line.strip()]
    assert len(lines) <= 10
    assert not re.search(r"\b(app|lethe|workers)\b(?!-certificate)", script())


def test_checks_a_certificate(folder: Path) -> None:
    done = run(folder)
    assert done.returncode == 0, done.stderr
    assert '"claimed": "Suppressed at this endpoint' in done.stdout


def test_refuses_a_changed_one(folder: Path) -> None:
    head, payload, signature = (folder / "certificate.jws").read_text().split(".")
    other = "A" if payload[40] != "A" else "B"
    (folder / "certificate.jws").write_text(f"{head}.{payload[:40]}{other}{payload[41:]}.{signature}")
    done = run(folder)
    assert done.returncode != 0
    assert "BadSignatureError" in done.stderr
