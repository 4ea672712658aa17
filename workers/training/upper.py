"""Training the decoder's upper layers alone, behind hidden states that are computed once.

An expert that starts from an initial expert need not change the layers below: those hold what is the same for
every subject. What they make of a row is then the same at every step, and a step passes through the upper
layers only, forward and backward.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn

from app.lumoe.mllm import MLLM
from workers.training.rows import Row, answer_logits, by_length

log = logging.getLogger(__name__)

_LAYER = re.compile(r"(.+)\.layers\.\d+\.")
_MOST_BYTES = 4 * 2**30
"""Hidden states that are kept at most; beyond, every step computes them again."""
_APART = 0.05
"""How far logits may be from the whole model's, as a share of the largest: rounding, not another model."""


@dataclass(frozen=True, slots=True)
class Decoder:
    """The language part's layers, and the module that runs them one after the other."""

    owner: nn.Module
    layers: nn.ModuleList

    @classmethod
    def find(cls, model: PeftModel) -> Decoder | None:
        """Return the layers that carry the adapter; None where it is not in `layers` of one module."""
        names = [name for name, p in model.named_parameters() if p.requires_grad]
        owners = {match[1] if (match := _LAYER.match(name)) else None for name in names}
        owner = owners.pop() if len(owners) == 1 else None
        if owner is None:
            return None
        module = model.get_submodule(owner)
        layers = module.layers
        return cls(module, layers) if isinstance(layers, nn.ModuleList) else None

    @contextmanager
    def only(self, part: slice) -> Iterator[None]:
        """Within the block the model runs these layers alone."""
        self.owner.layers = self.layers[part]
        try:
            yield
        finally:
            self.owner.layers = self.layers


@contextmanager
def upper_layers(
    mllm: MLLM, model: PeftModel, share: float, *sets: Sequence[Row]
) -> Iterator[list[list[Row]]]:
    """Within the block the top ``share`` of the layers is trained; yields the rows for that, set by set.

    The others keep their adapter's weights. The rows carry the hidden states of the first layer that is
    trained, and the model runs from there on. Where it cannot (it has other layers, its logits come out
    differently, or the states are too many), the whole model runs, and the same layers are trained.
    """
    rows = [list(one) for one in sets]
    decoder = Decoder.find(model)
    lower = 0 if decoder is None else len(decoder.layers) - math.ceil(share * len(decoder.layers))
    if decoder is None or lower <= 0:
        yield rows
        return
    decoder.layers[:lower].requires_grad_(requires_grad=False)
    if _bytes(mllm, rows) > _MOST_BYTES:
        yield rows
        return
    behind = [_behind(mllm, model, decoder, lower, one) for one in rows]
    if not _alike(mllm, model, decoder, lower, rows, behind):
        log.warning("the upper layers alone compute something else here; every step runs the whole model")
        yield rows
        return
    with decoder.only(slice(lower, None)):
        yield behind


def _bytes(mllm: MLLM, sets: Sequence[Sequence[Row]]) -> int:
    width = int(mllm.network.config.get_text_config().hidden_size)
    return sum(len(row) for rows in sets for row in rows) * width * mllm.network.dtype.itemsize


@torch.no_grad()
def _behind(mllm: MLLM, model: PeftModel, decoder: Decoder, lower: int, rows: Sequence[Row]) -> list[Row]:
    """Return the rows with what the layers below ``lower`` make of them."""
    left: list[Tensor] = []

    def keep(_: nn.Module, __: Any, output: Any) -> None:  # Any: a tensor, or a tuple that begins with one
        left.append(output if isinstance(output, Tensor) else output[0])

    found: dict[int, Row] = {}
    handle = decoder.layers[lower - 1].register_forward_hook(keep)
    try:
        with decoder.only(slice(0, lower)):
            for part in by_length(rows):
                answer_logits(mllm, [rows[i] for i in part], model)
                states = left.pop()  # (rows, width, hidden)
                for i, own in zip(part, states, strict=True):
                    found[i] = replace(rows[i], hidden=own[: len(rows[i])].clone())
    finally:
        handle.remove()
    return [found[i] for i in range(len(rows))]


@torch.no_grad()
def _alike(
    mllm: MLLM,
    model: PeftModel,
    decoder: Decoder,
    lower: int,
    sets: Sequence[Sequence[Row]],
    behind: Sequence[Sequence[Row]],
) -> bool:
    """Say whether the model computes the same from the hidden states on; asked of one row of each set."""
    for rows, short in zip(sets, behind, strict=True):
        if rows:
            whole = answer_logits(mllm, rows[:1], model)[0]
            with decoder.only(slice(lower, None)):
                upper = answer_logits(mllm, short[:1], model)[0]
            if float((whole - upper).abs().max()) > _APART * float(whole.abs().max()):
                return False
    return True
