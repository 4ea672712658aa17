"""Which model is this? A hash over configuration and weights, so that experts never meet another model."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
from transformers import PreTrainedModel

_FULL_HASH_BYTES = 512 * 1024 * 1024
_SAMPLE = 64


def fingerprint_of(where: str, model: PreTrainedModel) -> str:
    """Return a SHA-256 (hex) over the configuration and the weights.

    Up to 512 MB of weight files are hashed whole. Beyond that, hashing would take minutes at every start:
    then every tensor's name, shape and 64 evenly spaced values count, which tells any two checkpoints of
    one family apart.
    """
    digest = hashlib.sha256()
    config = {
        k: v
        for k, v in model.config.to_dict().items()
        if k not in ("_name_or_path", "transformers_version", "dtype")
    }
    digest.update(json.dumps(config, sort_keys=True, default=str).encode())
    files = sorted(Path(where).glob("*.safetensors")) if Path(where).is_dir() else []
    if files and sum(file.stat().st_size for file in files) <= _FULL_HASH_BYTES:
        for file in files:
            digest.update(file.name.encode())
            digest.update(file.read_bytes())
        return digest.hexdigest()
    for name, tensor in sorted(model.state_dict().items()):
        flat = tensor.flatten()
        index = torch.linspace(0, max(flat.numel() - 1, 0), min(_SAMPLE, flat.numel())).long()
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(flat[index.to(flat.device)].float().cpu().numpy().tobytes())
    return digest.hexdigest()
