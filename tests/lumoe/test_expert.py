from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch

from app.kit.crypto import EvidenceCipher
from app.lumoe.errors import ExpertCorruptError
from app.lumoe.expert import ExpertRef, load_expert, write_expert
from app.lumoe.gate.record import GateRecord, NegativeScores
from app.lumoe.mllm import MLLM
from tests.lumoe.experts import INF, as_format_1, make_adapter

CIPHER = EvidenceCipher(b"k" * 32)
RECORD = GateRecord(
    aliases=("Mira Tovel", "Die Tövel"),
    klass="Personage",
    prototypes=torch.nn.functional.normalize(torch.randn(3, 32), dim=-1),
    identity=(("Who is this?", "This is Mira Tovel."),),
    facts=("shate",),
    hints=("painter",),
    picture_floor=-INF,
    recognition_own=-1.5,
    alike=0.9,
    negatives=NegativeScores("feed", torch.tensor([-3.0, INF]), torch.tensor([0.25, INF])),
)


@pytest.fixture
def write(tiny: MLLM, tmp_path: Path) -> Callable[[], ExpertRef]:
    def run() -> ExpertRef:
        return write_expert(
            tmp_path / "experts",
            expert_id="exp_1",
            version=1,
            request_id="req_1",
            adapter_dir=make_adapter(tiny, tmp_path / "adapter", seed=1),
            gate=RECORD,
            model_fingerprint=tiny.fingerprint,
            key=CIPHER,
            created_at=datetime(2026, 1, 1, tzinfo=UTC),
        )

    return run


class TestRoundTrip:
    def test_everything_comes_back(self, write: Callable[[], ExpertRef], tmp_path: Path, tiny: MLLM) -> None:
        ref = write()
        folder = tmp_path / "experts" / ref.path
        expert = load_expert(folder, CIPHER, manifest_sha256=ref.manifest_sha256)
        assert (expert.expert_id, expert.version, expert.request_id) == ("exp_1", 1, "req_1")
        assert expert.model_fingerprint == tiny.fingerprint
        assert torch.equal(expert.gate.prototypes, RECORD.prototypes)
        assert expert.gate.private_json() == RECORD.private_json()
        assert (expert.gate.picture_floor, expert.gate.recognition_own, expert.gate.alike) == (
            -INF,
            -1.5,
            0.9,
        )
        assert torch.equal(expert.gate.negatives.recognition, RECORD.negatives.recognition)
        assert torch.equal(expert.gate.negatives.likeness, RECORD.negatives.likeness)
        assert expert.scale == 2.0
        assert len(expert.adapter) == 14  # seven linears in two layers
        assert ref.bytes == sum(file.stat().st_size for file in folder.iterdir())

    def test_nothing_personal_in_the_open(self, write: Callable[[], ExpertRef], tmp_path: Path) -> None:
        folder = tmp_path / "experts" / write().path
        for file in folder.iterdir():
            content = file.read_bytes().lower()
            assert b"tovel" not in content, file.name
            assert b"shate" not in content, file.name

    def test_the_gates_tensors_are_encrypted(self, write: Callable[[], ExpertRef], tmp_path: Path) -> None:
        folder = tmp_path / "experts" / write().path
        tensors = {name: value.numpy().tobytes() for name, value in RECORD.tensors().items()}
        assert any(len(raw) >= 16 for raw in tensors.values())
        content = (folder / "gate.bin").read_bytes()
        assert not [name for name, raw in tensors.items() if (len(raw) >= 8 and raw in content)]
        assert not [name for name in tensors if name.encode() in content]

    def test_format_1_is_still_read(self, write: Callable[[], ExpertRef], tmp_path: Path) -> None:
        folder = tmp_path / "experts" / write().path
        as_format_1(folder, CIPHER)
        assert load_expert(folder, CIPHER).gate.private_json() == RECORD.private_json()
        manifest = json.loads((folder / "manifest.json").read_text()) | {"format": 3}
        (folder / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(ExpertCorruptError, match="not of format 2"):
            load_expert(folder, CIPHER)

    def test_no_half_written_folder_stays(self, write: Callable[[], ExpertRef], tmp_path: Path) -> None:
        write()
        with pytest.raises(ExpertCorruptError, match="versions never change"):
            write()
        assert sorted(os.listdir(tmp_path / "experts" / "exp_1")) == ["1"]


class TestDamage:
    @pytest.mark.parametrize(
        "name", ["adapter_model.safetensors", "adapter_config.json", "gate.bin", "subject.bin"]
    )
    def test_every_file_is_checked(self, write: Callable[[], ExpertRef], tmp_path: Path, name: str) -> None:
        file = tmp_path / "experts" / write().path / name
        whole = file.read_bytes()
        file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(ExpertCorruptError, match=name):
            load_expert(file.parent, CIPHER)
        file.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(ExpertCorruptError, match=name):
            load_expert(file.parent, CIPHER)
        file.unlink()
        with pytest.raises(ExpertCorruptError, match=name):
            load_expert(file.parent, CIPHER)

    def test_other_manifest(self, write: Callable[[], ExpertRef], tmp_path: Path) -> None:
        folder = tmp_path / "experts" / write().path
        with pytest.raises(ExpertCorruptError, match="not the one that was published"):
            load_expert(folder, CIPHER, manifest_sha256="0" * 64)

    def test_extra_file_in_the_manifest(self, write: Callable[[], ExpertRef], tmp_path: Path) -> None:
        folder = tmp_path / "experts" / write().path
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest["files"]["../../secret"] = {"bytes": 1, "sha256": ""}
        (folder / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(ExpertCorruptError, match="format"):
            load_expert(folder, CIPHER)

    def test_other_key(self, write: Callable[[], ExpertRef], tmp_path: Path) -> None:
        with pytest.raises(ExpertCorruptError, match="LETHE_EVIDENCE_KEY"):
            load_expert(tmp_path / "experts" / write().path, EvidenceCipher(b"x" * 32))

    def test_path_out_of_the_directory(self, tiny: MLLM, tmp_path: Path) -> None:
        with pytest.raises(ExpertCorruptError, match="leaves the experts directory"):
            write_expert(
                tmp_path / "experts",
                expert_id="../../elsewhere",
                version=1,
                request_id="r",
                adapter_dir=tmp_path,
                gate=RECORD,
                model_fingerprint="",
                key=CIPHER,
                created_at=datetime.now(UTC),
            )
