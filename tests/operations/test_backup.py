"""What the runbook says about backups: dump, copy, restore elsewhere, and nothing is missing."""

from __future__ import annotations

import shutil
import subprocess
import uuid
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from sqlalchemy import create_engine

from app.audit.checkpoints import CheckpointService
from app.db.session import session_factory
from app.doctor.findings import Check
from app.doctor.registry import check_files
from app.doctor.service import look
from app.embedded.postgres import binaries
from app.registry.store import open_store
from app.removal.datakeys import DataKeys
from app.settings import Settings, load_settings
from tests.doctor.sound import activate
from tests.service import Service

NOT_STARTED = {Check.NO_REPLICA, Check.CHECKPOINT, Check.BROKER}
"""What there is only once replicas and an API process run again."""


def run(program: str, *arguments: str) -> None:
    done = subprocess.run([binaries() / program, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def libpq(url: str) -> str:
    return url.replace("+psycopg", "")


class Directory:
    """Experts in a directory, copied with `cp`."""

    def __init__(self, tmp_path: Path, name: str) -> None:
        self.path = tmp_path / name
        self.settings: dict[str, object] = {"experts_dir": self.path}

    def written(self, made: Path) -> None:
        shutil.copytree(made, self.path)

    def back_up(self, copy: Path) -> None:
        shutil.copytree(self.path, copy)

    def restore(self, copy: Path) -> None:
        shutil.copytree(copy, self.path)


class Bucket:
    """Experts at a URL, copied object by object, by a program that knows nothing of them."""

    def __init__(self, tmp_path: Path, name: str) -> None:
        self.path = f"/{uuid.uuid4().hex}/{name}"
        self.settings: dict[str, object] = {
            "experts_url": f"memory:/{self.path}",
            "experts_dir": tmp_path / f"{name}-cache",
        }
        self._fs = MemoryFileSystem()

    def written(self, made: Path) -> None:
        store = open_store(load_settings(_env_file=None).model_copy(update=self.settings))
        for manifest in made.glob("exp_*/*/manifest.json"):
            store.publish(manifest.parent, str(manifest.parent.relative_to(made)))

    def back_up(self, copy: Path) -> None:
        self._fs.get(self.path, str(copy), recursive=True)

    def restore(self, copy: Path) -> None:
        self._fs.put(str(copy), self.path, recursive=True)


@pytest.mark.parametrize(("kind", "back_in"), [(Bucket, Directory), (Directory, Bucket)])
def test_restored_elsewhere(
    service: Service,
    empty_database: str,
    tmp_path: Path,
    kind: type[Directory | Bucket],
    back_in: type[Directory | Bucket],
) -> None:
    made, copy = tmp_path / "made", tmp_path / "copy"
    experts, restored = kind(tmp_path, "experts"), back_in(tmp_path, "restored")
    settings = service.settings.model_copy(update=experts.settings)
    house = Service(service.client, settings, service.sessions)
    active = activate(house, made, "Elodie Brandt")
    experts.written(made)
    waiting = house.file("Mira Tovel")["id"]
    with house.sessions.begin() as session:
        kept = CheckpointService(session, settings).issue().jws

    dump = tmp_path / "lethe.dump"
    run("pg_dump", "--format=custom", f"--file={dump}", libpq(settings.database_url))
    experts.back_up(copy)
    house.post(f"/requests/{waiting}/cancel")  # after the backup

    run("pg_restore", "--no-owner", "--exit-on-error", f"--dbname={libpq(empty_database)}", str(dump))
    restored.restore(copy)
    own = {"database_url": empty_database, "experts_url": None, **restored.settings}
    again: Settings = settings.model_copy(update=own)
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
