"""One model, four ways to write a mixed batch: unwrapped, PEFT's `adapter_names`, as released, ours.

Every way gets the same prompts as text, and ends with text; all write the same number of tokens, greedily.
*Unwrapped* is transformers' `generate` on a copy of the model that nothing of ours has touched. *PEFT* has
all experts loaded into one copy and names one for each row. *As released* has a copy of the model for every
expert and answers one row after another. *Ours* is `LocalWriter.write` with the experts in the slot bank.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch
from peft import PeftModel
from rich.console import Console
from torch import Tensor

from app.lumoe.demo import general
from app.lumoe.mllm import MLLM
from app.lumoe.onednn import leave_to_torch, use_onednn
from app.lumoe.types import Conversation
from app.lumoe.writers import Held, LocalWriter, bank_of
from benchmarks.serving_figures import Spread, Times, in_turn, ratios, spread
from benchmarks.serving_models import ModelName, RandomExperts, endless, load, random_experts

BASE, OURS, PEFT, RELEASED, OURS_BASE = "unwrapped", "ours", "peft", "released", "ours, base rows"
_PEFT_BASE: Final = "__base__"
LOGITS_TOLERANCE: Final = 1e-4


@dataclass(frozen=True, slots=True)
class EnginePlan:
    """What is measured of one model."""

    model: ModelName
    batches: tuple[int, ...]
    experts: tuple[int, ...]
    tokens: int
    runs: int
    released_rows: int
    """The largest batch that is also answered as released: one row after another takes its time."""
    copies: int = 16
    """Most copies of the model that are made; with more experts they are used in turn."""
    device: str = "cpu"


@dataclass(frozen=True, slots=True)
class Cell:
    """One batch size with so many experts loaded; row i is written by expert i modulo their number."""

    batch: int
    experts: int
    seconds: dict[str, Spread]
    ratio: dict[str, Spread]
    """`ours_vs_base`, `ours_vs_base_rows`, `peft_vs_ours`, `released_vs_ours`, `base_rows_vs_base`; each
    within one run."""

    def as_json(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return asdict(self)


def questions(n: int) -> list[Conversation]:
    """Return n different questions in words."""
    found = [qa.conversation for qa in general("report", 4 * n + 40, 11)]
    return [c for c in found if not any(m.images for m in c)][:n]


class Ways:
    """The four ways over one model; `enrol` loads more experts into each."""

    def __init__(self, mllm: MLLM, experts: RandomExperts, *, tokens: int, copies: int) -> None:
        self.mllm, self.experts, self.tokens, self._copies = mllm, experts, tokens, copies
        endless(mllm)
        self._pristine = leave_to_torch(copy.deepcopy(mllm.network))
        self.base: Any = copy.deepcopy(self._pristine)
        self.writer = LocalWriter(mllm)
        self.held: list[Held] = []
        self._peft: Any = None
        self._released: list[Any] = []

    def enrol(self, n: int) -> None:
        """Have n experts loaded everywhere."""
        fresh = range(len(self.held), n)
        self.held += self.writer.hold([self.experts.experts[i] for i in fresh])
        for i in fresh:
            folder, name = str(self.experts.folders[i]), f"e{i:05d}"
            if self._peft is None:
                whole = copy.deepcopy(self._pristine)
                self._peft = PeftModel.from_pretrained(whole, folder, adapter_name=name)
                self._peft.eval()
            else:
                self._peft.load_adapter(folder, adapter_name=name)
            if len(self._released) < self._copies:
                alone: Any = PeftModel.from_pretrained(copy.deepcopy(self._pristine), folder)
                alone.eval()
                self._released.append(alone)

    def names(self, batch: int) -> list[int]:
        """Return which expert writes each row."""
        return [i % len(self.held) for i in range(batch)]

    def unwrapped(self, asked: Sequence[Conversation]) -> list[tuple[int, ...]]:
        """Return each row's tokens by the base model."""
        return self._generate(self.base, asked)

    def ours(self, asked: Sequence[Conversation]) -> list[tuple[int, ...]]:
        """Return each row's tokens by its expert."""
        return self._ours(asked, [self.held[i] for i in self.names(len(asked))])

    def ours_base(self, asked: Sequence[Conversation]) -> list[tuple[int, ...]]:
        """Return each row's tokens by the base model, beside loaded experts."""
        return self._ours(asked, [None] * len(asked))

    def peft(self, asked: Sequence[Conversation]) -> list[tuple[int, ...]]:
        """Return each row's tokens by its expert."""
        return self._generate(self._peft, asked, adapter_names=[f"e{i:05d}" for i in self.names(len(asked))])

    def released(self, asked: Sequence[Conversation]) -> list[tuple[int, ...]]:
        """Return each row's tokens by its expert's own copy of the model, one row after another."""
        copies = [self._released[i % len(self._released)] for i in self.names(len(asked))]
        return [self._generate(own, [c])[0] for own, c in zip(copies, asked, strict=True)]

    def _ours(self, asked: Sequence[Conversation], held: Sequence[Held | None]) -> list[tuple[int, ...]]:
        found = self.writer.write(asked, held, max_new_tokens=self.tokens)
        return [generation.token_ids for generation in found]

    @torch.inference_mode()
    def _generate(self, model: Any, asked: Sequence[Conversation], **extra: Any) -> list[tuple[int, ...]]:
        """Prompt, `generate`, text: what whoever has the model alone does."""
        ids, mask = self.padded(asked)
        output = model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=self.tokens,
            do_sample=False,
            num_beams=1,
            pad_token_id=self.mllm.tokenizer.pad_token_id,
            **extra,
        )[:, ids.shape[1] :]
        for row in output.tolist():
            self.mllm.decode(row)
        return [tuple(row) for row in output.tolist()]

    def padded(self, asked: Sequence[Conversation]) -> tuple[Tensor, Tensor]:
        """Return left-padded prompt tokens and their mask, both (rows, longest)."""
        rows = [self.mllm.prompt_ids(c) for c in asked]
        width = max(map(len, rows))
        pad = self.mllm.tokenizer.pad_token_id
        ids = torch.tensor([[pad] * (width - len(row)) + row for row in rows], device=self.mllm.device)
        mask = torch.tensor([[0] * (width - len(r)) + [1] * len(r) for r in rows], device=self.mllm.device)
        return ids, mask

    @torch.inference_mode()
    def logits_apart(self, asked: Sequence[Conversation]) -> float:
        """Return the largest difference between ours and PEFT's logits over a mixed batch of prompts."""
        ids, mask = self.padded(asked)
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
        held: Any = [self.held[i] for i in self.names(len(asked))]
        with bank_of(self.mllm).active(held):
            ours = self.mllm.model(**inputs).logits.float()
        names = [f"e{i:05d}" for i in self.names(len(asked))]
        theirs = self._peft(**inputs, adapter_names=names).logits.float()
        real = mask.bool()
        keep = [t for t in range(ours.shape[-1]) if t not in self.mllm.eos_ids]
        return float((ours[real][:, keep] - theirs[real][:, keep]).abs().max())


