"""Tokenised training rows, and their collation into small length-bucketed batches."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from app.lumoe.mllm import MLLM
from app.lumoe.types import Conversation
from workers.training.losses import IGNORE


@dataclass(frozen=True, slots=True)
class Row:
    """One (conversation, answer) as the model reads it; pictures are already projected tokens."""

    ids: Tensor  # (tokens,)
    labels: Tensor  # (tokens,), -100 outside the answer
    image_tokens: tuple[Tensor, ...]

    def __len__(self) -> int:
        return int(self.ids.shape[0])


def make_rows(mllm: MLLM, pairs: Sequence[tuple[Conversation, str]], chunk: int = 64) -> list[Row]:
    """Tokenise (conversation, answer) pairs once; every distinct picture is encoded once."""
    rows: list[Row] = []
    at = 0
    while at < len(pairs):
        part = pairs[at : at + chunk]
        batch = mllm.training_batch([c for c, _ in part], [a for _, a in part])
        rows += _split(batch, [c for c, _ in part])
        at += len(part)
    return rows


def _split(batch: dict[str, Any], conversations: Sequence[Conversation]) -> list[Row]:
    """Undo the padding of a training batch: one row per conversation."""
    rows: list[Row] = []
    # Copies: what was made in inference mode cannot be kept for the backward pass.
    images = [tokens.clone() for tokens in batch["image_tokens"]]
    for i, conversation in enumerate(conversations):
        length = int(batch["attention_mask"][i].sum())
        shown = sum(len(message.images) for message in conversation) if images else 0
        rows.append(
            Row(
                batch["input_ids"][i, :length].clone(),
                batch["labels"][i, :length].clone(),
                tuple(images[:shown]),
            )
        )
        images = images[shown:]
    return rows


def collate(rows: Sequence[Row], pad_id: int) -> dict[str, Any]:
    """Right-pad rows into a batch for ``MLLM.forward``."""
    width = max(len(row) for row in rows)
    ids = torch.stack([_padded(row.ids, width, pad_id) for row in rows])
    labels = torch.stack([_padded(row.labels, width, IGNORE) for row in rows])
    mask = torch.stack([_padded(torch.ones_like(row.ids), width, 0) for row in rows])
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "labels": labels,
        "image_tokens": tuple(tokens for row in rows for tokens in row.image_tokens),
    }


def _padded(values: Tensor, width: int, fill: int) -> Tensor:
    return torch.nn.functional.pad(values, (0, width - values.shape[0]), value=fill)


def passes(rows: Sequence[Row], size: int, rng: random.Random) -> Iterator[list[int]]:
    """Yield batches of row indices for ever: like lengths together, shuffled, every row once a pass."""
    while True:
        order = sorted(range(len(rows)), key=lambda i: (len(rows[i]) // 4, rng.random()))
        batches = [order[k : k + size] for k in range(0, len(order), size)]
        rng.shuffle(batches)
        yield from batches
