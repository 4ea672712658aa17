"""The models that serving is measured with, and random experts for them.

The demo model; a mid-size LLaVA with a random language model of about 100 M parameters behind the demo
model's tower and tokenizer; on a GPU, a LLaVA of the 7B's shape, random throughout. What an answer costs
depends on shapes alone, and a random expert changes every token, so that a wrong slot shows at once.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import torch
from peft import LoraConfig
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
)

from app.lumoe.expert import LoadedExpert
from app.lumoe.gate.record import GateRecord
from app.lumoe.mllm import LORA_TARGETS, MLLM, target_linears
from app.lumoe.sources import where_is
from benchmarks.farm import ROOT

ModelName = Literal["demo", "mid", "7b"]
RANK: Final = 8
ALPHA: Final = 16
_B_STD: Final = 0.2
MID: Final[dict[str, Any]] = {
    "hidden_size": 768,
    "intermediate_size": 2048,
    "num_hidden_layers": 13,
    "num_attention_heads": 12,
    "num_key_value_heads": 12,
    "head_dim": 64,
    "max_position_embeddings": 1024,
}
_SEVEN_B: Final[dict[str, Any]] = {
    "vocab_size": 32064,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "max_position_embeddings": 4096,
}
_LARGE_TOWER: Final[dict[str, Any]] = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
    "projection_dim": 768,
}


def source_of(name: ModelName, root: Path = ROOT) -> str:
    """Return what `LETHE_MODEL` is to be for a model; the mid-size one is written on first use.

    Raises:
        ValueError: The 7B-shaped model is made in memory alone.
    """
    if name == "demo":
        return "demo"
    if name != "mid":
        raise ValueError("the 7B-shaped model is not written to disk")
    folder = root / "serving" / "models" / "mid"
    if not (folder / "config.json").is_file():
        _write_mid(folder)
    return str(folder.resolve())


def load(name: ModelName, device: str = "cpu") -> MLLM:
    """Return a model, ready to answer; on a GPU in bfloat16, the 7B-shaped one is random in place."""
    if name == "7b":
        return _seven_b(torch.device(device))
    return MLLM.load(source_of(name), device)


def _write_mid(folder: Path) -> None:
    """Write the demo model with another language model: the tower sees as it does, what is said is random."""
    demo = where_is("demo")
    config: Any = AutoConfig.from_pretrained(demo)
    for name, value in MID.items():
        setattr(config.text_config, name, value)
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(config)
    donor = LlavaForConditionalGeneration.from_pretrained(demo, dtype=torch.float32)
    model.model.vision_tower.load_state_dict(donor.model.vision_tower.state_dict())
    if model.generation_config is not None and donor.generation_config is not None:
        model.generation_config.update(**donor.generation_config.to_diff_dict())
    work = folder.with_name(f".{folder.name}")
    shutil.rmtree(work, ignore_errors=True)
    model.save_pretrained(work)
    processor: Any = AutoProcessor.from_pretrained(demo)
    processor.save_pretrained(work)
    work.rename(folder)


def _seven_b(device: torch.device) -> MLLM:
    """Build the 7B's shape with random bfloat16 weights on `device` and the demo model's tokenizer."""
    processor: Any = AutoProcessor.from_pretrained(where_is("demo"))
    processor.patch_size = _LARGE_TOWER["patch_size"]
    side = _LARGE_TOWER["image_size"]
    processor.image_processor.size = {"shortest_edge": side}
    processor.image_processor.crop_size = {"height": side, "width": side}
    demo: Any = AutoConfig.from_pretrained(where_is("demo"))
    ids = {name: getattr(demo.text_config, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**_LARGE_TOWER),
        text_config=LlamaConfig(**_SEVEN_B, **ids),
        image_token_index=demo.image_token_index,
        vision_feature_layer=-2,
    )
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    torch.manual_seed(0)
    try:
        with torch.device(device):
            model = LlavaForConditionalGeneration(config)
    finally:
        torch.set_default_dtype(before)
    model.generation_config.update(**ids)
    model.requires_grad_(False)
    model.eval()
    return MLLM(model, processor, source="7b", fingerprint="random-7b", device=device)


def random_adapter(
    layers: Mapping[str, nn.Linear], seed: int, rank: int = RANK
) -> dict[str, tuple[Tensor, Tensor]]:
    """Return A (rank, in) and B (out, rank) per layer, float32 on the CPU, drawn from a seed."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: (
            torch.randn(rank, layer.in_features, generator=generator) / math.sqrt(layer.in_features),
            torch.randn(layer.out_features, rank, generator=generator) * _B_STD,
        )
        for name, layer in layers.items()
    }


def write_adapter(folder: Path, adapter: Mapping[str, tuple[Tensor, Tensor]]) -> Path:
    """Write an adapter as PEFT does, with alpha `ALPHA`; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, Tensor] = {}
    for name, (a, b) in adapter.items():
        tensors[f"base_model.model.{name}.lora_A.weight"] = a.contiguous()
        tensors[f"base_model.model.{name}.lora_B.weight"] = b.contiguous()
    save_file(tensors, folder / "adapter_model.safetensors")
    rank = next(iter(adapter.values()))[0].shape[0]
    LoraConfig(r=rank, lora_alpha=ALPHA, target_modules=LORA_TARGETS, inference_mode=True).save_pretrained(
        str(folder)
    )
    return folder


@dataclass(frozen=True, slots=True)
class RandomExperts:
    """Random experts of one model: as the service holds them, and as PEFT reads them."""

    experts: tuple[LoadedExpert, ...]
    folders: tuple[Path, ...]
    nbytes: int
    """Bytes of one expert's A and B as they are read in one decoding step."""


def random_experts(mllm: MLLM, n: int, folder: Path) -> RandomExperts:
    """Draw n experts for `mllm` and write them below `folder` for PEFT."""
    layers = target_linears(mllm.network)
    weight = next(iter(layers.values())).weight
    experts, folders, nbytes = [], [], 0
    nobody = GateRecord((), "Personage", torch.zeros(0, 0))
    for i in range(n):
        adapter = random_adapter(layers, i)
        folders.append(write_adapter(folder / f"e{i:05d}", adapter))
        nbytes = sum(a.numel() + b.numel() for a, b in adapter.values()) * weight.element_size()
        experts.append(
            LoadedExpert(
                f"exp_{i:032x}",
                1,
                f"req_{i:032x}",
                mllm.fingerprint,
                adapter,
                ALPHA / RANK,
                nobody,
            )
        )
    return RandomExperts(tuple(experts), tuple(folders), nbytes)


class Endless:
    """Keeps a model from ending its answer: the end tokens' logits are minus infinity.

    What `min_new_tokens` does within `generate`, done at the head, so that every way to decode is held to it.
    """

    def __init__(self, eos_ids: Sequence[int]) -> None:
        self._eos = sorted(eos_ids)

    def __call__(self, module: nn.Module, inputs: object, output: Tensor) -> Tensor:  # noqa: ARG002  a hook
        """Return the logits without the end tokens."""
        output[..., self._eos] = -math.inf
        return output


def endless(mllm: MLLM) -> None:
    """Have every later answer of this model, and of copies of it, be as long as it may be."""
    head: Any = mllm.network.get_output_embeddings()
    head.register_forward_hook(Endless(sorted(mllm.eos_ids)))
