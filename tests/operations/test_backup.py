"""What the runbook says about backups: dump, copy, restore elsewhere, and nothing is missing."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from sqlalchemy import create_engine

from app.audit.checkpoints import CheckpointService
from app.db.session import session_factory
from app.doctor.findings import Check
from app.doctor.registry import check_files
from app.doctor.service import look
from app.embedded.postgres import binaries
from app.removal.datakeys import DataKeys
from app.settings import Settings
from tests.doctor.sound import activate
from tests.service import Service

NOT_STARTED = {Check.NO_REPLICA, Check.CHECKPOINT, Check.BROKER}
"""What there is only once replicas and an API process run again."""


def run(program: str, *arguments: str) -> None:
    done = subprocess.run([binaries() / program, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def libpq(url: str) -> str:
    return url.replace("+psycopg", "")


def test_restored_elsewhere(service: Service, empty_database: str, tmp_path: Path) -> None:
    experts, copy, restored = (tmp_path / name for name in ("experts", "copy", "restored"))
    experts.mkdir()
    settings = service.settings.model_copy(update={"experts_dir": experts})
    house = Service(service.client, settings, service.sessions)
    active = activate(house, experts, "Elodie Brandt")
    waiting = house.file("Mira Tovel")["id"]
    with house.sessions.begin() as session:
        kept = CheckpointService(session, settings).issue().jws

    dump = tmp_path / "lethe.dump"
    run("pg_dump", "--format=custom", f"--file={dump}", libpq(settings.database_url))
    shutil.copytree(experts, copy)
    house.post(f"/requests/{waiting}/cancel")  # after the backup

    run("pg_restore", "--no-owner", "--exit-on-error", f"--dbname={libpq(empty_database)}", str(dump))
    shutil.copytree(copy, restored)
    again: Settings = settings.model_copy(update={"database_url": empty_database, "experts_dir": restored})
    engine = create_engine(empty_database)
    try:
        keys = DataKeys(session_factory(engine), again)
        with session_factory(engine)() as session:
            looked = look(session, again)
            findings = [*looked.findings, *check_files(again, looked.live, keys)]
            assert [f for f in findings if f.check not in NOT_STARTED] == []
            assert [expert.request_id for *_, expert in looked.live if expert] == [active]
            assert CheckpointService(session, again).verify([kept]).intact
        with house.sessions.begin() as session:
            later = CheckpointService(session, settings).issue().jws
        with session_factory(engine)() as session:
            older = CheckpointService(session, again).verify([later])
        assert older.breach == "truncated", "a checkpoint from after the backup shows that it is older"
    finally:
        engine.dispose()
