"""An expert on disk: written once, hashed file by file, renamed into place, never changed.

`experts/<expert_id>/<version>/` holds what PEFT writes (`adapter_model.safetensors`, `adapter_config.json`,
loadable by PEFT and vLLM as they are), `gate.bin` (the gate's tensors as safetensors) and `subject.bin`
(names and facts that gate and guard need), both encrypted, and `manifest.json` (size and SHA-256 of every
other file).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as serialise
from torch import Tensor

from app.kit.crypto import DecryptionError
from app.lumoe.errors import ExpertCorruptError
from app.lumoe.expertfiles import (
    ADAPTER,
    CONFIG,
    CONTENT,
    FORMAT,
    GATE,
    MANIFEST,
    PLAIN_GATE,
    SUBJECT,
    describe,
    expert_folder,
    flush,
    read_checked,
    read_manifest,
)
from app.lumoe.gate.record import GateRecord

_PEFT_PREFIX = "base_model.model."


class Decrypter(Protocol):
    """Opens what authenticated encryption with associated data sealed, as `EvidenceCipher` does."""

    def decrypt(self, ciphertext: bytes, aad: bytes) -> bytes:
        """Decrypt; raises `app.kit.crypto.DecryptionError` for a changed text or `aad`, or another key."""
        ...


class Cipher(Decrypter, Protocol):
    """Authenticated encryption with associated data, as `app.kit.crypto.EvidenceCipher` gives it."""

    def encrypt(self, plaintext: bytes, aad: bytes) -> bytes:
        """Encrypt; `aad` is authenticated with it."""
        ...


@dataclass(frozen=True, slots=True)
class ExpertRef:
    """Where an expert version lies: `path` is relative to the experts directory."""

    expert_id: str
    version: int
    path: str
    manifest_sha256: str
    bytes: int


@dataclass(frozen=True, slots=True)
class LoadedExpert:
    """An expert in memory: `adapter` maps a layer's name to (A (r, in), B (out, r)); `scale` is alpha / r."""

    expert_id: str
    version: int
    request_id: str
    model_fingerprint: str
    adapter: dict[str, tuple[Tensor, Tensor]]
    scale: float
    gate: GateRecord

    @property
    def key(self) -> str:
        """The immutable name of this version, unique over time."""
        return f"{self.expert_id}@{self.version}"


def write_expert(
    root: Path,
    *,
    expert_id: str,
    version: int,
    request_id: str,
    adapter_dir: Path,
    gate: GateRecord,
    model_fingerprint: str,
    key: Cipher,
    created_at: datetime,
    initial_sha256: str | None = None,
) -> ExpertRef:
    """Write a new version beside its final place, flush it, rename it; the result is never changed again.

    `initial_sha256` names the weights that training started from; without it, it started from nothing.
    Raises `ExpertCorruptError` if the version is there already: a repeated attempt takes the next number.
    """
    final = expert_folder(root, f"{expert_id}/{version}")
    final.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=".writing-", dir=final.parent))
    try:
        for name in (ADAPTER, CONFIG):
            shutil.copyfile(adapter_dir / name, work / name)
        tensors = serialise(gate.tensors())
        (work / GATE).write_bytes(key.encrypt(tensors, _aad(expert_id, version) + b":gate"))
        (work / SUBJECT).write_bytes(key.encrypt(gate.private_json(), _aad(expert_id, version)))
        manifest = {
            "format": FORMAT,
            "expert_id": expert_id,
            "version": version,
            "request_id": request_id,
            "model_fingerprint": model_fingerprint,
            "created_at": created_at.isoformat(),
            "initial_expert": initial_sha256,
            "files": {name: describe((work / name).read_bytes()) for name in CONTENT},
        }
        (work / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True))
        for file in work.iterdir():
            flush(file)
        if final.exists():
            raise ExpertCorruptError(
                f"expert {expert_id} version {version} exists already; versions never change"
            )
        os.rename(work, final)
        flush(final.parent)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    return describe_expert(root, f"{expert_id}/{version}")


def describe_expert(root: Path, path: str) -> ExpertRef:
    """Return the reference of the expert at `path` below `root`."""
    folder = expert_folder(root, path)
    raw, manifest = read_manifest(folder)
    size = len(raw) + sum(int(entry["bytes"]) for entry in manifest["files"].values())
    return ExpertRef(
        manifest["expert_id"], int(manifest["version"]), path, hashlib.sha256(raw).hexdigest(), size
    )


def load_expert(path: Path, cipher: Decrypter, *, manifest_sha256: str | None = None) -> LoadedExpert:
    """Read an expert, checking every file against the manifest and the manifest against its known hash.

    Raises `ExpertCorruptError` for anything missing, changed, foreign or unreadable. What `cipher` raises
    besides `DecryptionError`, such as a database that does not answer, is nothing about the files.
    """
    _, manifest = read_manifest(path, manifest_sha256)
    content = {name: read_checked(path, name, entry) for name, entry in manifest["files"].items()}
    try:
        config = json.loads(content[CONFIG])
        adapter = _pair_up(load_tensors(content[ADAPTER]))
        aad = _aad(manifest["expert_id"], int(manifest["version"]))
        plain = content.get(PLAIN_GATE)
        tensors = cipher.decrypt(content[GATE], aad + b":gate") if plain is None else plain
        gate = GateRecord.restore(load_tensors(tensors), cipher.decrypt(content[SUBJECT], aad))
        scale = float(config["lora_alpha"]) / int(config["r"])
    except (KeyError, TypeError, ValueError, SafetensorError) as error:
        raise ExpertCorruptError(f"{path}: {type(error).__name__}: {error}") from error
    except DecryptionError as error:
        raise ExpertCorruptError(f"{path}: it cannot be decrypted: {error}") from error
    return LoadedExpert(
        expert_id=manifest["expert_id"],
        version=int(manifest["version"]),
        request_id=manifest["request_id"],
        model_fingerprint=manifest["model_fingerprint"],
        adapter=adapter,
        scale=scale,
        gate=gate,
    )


def read_adapter(folder: Path) -> tuple[dict[str, tuple[Tensor, Tensor]], float]:
    """Read PEFT's two files: layer name -> (A, B), and the scale alpha / r."""
    config = json.loads((folder / CONFIG).read_text())
    return _pair_up(load_tensors((folder / ADAPTER).read_bytes())), float(config["lora_alpha"]) / int(
        config["r"]
    )


def _pair_up(tensors: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    pairs: dict[str, tuple[Tensor, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.endswith(".lora_A.weight"):
            layer = name.removesuffix(".lora_A.weight")
            pairs[layer.removeprefix(_PEFT_PREFIX)] = (tensor, tensors[f"{layer}.lora_B.weight"])
    if not pairs or 2 * len(pairs) != len(tensors):
        raise ExpertCorruptError("the adapter is not a plain LoRA: only lora_A/lora_B pairs are served")
    return pairs


def _aad(expert_id: str, version: int) -> bytes:
    return f"expert:{expert_id}:{version}".encode()
