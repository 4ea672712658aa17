"""The slot bank: every live expert's low-rank tensors stacked; each row of a batch has its own expert.

For a linear layer y = W x, slot k adds s_k B_k A_k x (Hu et al. 2021, LoRA; s = alpha / r is folded into B).
Slot 0 is all zeros: the base model. A forward hook per target layer gathers the rows' slots and adds the
product; while no expert is active the hook returns at once, and the module tree is never touched.
Registering an expert copies tensors into a free slot; nothing that runs is disturbed.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from app.lumoe.errors import ExpertCorruptError

_FIRST_CAPACITY = 8


class Slot:
    """A place in the bank that an expert holds for as long as anybody keeps this handle."""

    __slots__ = ("__weakref__", "index", "key")

    def __init__(self, index: int, key: str) -> None:
        self.index = index
        self.key = key


class _Layer:
    """One linear layer's stacks: `a` (slots, r, in) and `b` (slots, out, r)."""

    __slots__ = ("a", "b")

    def __init__(self, module: nn.Linear, capacity: int, rank: int) -> None:
        self.a = module.weight.new_zeros(capacity, rank, module.in_features)
        self.b = module.weight.new_zeros(capacity, module.out_features, rank)

    def grown(self, capacity: int, rank: int) -> _Layer:
        larger = object.__new__(_Layer)
        slots, old_rank, width = self.a.shape
        larger.a = self.a.new_zeros(capacity, rank, width)
        larger.b = self.b.new_zeros(capacity, self.b.shape[1], rank)
        larger.a[:slots, :old_rank] = self.a
        larger.b[:slots, :, :old_rank] = self.b
        return larger


class SlotBank:
    """Stacked experts for one model. `load` and slot release are thread-safe beside running batches."""

    def __init__(self, layers: Mapping[str, nn.Linear], rank: int = 8) -> None:
        self._modules = dict(layers)
        self._rank = rank
        self._capacity = _FIRST_CAPACITY
        self._stacks = {name: _Layer(module, self._capacity, rank) for name, module in self._modules.items()}
        self._free = list(range(1, self._capacity))
        self._slots: weakref.WeakValueDictionary[str, Slot] = weakref.WeakValueDictionary()
        self._lock = threading.RLock()
        self._rows = threading.local()
        self._handles = [
            module.register_forward_hook(self._hook(name)) for name, module in self._modules.items()
        ]

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def nbytes(self) -> int:
        """Bytes that the stacks occupy, free slots included."""
        return sum(
            t.numel() * t.element_size() for layer in self._stacks.values() for t in (layer.a, layer.b)
        )

    def close(self) -> None:
        """Remove the hooks; the model is as before the bank was made."""
        for handle in self._handles:
            handle.remove()

    def load(self, key: str, adapter: Mapping[str, tuple[Tensor, Tensor]], scale: float) -> Slot:
        """Copy an expert into a slot, or return the slot that already holds `key`.

        `adapter` maps a layer's name to (A (r, in), B (out, r)); `scale` is alpha / r.
        The slot is freed when the last reference to the returned handle is gone.
        Raises `ExpertCorruptError` if a layer is unknown or a shape does not fit.
        """
        self._check(key, adapter)
        with self._lock:
            held = self._slots.get(key)
            if held is not None:
                return held
            rank = max((a.shape[0] for a, _ in adapter.values()), default=self._rank)
            if not self._free or rank > self._rank:
                self._grow(max(rank, self._rank))
            slot = Slot(self._free.pop(0), key)
            for name, (a, b) in adapter.items():
                stack = self._stacks[name]
                stack.a[slot.index, : a.shape[0]].copy_(a)
                stack.b[slot.index, :, : b.shape[1]].copy_(b * scale)
            self._slots[key] = slot
            weakref.finalize(slot, self._release, slot.index)
            return slot

    def _check(self, key: str, adapter: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        for name, (a, b) in adapter.items():
            module = self._modules.get(name)
            if module is None:
                raise ExpertCorruptError(
                    f"expert {key}: the model has no layer {name}; was it made for another model?"
                )
            if a.shape[1] != module.in_features or b.shape != (module.out_features, a.shape[0]):
                raise ExpertCorruptError(
                    f"expert {key}: layer {name} has shapes {tuple(a.shape)}, {tuple(b.shape)}, "
                    f"the model needs (r, {module.in_features}), ({module.out_features}, r)"
                )

    def _grow(self, rank: int) -> None:
        capacity = self._capacity if self._free else self._capacity * 2
        self._stacks = {name: layer.grown(capacity, rank) for name, layer in self._stacks.items()}
        self._free += list(range(self._capacity, capacity))
        self._capacity, self._rank = capacity, rank

    def _release(self, index: int) -> None:
        with self._lock:
            for layer in self._stacks.values():
                layer.a[index].zero_()
                layer.b[index].zero_()
            self._free.append(index)

    @contextmanager
    def active(self, slots: Sequence[Slot | None]) -> Iterator[None]:
        """Within the block, row i of this thread's forward passes runs with `slots[i]` (`None`: base)."""
        index = [slot.index if slot is not None else 0 for slot in slots]
        if not any(index):
            yield
            return
        device = next(iter(self._modules.values())).weight.device
        self._rows.index = torch.tensor(index, device=device)
        try:
            yield
        finally:
            self._rows.index = None

    def _hook(self, name: str) -> Any:  # Any: torch types forward hooks as Callable[..., Any]
        def add_expert(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
            rows: Tensor | None = getattr(self._rows, "index", None)
            if rows is None:
                return None
            stack = self._stacks[name]
            x = inputs[0]  # (batch, tokens, in)
            low = torch.bmm(x, stack.a[rows].transpose(1, 2))  # (batch, tokens, r)
            return torch.baddbmm(output, low, stack.b[rows].transpose(1, 2))

        return add_expert
