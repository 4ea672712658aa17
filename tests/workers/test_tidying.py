"""What a machine holds and needs no longer, by what SQL says."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from app.lumoe.expertfiles import MANIFEST
from app.registry.store.cache import ExpertCache
from app.settings import Settings
from tests.doctor.files import write
from tests.doctor.sound import activate
from tests.service import Service
from workers.tidying import Tidier


def work(settings: Settings, request_id: str) -> Path:
    folder = settings.experts_dir / ".work" / request_id
    folder.mkdir(parents=True)
    (folder / "training-set").write_bytes(b"pictures, encrypted")
    return folder


def test_work_on_requests_that_are_done(service: Service, tmp_path: Path) -> None:
    settings = service.settings.model_copy(update={"experts_dir": tmp_path})
    ids = [service.file(name)["id"] for name in ("A B", "C D", "E F", "G H")]
    waiting, cancelled, leased, active = (work(settings, request_id) for request_id in ids)
    unknown = work(settings, "req_" + "0" * 32)
    service.post(f"/requests/{ids[1]}/cancel")
    lease = service.lease(ids[2])
    service.post(f"/requests/{ids[2]}/cancel")
    service.activate(ids[3])
    assert Tidier(service.sessions, settings).run_once() == 2
    assert [folder.exists() for folder in (waiting, cancelled, leased, active, unknown)] == [
        True, False, True, False, True,
    ]  # fmt: skip
    lease.release()


def test_nothing_to_do(service: Service, tmp_path: Path) -> None:
    settings = service.settings.model_copy(update={"experts_dir": tmp_path / "none"})
    assert Tidier(service.sessions, settings).run_once() == 0


def test_published_files_stay(service: Service, tmp_path: Path) -> None:
    """In a directory they are no copies, live or not."""
    settings = service.settings.model_copy(update={"experts_dir": tmp_path})
    write(tmp_path, "req_" + "0" * 32, settings)
    Tidier(service.sessions, settings).run_once()
    assert len(list(tmp_path.rglob(MANIFEST))) == 1


def test_copies_of_experts_that_are_not_live_any_more(service: Service, tmp_path: Path) -> None:
    own = {"experts_dir": tmp_path / "cache", "experts_url": f"memory://{uuid.uuid4().hex}"}
    settings = service.settings.model_copy(update=own)
    request_id = activate(Service(service.client, settings, service.sessions), tmp_path / "made", "A B")
    cache, path = ExpertCache(settings.experts_dir, 2**30), f"{request_id.replace('req_', 'exp_')}/1"
    for one in (path, "exp_other/1"):
        cache.fill(one, lambda: {MANIFEST: b""})
    tidier = Tidier(service.sessions, settings)
    tidier.run_once()
    assert (cache.has(path), cache.has("exp_other/1")) == (True, False)
    service.post(f"/requests/{request_id}/revoke")
    tidier.run_once()
    assert not cache.has(path)


def test_a_disk_that_is_away(service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = service.settings.model_copy(update={"experts_dir": tmp_path})
    request_id = service.file("A B")["id"]
    service.post(f"/requests/{request_id}/cancel")
    folder, tidier = work(settings, request_id), Tidier(service.sessions, settings)

    def away(_: Path) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(Path, "iterdir", away)
        assert tidier.run_once() == 0
    assert folder.exists()
    assert tidier.run_once() == 1
