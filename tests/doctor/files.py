"""Expert files as a worker writes them, with an adapter made up for the purpose."""

import json
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import torch
from safetensors.torch import save_file

from app.kit.ids import expert_id_of
from app.lumoe.expert import Cipher, ExpertRef, write_expert
from app.lumoe.gate.record import GateRecord
from app.settings import Settings

FINGERPRINT = "f" * 64


def write(
    root: Path, request_id: str, settings: Settings, version: int = 1, key: Cipher | None = None
) -> ExpertRef:
    """Write an expert of this request below `root`, under the evidence key itself unless there is a `key`."""
    with tempfile.TemporaryDirectory() as folder:
        layer = "base_model.model.layer"
        save_file(
            {f"{layer}.lora_A.weight": torch.ones(2, 4), f"{layer}.lora_B.weight": torch.ones(4, 2)},
            Path(folder) / "adapter_model.safetensors",
        )
        (Path(folder) / "adapter_config.json").write_text(json.dumps({"r": 2, "lora_alpha": 4}))
        return write_expert(
            root,
            expert_id=expert_id_of(request_id),
            version=version,
            request_id=request_id,
            adapter_dir=Path(folder),
            gate=GateRecord(("Elodie Brandt",), "Personage", torch.zeros(0, 0)),
            model_fingerprint=FINGERPRINT,
            key=key or settings.evidence_cipher(),
            created_at=datetime(2026, 1, 1, tzinfo=UTC),
        )
