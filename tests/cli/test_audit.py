"""`lethe audit`, `lethe certificate`, `lethe erase`: exported files checked without a server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

import app
from app.audit.signing import Signer
from app.settings import get_settings
from tests.removal.active import activate_verified
from tests.service import Service
from tests.test_cli import lethe


@pytest.fixture
def exported(shared: Service, tmp_path: Path) -> dict[str, Any]:
    """The three files that an auditor has."""
    kept = shared.get("/audit/checkpoint", shared.auditor).text
    shared.file()
    contents = {
        "log": shared.get("/audit/export", shared.root).text,
        "keys": shared.client.get("/.well-known/jwks.json").text,
        "kept": kept,
    }
    files = {name: tmp_path / name for name in contents}
    for name, path in files.items():
        path.write_text(contents[name])
    return {name: str(path) for name, path in files.items()}


def verify(files: dict[str, str], *more: str) -> Result:
    return lethe("audit", "verify", files["log"], "--key", files["keys"], *more)


class TestVerify:
    def test_intact(self, exported: dict[str, str]) -> None:
        done = lethe(
            "audit", "verify", exported["log"], "--key", exported["keys"], "--checkpoint", exported["kept"]
        )
        assert done.exit_code == 0, done.output
        assert done.stdout.startswith("Intact: ")

    def test_needs_neither_server_nor_settings(self, exported: dict[str, str], tmp_path: Path) -> None:
        """A process of its own, that could reach neither and loads neither torch nor SQLAlchemy's drivers."""
        code = (
            "import sys; from app.cli import main\n"
            "try: main()\n"
            "finally: assert not {'torch', 'psycopg', 'redis', 'sqlalchemy'} & set(sys.modules), 'too much'"
        )
        arguments = ["audit", "verify", exported["log"], "--key", exported["keys"], "--json"]
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(app.__file__).parents[1])},
            cwd=tmp_path, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["intact"] is True

    def test_tampered(self, exported: dict[str, str]) -> None:
        path = Path(exported["log"])
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(lines[:3] + lines[4:]))
        done = verify(exported)
        assert done.exit_code == 1
        assert "NOT intact at event 4 (missing): event 3 is missing" in done.stdout

    def test_cut_in_mid_line(self, exported: dict[str, str]) -> None:
        path = Path(exported["log"])
        path.write_text(path.read_text()[:2000])
        done = verify(exported)
        assert done.exit_code == 1
        assert "cut in mid-line" in done.stderr
        assert "lethe audit export" in done.stderr

    def test_not_keys(self, exported: dict[str, str]) -> None:
        done = lethe("audit", "verify", exported["log"], "--key", exported["log"])
        assert done.exit_code == 1
        assert "/.well-known/jwks.json" in done.stderr

    def test_not_a_checkpoint(self, exported: dict[str, str]) -> None:
        done = lethe(
            "audit", "verify", exported["log"], "--key", exported["keys"], "--checkpoint", exported["keys"]
        )
        assert done.exit_code == 1
        assert "GET /audit/checkpoint" in done.stderr


class TestCertificate:
    @pytest.fixture
    def certificate(self, service: Service, tmp_path: Path) -> dict[str, str]:
        request_id = activate_verified(service)
        (tmp_path / "c.jws").write_text(service.get(f"/requests/{request_id}/certificate").text)
        (tmp_path / "k.json").write_text(service.client.get("/.well-known/jwks.json").text)
        return {"id": request_id, "file": str(tmp_path / "c.jws"), "keys": str(tmp_path / "k.json")}

    def test_genuine(self, certificate: dict[str, str]) -> None:
        done = lethe("certificate", "verify", certificate["file"], "--key", certificate["keys"])
        assert done.exit_code == 0, done.output
        assert f"Genuine. Request {certificate['id']}" in done.stdout
        assert "Not claimed: Not erased from the weights" in done.stdout
        assert "forget_quality: 1 [0.912, 1.000], n = 40" in done.stdout
        assert "mia_auc: not measured: needs a retrained model" in done.stdout
        as_json = lethe("certificate", "verify", certificate["file"], "--key", certificate["keys"], "--json")
        assert json.loads(as_json.stdout)["sub"] == certificate["id"]

    def test_changed(self, certificate: dict[str, str]) -> None:
        path = Path(certificate["file"])
        path.write_text(path.read_text()[:-3] + "AAA")
        done = lethe("certificate", "verify", certificate["file"], "--key", certificate["keys"])
        assert done.exit_code == 1
        assert "NOT a genuine certificate" in done.stderr

    def test_a_checkpoint_is_none(self, certificate: dict[str, str], service: Service) -> None:
        token = service.get("/audit/checkpoint", service.auditor).json()["jws"]
        Path(certificate["file"]).write_text(token)
        done = lethe("certificate", "verify", certificate["file"], "--key", certificate["keys"])
        assert done.exit_code == 1
        assert "no lethe-certificate" in done.stderr


class TestKeys:
    def test_public_halves_alone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LETHE_SECRET_KEY", "x" * 40)
        keys = json.loads(lethe("audit", "keys").stdout)["keys"]
        assert keys == Signer(get_settings()).public_keys()


class TestErase:
    def test_database_and_files(
        self,
        service: Service,
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
    ) -> None:
        request_id = service.file()["id"]
        service.post(f"/requests/{request_id}/cancel")
        work = tmp_path / "experts" / ".work" / request_id
        work.mkdir(parents=True)
        monkeypatch.setenv("LETHE_DATABASE_URL", service.settings.database_url)
        monkeypatch.setenv("LETHE_EXPERTS_DIR", str(tmp_path / "experts"))
        done = lethe("erase", request_id)
        assert done.exit_code == 0, done.output
        assert not work.exists()
        assert service.get(f"/requests/{request_id}?subject=true").status_code == 409
        assert service.post("/audit/verify", service.auditor).json()["intact"]

    def test_not_yet(self, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
        request_id = service.file()["id"]
        monkeypatch.setenv("LETHE_DATABASE_URL", service.settings.database_url)
        done = lethe("erase", request_id)
        assert done.exit_code == 6
        assert "revoke" in done.stderr
