"""Steering a generation row by row: who reads along, and who has heard enough."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from transformers import StoppingCriteria
from transformers.generation.streamers import BaseStreamer

TokenSink = Callable[[int, int], bool]
"""Called with (row, token id) for every new token; returning false ends that row."""


class RowWatcher(BaseStreamer):
    """Hands each row's new tokens to the sink until that row ends."""

    def __init__(self, rows: int, eos_ids: frozenset[int], sink: TokenSink | None) -> None:
        self._live = set(range(rows))
        self._eos = eos_ids
        self._sink = sink
        self._prompt_seen = False
        self.cancelled: set[int] = set()

    def put(self, value: Tensor) -> None:
        """Take the next token of every row, (rows,); the first call brings the prompt."""
        if not self._prompt_seen:  # generate() puts the prompt first
            self._prompt_seen = True
            return
        for row, token in enumerate(value.flatten().tolist()):
            if row not in self._live:
                continue
            if token in self._eos:
                self._live.discard(row)
            elif self._sink is not None and not self._sink(row, token):
                self._live.discard(row)
                self.cancelled.add(row)

    def end(self) -> None:
        """Every row is complete."""
        self._live.clear()

    def stopped(self) -> set[int]:
        """Return the rows that the sink has ended."""
        return self.cancelled


class Cancelled(StoppingCriteria):
    """Ends the rows whose sink said so."""

    def __init__(self, watcher: RowWatcher) -> None:
        self._watcher = watcher

    def __call__(self, input_ids: Tensor, scores: Tensor, **kwargs: object) -> Tensor:  # noqa: ARG002
        """Return (rows,) booleans: which rows are done."""
        done = torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)
        for row in self._watcher.stopped():
            done[row] = True
        return done
