"""What a replica loads lies in the experts directory, whatever the database says."""

from pathlib import Path

import pytest

from app.chat.loader import ExpertLoader
from app.lumoe.errors import ExpertCorruptError
from app.registry.service import ExpertRow
from app.settings import Settings, load_settings
from tests.doctor.files import FINGERPRINT, write

REQUEST = "req_" + "a" * 32


def row(settings: Settings, root: Path, path: str | None = None) -> ExpertRow:
    """Write whole files of an expert below `root`; `path`: where the database says that they lie."""
    ref = write(root, REQUEST, settings)
    return ExpertRow(ref.expert_id, ref.version, path or ref.path, ref.manifest_sha256, REQUEST, FINGERPRINT)


def test_whole_files_in_the_directory(tmp_path: Path) -> None:
    settings = load_settings(_env_file=None, experts_dir=tmp_path / "experts")
    (loaded,) = ExpertLoader(settings, settings.evidence_cipher()).load([row(settings, settings.experts_dir)])
    assert loaded.request_id == REQUEST


@pytest.mark.parametrize("form", ["relative", "absolute", "link"])
def test_whole_files_elsewhere(tmp_path: Path, form: str) -> None:
    settings = load_settings(_env_file=None, experts_dir=tmp_path / "experts")
    settings.experts_dir.mkdir()
    outside = tmp_path / "outside"
    found = row(settings, outside)
    path = {
        "relative": f"../outside/{found.path}",
        "absolute": str(outside / found.path),
        "link": "linked",
    }[form]
    if form == "link":
        (settings.experts_dir / "linked").symlink_to(outside / found.path)
    with pytest.raises(ExpertCorruptError, match="leaves the experts directory"):
        ExpertLoader(settings, settings.evidence_cipher()).load([row(settings, outside / "again", path)])


def test_memory_is_given_back_after_much_was_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_settings(_env_file=None, experts_dir=tmp_path / "experts")
    given: list[bool] = []
    monkeypatch.setattr("app.chat.loader.give_back", lambda: given.append(True))
    found = row(settings, settings.experts_dir)
    for much, expected in ((2**40, []), (1, [True])):
        monkeypatch.setattr("app.chat.loader._MUCH_BYTES", much)
        loader = ExpertLoader(settings, settings.evidence_cipher())
        (loaded,) = loader.load([found])
        assert loaded.adapter
        loader.drop_adapters()
        loader.drop_adapters()
        assert (loaded.adapter, given) == ({}, expected)
