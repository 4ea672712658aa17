"""Experts for tests of mechanics: random adapters, hand-made gate records."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model

from app.lumoe.expert import Decrypter, LoadedExpert, read_adapter
from app.lumoe.expertfiles import GATE, MANIFEST, PLAIN_GATE, describe
from app.lumoe.gate.record import GateRecord
from app.lumoe.mllm import LORA_TARGETS, MLLM

INF = float("inf")


def make_adapter(mllm: MLLM, folder: Path, seed: int, rank: int = 4) -> Path:
    """Write a random, strong adapter as PEFT writes it, and leave the model as it was."""
    torch.manual_seed(seed)
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=LORA_TARGETS)
    wrapped = get_peft_model(mllm.network, config, autocast_adapter_dtype=False)
    for name, parameter in wrapped.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    wrapped.save_pretrained(str(folder))
    wrapped.unload()
    mllm.network.requires_grad_(False)
    if hasattr(mllm.network, "peft_config"):
        del mllm.network.peft_config
    return folder


def make_record(*aliases: str, facts: tuple[str, ...] = ()) -> GateRecord:
    """Return a record that claims by name only."""
    return GateRecord(aliases, "Personage", torch.zeros(0, 0), facts=facts)


def make_expert(mllm: MLLM, folder: Path, expert_id: str, record: GateRecord, seed: int = 1) -> LoadedExpert:
    """Return a loaded expert with a random adapter."""
    adapter, scale = read_adapter(make_adapter(mllm, folder / expert_id, seed))
    return LoadedExpert(expert_id, 1, f"req_{expert_id}", mllm.fingerprint, adapter, scale, record)


def with_pictures(record: GateRecord, prototypes: torch.Tensor, threshold: float) -> GateRecord:
    """Return `record` claiming pictures by cosine similarity alone."""
    return replace(record, prototypes=prototypes, alike=threshold)


def as_format_1(folder: Path, cipher: Decrypter) -> None:
    """Turn an expert's files into those of the first format, whose gate's tensors are not encrypted."""
    manifest = json.loads((folder / MANIFEST).read_text())
    aad = f"expert:{manifest['expert_id']}:{manifest['version']}:gate".encode()
    plain = cipher.decrypt((folder / GATE).read_bytes(), aad)
    (folder / GATE).unlink()
    (folder / PLAIN_GATE).write_bytes(plain)
    del manifest["files"][GATE]
    manifest["files"][PLAIN_GATE] = describe(plain)
    (folder / MANIFEST).write_text(json.dumps(manifest | {"format": 1}))
