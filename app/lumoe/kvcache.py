"""The keys and values of a running batch: a token is written behind the others, and nothing is moved."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from transformers.cache_utils import DynamicLayer

ROOM = 64
"""For so many more tokens there is room, before everything is moved to where there is more."""


class RunningLayer(DynamicLayer):
    """One layer's keys and values (rows, heads, t, d), at the front of buffers with room for more tokens.

    `DynamicLayer` copies all of them for every token, which takes as long as the model's own arithmetic once
    there are many rows.

    Args:
        parts: the layers whose rows it is to have; shorter ones are padded on the left with zeros.
    """

    def __init__(self, parts: Sequence[DynamicLayer]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        keys, values = [_given(part.keys) for part in parts], [_given(part.values) for part in parts]
        self.lazy_initialization(keys[0], values[0])
        self._hold(keys, values)

    def keep(self, rows: Tensor, start: int) -> None:
        """Drop all but the rows at these indices, and the first `start` positions."""
        self._hold([_given(self.keys)[rows, :, start:]], [_given(self.values)[rows, :, start:]])

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: object, **__: object
    ) -> tuple[Tensor, Tensor]:
        """Add keys and values (rows, heads, new, d); return those before and them."""
        held, new = self.get_seq_length(), key_states.shape[2]
        if held + new > self._buffers[0].shape[2]:
            self._hold([_given(self.keys)], [_given(self.values)], new)
        for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:, :, held : held + new] = states
        return self._show(held + new)

    def _hold(self, keys: Sequence[Tensor], values: Sequence[Tensor], new: int = 0) -> None:
        self._buffers = _together(keys, new), _together(values, new)
        self._show(max(part.shape[2] for part in keys))

    def _show(self, length: int) -> tuple[Tensor, Tensor]:
        keys, values = (buffer[:, :, :length] for buffer in self._buffers)
        self.keys, self.values = keys, values
        return keys, values


def _together(parts: Sequence[Tensor], new: int) -> Tensor:
    """Return the rows of all parts (rows, heads, t, d), padded on the left, with room behind them."""
    rows, width = sum(len(part) for part in parts), max(part.shape[2] for part in parts)
    _, heads, _, d = parts[0].shape
    buffer = parts[0].new_empty(rows, heads, width + max(ROOM, new), d)
    at = 0
    for part in parts:
        own = buffer[at : at + len(part)]
        start = width - part.shape[2]
        own[:, :, :start] = 0
        own[:, :, start:width] = part
        at += len(part)
    return buffer


def _given(states: Tensor | None) -> Tensor:
    """Return the states of a layer that has read something. Raises `ValueError` for one that has not."""
    if states is None:
        raise ValueError("a layer that has read nothing has no rows")
    return states