def measure(plan: EnginePlan, console: Console) -> dict[str, Any]:
    """Measure one model in every cell; return cells, what was checked, shapes and the machine's limits."""
    with tempfile.TemporaryDirectory(prefix="lethe-serving-") as scratch:
        mllm = load(plan.model, plan.device)
        most = max(plan.experts)
        experts = random_experts(mllm, most, Path(scratch))
        weights = decoding_bytes(mllm)
        ways = Ways(mllm, experts, tokens=plan.tokens, copies=plan.copies)
        cells: list[Cell] = []
        checked: dict[str, Any] = {}
        for n in sorted(plan.experts):
            ways.enrol(n)
            for batch in plan.batches:
                cell = _cell(ways, batch, n, plan)
                cells.append(cell)
                _say(console, plan.model, cell)
            if not checked and (n >= 16 or n == most):
                checked = check(ways, min(16, max(plan.batches)))
        return {
            "model": plan.model,
            "parameters": sum(p.numel() for p in mllm.network.parameters()),
            "tokens": plan.tokens,
            "threads": torch.get_num_threads(),
            "device": str(mllm.device),
            "checked": checked,
            "cells": [cell.as_json() for cell in cells],
            "step": {
                "weight_bytes": weights,
                "expert_bytes": experts.nbytes,
                "element_bytes": next(mllm.network.parameters()).element_size(),
            },
            "machine": machine(mllm),
        }


