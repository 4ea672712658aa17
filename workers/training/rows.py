"""Tokenised training rows, and their collation into small length-bucketed batches."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from app.lumoe.mllm import MLLM
from app.lumoe.types import Conversation
from workers.training.losses import IGNORE, answer_positions

_EVALUATION_ROWS = 64


@dataclass(frozen=True, slots=True)
class Row:
    """One (conversation, answer) as the model reads it; pictures are already projected tokens."""

    ids: Tensor  # (tokens,)
    labels: Tensor  # (tokens,), -100 outside the answer
    image_tokens: tuple[Tensor, ...]
    hidden: Tensor | None = None
    """(tokens, hidden): what the model's lower layers make of it, where those are not run again."""

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


def answer_logits(mllm: MLLM, rows: Sequence[Row], model: nn.Module | None = None) -> tuple[Tensor, Tensor]:
    """Run rows through the model: logits (answer tokens, vocabulary) and targets (answer tokens,).

    Rows that carry hidden states enter behind the layers that made them: only a model from which those are
    taken out reads them (`upper.upper_layers`).
    """
    batch = collate(rows, _pad_id(mllm))
    at_rows, positions = answer_positions(batch["labels"])
    network: Any = model if model is not None else mllm.network  # Any: PEFT's and transformers' share no base
    with _narrowed(network.get_output_embeddings(), at_rows, positions):
        hidden = _collated_hidden(rows)
        if hidden is None:
            logits = mllm.forward(batch, model)  # (1, answer tokens, vocabulary)
        else:
            mask = batch["attention_mask"]
            logits = network(inputs_embeds=hidden, attention_mask=mask, use_cache=False).logits
    return logits[0], batch["labels"][at_rows, positions + 1]


@contextmanager
def _narrowed(head: nn.Module, rows: Tensor, positions: Tensor) -> Iterator[None]:
    """Within the block the head sees the hidden states at some (row, position) alone, as one long row."""

    def pick(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (inputs[0][rows, positions].unsqueeze(0), *inputs[1:])

    handle = head.register_forward_pre_hook(pick)
    try:
        yield
    finally:
        handle.remove()


def _pad_id(mllm: MLLM) -> int:
    """Return an id to pad with; the attention mask hides it, so any but the picture's will do."""
    pad = mllm.tokenizer.pad_token_id
    return int(pad if pad is not None else min(mllm.eos_ids))


def by_length(rows: Sequence[Row]) -> Iterator[list[int]]:
    """Yield every row's index once, in batches of like length, for a pass without gradients."""
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    yield from (order[start : start + _EVALUATION_ROWS] for start in range(0, len(order), _EVALUATION_ROWS))


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


def _collated_hidden(rows: Sequence[Row]) -> Tensor | None:
    """Return the rows' hidden states (rows, width, hidden), zero where a row is padded; None without."""
    states = [row.hidden for row in rows if row.hidden is not None]
    return torch.nn.utils.rnn.pad_sequence(states, batch_first=True) if len(states) == len(rows) else None


def _padded(values: Tensor, width: int, fill: int) -> Tensor:
    return torch.nn.functional.pad(values, (0, width - values.shape[0]), value=fill)


def passes(rows: Sequence[Row], size: int, rng: random.Random) -> Iterator[list[int]]:
    """Yield batches of row indices for ever: like lengths together, shuffled, every row once a pass."""
    while True:
        order = _by_length(rows, rng)
        batches = [order[k : k + size] for k in range(0, len(order), size)]
        rng.shuffle(batches)
        yield from batches


def paired_passes(
    left: Sequence[Row], right: Sequence[Row], sizes: tuple[int, int], rng: random.Random
) -> Iterator[tuple[list[int], list[int]]]:
    """Yield pairs of batches for ever, long rows with long ones: each side's every row at least once a pass.

    ``sizes`` bounds the rows of either side in one pair. A side that is too short for the other is gone
    through again; ``right`` may be empty. ``pass_length`` says how many pairs make a pass.
    """
    n = pass_length(left, right, sizes)
    while True:
        pairs = list(zip(_cut(_by_length(left, rng), n), _cut(_by_length(right, rng), n), strict=True))
        rng.shuffle(pairs)
        yield from pairs


def pass_length(left: Sequence[Row], right: Sequence[Row], sizes: tuple[int, int]) -> int:
    """Return how many pairs of batches show every row of both sides."""
    return max(1, -(-len(left) // sizes[0]), -(-len(right) // sizes[1]))


def _by_length(rows: Sequence[Row], rng: random.Random) -> list[int]:
    return sorted(range(len(rows)), key=lambda i: (len(rows[i]) // 4, rng.random()))


def _cut(order: Sequence[int], n: int) -> list[list[int]]:
    """Cut an order into n runs of equal length, give or take one; a short one gives single rows in turn."""
    if not order:
        return [[] for _ in range(n)]
    if len(order) < n:
        return [[order[k % len(order)]] for k in range(n)]
    return [list(order[k * len(order) // n : (k + 1) * len(order) // n]) for k in range(n)]
