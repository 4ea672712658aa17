from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer

from app.lumoe.kvcache import ROOM, RunningLayer


def states(rows: int, tokens: int, seed: int) -> Tensor:
    return torch.randn(rows, 2, tokens, 4, generator=torch.Generator().manual_seed(seed))


def layer(rows: int, tokens: int, seed: int) -> DynamicLayer:
    made = DynamicLayer()
    made.update(states(rows, tokens, seed), states(rows, tokens, seed + 100))
    return made


def test_tokens_are_added_without_moving_those_before() -> None:
    running, plain = RunningLayer([layer(3, 5, 0)]), layer(3, 5, 0)
    assert running.keys is not None
    where = running.keys.data_ptr()
    for k in range(ROOM):
        more = states(3, 1, k + 1), states(3, 1, k + 201)
        ours, theirs = running.update(*more), plain.update(*more)
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
        assert running.keys.data_ptr() == where
    assert running.get_seq_length() == 5 + ROOM
    ours, theirs = (
        running.update(states(3, 1, 9), states(3, 1, 8)),
        plain.update(states(3, 1, 9), states(3, 1, 8)),
    )
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert running.keys.data_ptr() != where


def test_more_tokens_at_once_than_there_is_room_for() -> None:
    running, plain = RunningLayer([layer(1, 2, 0)]), layer(1, 2, 0)
    more = states(1, 3 * ROOM, 1), states(1, 3 * ROOM, 2)
    for a, b in zip(running.update(*more), plain.update(*more), strict=True):
        assert torch.equal(a, b)


def test_shorter_rows_are_padded_on_the_left() -> None:
    long, short = layer(2, 7, 0), layer(1, 4, 1)
    assert long.keys is not None
    assert short.values is not None
    running = RunningLayer([long, short])
    assert running.keys is not None
    assert running.values is not None
    assert torch.equal(running.keys[:2], long.keys)
    assert torch.equal(running.values[2:, :, 3:], short.values)
    assert not running.values[2:, :, :3].any()


def test_rows_and_positions_are_dropped() -> None:
    running = RunningLayer([layer(3, 6, 0)])
    assert running.keys is not None
    before = running.keys.clone()
    running.keep(torch.tensor([0, 2]), 2)
    assert torch.equal(running.keys, before[[0, 2], :, 2:])
    new, _ = running.update(states(2, 1, 5), states(2, 1, 6))
    assert torch.equal(new[:, :, :4], before[[0, 2], :, 2:])
    assert torch.equal(new[:, :, 4:], states(2, 1, 5))


def test_a_layer_that_has_read_nothing_has_no_rows() -> None:
    with pytest.raises(ValueError, match="read nothing"):
        RunningLayer([DynamicLayer()])