def check(ways: Ways, batch: int) -> dict[str, Any]:
    """Compare ours with PEFT's on a mixed batch: tokens that were written, and the prompts' logits.

    Raises:
        RuntimeError: They differ, or a row has another number of tokens than it was asked for.
    """
    asked = questions(batch)
    ours, theirs = ways.ours(asked), ways.peft(asked)
    base = ways.unwrapped(asked)
    short = [row for rows in (ours, theirs, base) for row in rows if len(row) != ways.tokens]
    if short:
        raise RuntimeError(f"{len(short)} rows are not {ways.tokens} tokens long: the times do not compare")
    apart = ways.logits_apart(asked)
    same = sum(a == b for a, b in zip(ours, theirs, strict=True))
    exact = ways.mllm.network.dtype == torch.float32
    if exact and (apart > LOGITS_TOLERANCE or same < batch):
        raise RuntimeError(
            f"ours and PEFT's differ: {batch - same} of {batch} rows, logits by up to {apart:.2g}"
        )
    others = sum(a != b for a, b in zip(ours, base, strict=True))
    return {
        "rows": batch,
        "same_tokens_as_peft": same,
        "logits_apart": apart,
        "rows_unlike_base": others,
        "base_rows_as_unwrapped": sum(a == b for a, b in zip(ways.ours_base(asked), base, strict=True)),
    }


def _cell(ways: Ways, batch: int, n: int, plan: EnginePlan) -> Cell:
    asked = questions(batch)
    contestants: dict[str, Callable[[], object]] = {
        BASE: lambda: ways.unwrapped(asked),
        OURS: lambda: ways.ours(asked),
        OURS_BASE: lambda: ways.ours_base(asked),
        PEFT: lambda: ways.peft(asked),
    }
    if batch <= plan.released_rows:
        contestants[RELEASED] = lambda: ways.released(asked)
    return cell_of(batch, n, in_turn(contestants, plan.runs))


def cell_of(batch: int, experts: int, times: Times) -> Cell:
    """Return what the times of one cell come to; ways that were not timed are left out."""
    pairs = {
        "ours_vs_base": (OURS, BASE),
        "ours_vs_base_rows": (OURS, OURS_BASE),
        "base_rows_vs_base": (OURS_BASE, BASE),
        "peft_vs_ours": (PEFT, OURS),
        "released_vs_ours": (RELEASED, OURS),
    }
    found = {
        key: ratios(times[one], times[other])
        for key, (one, other) in pairs.items()
        if one in times and other in times
    }
    return Cell(batch, experts, {name: spread(values) for name, values in times.items()}, found)


def _say(console: Console, model: str, cell: Cell) -> None:
    seconds = ", ".join(f"{name} {s.median * 1e3:.1f} ms" for name, s in cell.seconds.items())
    console.print(
        f"{model}, batch {cell.batch}, {cell.experts} experts: {seconds}; "
        f"ours / unwrapped {cell.ratio['ours_vs_base'].median:.3f}"
    )


def decoding_bytes(mllm: MLLM) -> int:
    """Return the bytes of base weights that one decoding step reads: the language model and its head.

    The embedding table is read in one row a token, unless the head is the same matrix.
    """
    head: Any = mllm.network.get_output_embeddings()
    table: Any = mllm.network.get_input_embeddings()
    language: Any = mllm.model.model.language_model
    seen = {id(p): p for p in (*language.parameters(), *head.parameters())}
    if table.weight is not head.weight:
        seen.pop(id(table.weight), None)
    return sum(p.numel() * p.element_size() for p in seen.values())


@torch.inference_mode()
def machine(mllm: MLLM) -> dict[str, float]:
    """Return what this machine does at best: bytes read and multiply-adds, each a second.

    Bytes: a matrix-vector product over a matrix that no cache holds. Multiply-adds: a large matrix product.
    Both in the model's own type and on its device, as its linear layers multiply, the best of several.
    """
    dtype, device = mllm.network.dtype, mllm.device
    rows = 8192 if device.type == "cpu" else 16384
    side = 1024 if device.type == "cpu" else 8192
    large = torch.nn.Linear(8192, rows, bias=False, device=device, dtype=dtype)
    small = torch.nn.Linear(side, side, bias=False, device=device, dtype=dtype)
    vector = torch.randn(1, 8192, device=device).to(dtype)
    square = torch.randn(side, side, device=device).to(dtype)
    use_onednn(torch.nn.ModuleList([large, small]))

    def settle() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    def read() -> None:
        large(vector)
        settle()

    def multiply() -> None:
        small(square)
        settle()

    times = in_turn({"read": read, "multiply": multiply}, 7, warm=2)
    return {
        "bytes_per_second": large.weight.numel() * large.weight.element_size() / min(times["read"]),
        "multiply_adds_per_second": side**3 / min(times["multiply"]),
    }
