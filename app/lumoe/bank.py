"""The slot bank: live experts' low-rank tensors stacked; each row of a batch has its own expert.

For a linear layer y = W x, slot k adds s_k B_k A_k x (Hu et al. 2021, LoRA; s = alpha / r is folded into B).
Slot 0 is all zeros: the base model. A forward hook per target layer adds the rows' products; there are hooks
only while some batch has an expert, and the module tree is never touched. Registering an expert copies
tensors into a free slot; nothing that runs is disturbed.

There may be more experts than slots. Then those that were used last have the slots, and the others' tensors
wait in host memory (pinned, if the model is on a GPU). A tensor is in one place only.
"""

from __future__ import annotations

import math
import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from app.lumoe.errors import ExpertCorruptError

_FIRST_CAPACITY = 8
_KEPT_GATHERED_BYTES = 256 * 2**20
"""Up to so many bytes an `Activation` keeps the rows' matrices side by side, and gathers them only once."""

Pairs = dict[str, tuple[Tensor, Tensor]]
"""By layer, A^T (in, r) and s B^T (r, out): laid out as they are multiplied."""


class Slot:
    """An expert in the bank, for as long as anybody keeps this handle.

    `index` is its place in the stacks; None while it waits in host memory.
    """

    __slots__ = ("__weakref__", "_place", "key", "pins", "waiting")

    def __init__(self, key: str, waiting: Pairs, released: list[int]) -> None:
        self.key = key
        self.pins = 0
        self.waiting: Pairs | None = waiting
        self._place: list[int] = []
        weakref.finalize(self, _let_go, self._place, released).atexit = False

    @property
    def index(self) -> int | None:
        """Its place in the stacks, if it has one."""
        return self._place[0] if self._place else None

    @index.setter
    def index(self, place: int | None) -> None:
        self._place[:] = [] if place is None else [place]


class _Layer:
    """One linear layer's stacks: `a` (slots, in, r) and `b` (slots, r, out)."""

    __slots__ = ("a", "b")

    def __init__(self, module: nn.Linear, capacity: int, rank: int) -> None:
        self.a = module.weight.new_zeros(capacity, module.in_features, rank)
        self.b = module.weight.new_zeros(capacity, rank, module.out_features)

    def grown(self, capacity: int, rank: int) -> _Layer:
        larger = object.__new__(_Layer)
        slots, width, old_rank = self.a.shape
        larger.a = self.a.new_zeros(capacity, width, rank)
        larger.b = self.b.new_zeros(capacity, rank, self.b.shape[2])
        larger.a[:slots, :, :old_rank] = self.a
        larger.b[:slots, :old_rank] = self.b
        return larger

    def clear(self, index: int) -> None:
        self.a[index].zero_()
        self.b[index].zero_()


class SlotBank:
    """Stacked experts for one model; every method may be called beside running batches.

    Args:
        layers: the linear layers that experts adapt, by module name.
        rank: the least rank that the stacks are made for; a larger expert makes them larger.
        max_slots: how many experts are on the model's device at once; None for all.
    """

    def __init__(self, layers: Mapping[str, nn.Linear], rank: int = 8, max_slots: int | None = None) -> None:
        self._modules = dict(layers)
        self._rank = rank
        self._slots: weakref.WeakValueDictionary[str, Slot] = weakref.WeakValueDictionary()
        self._recent: OrderedDict[int, weakref.ref[Slot]] = OrderedDict()  # by place, longest unused first
        self._released: list[int] = []
        self._changed = threading.Condition(threading.RLock())
        self.limit(max_slots)
        self._rows = threading.local()
        self._uniform = len({module.weight.dtype for module in self._modules.values()}) == 1
        self.paged_in = 0
        """How many times an expert came back from host memory."""
        self._hooks = {name: self._hook(name) for name in self._modules}
        self._handles: list[RemovableHandle] = []
        self._activations = 0  # that have an expert

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def max_slots(self) -> int | None:
        """How many experts can be active at once; None for any number."""
        return None if self._most is None else self._most - 1

    @property
    def resident(self) -> int:
        """How many experts have a slot now."""
        with self._changed:
            return sum(slot.index is not None for slot in self._slots.values())

    @property
    def nbytes(self) -> int:
        """Bytes that the stacks occupy, free slots included."""
        return sum(
            t.numel() * t.element_size() for layer in self._stacks.values() for t in (layer.a, layer.b)
        )

    @property
    def _device(self) -> torch.device:
        return next(iter(self._modules.values())).weight.device

    def limit(self, max_slots: int | None) -> None:
        """Change how many experts are on the device at once; before any expert is loaded.

        Raises `RuntimeError` afterwards.
        """
        with self._changed:
            if len(self._slots):
                raise RuntimeError("the bank holds experts already")
            self._most = None if max_slots is None else max(1, max_slots) + 1  # slot 0 is the base model's
            self._capacity = min(_FIRST_CAPACITY, self._most or _FIRST_CAPACITY)
            self._stacks = {n: _Layer(m, self._capacity, self._rank) for n, m in self._modules.items()}
            self._free = list(range(1, self._capacity))
            self._released.clear()
            self._recent.clear()

    def reserve(self, more: int) -> None:
        """Make places for `more` experts at once, as far as there may be so many."""
        with self._changed:
            self._reclaim()
            wanted = self._capacity + more - len(self._free)
            wanted = wanted if self._most is None else min(wanted, self._most)
            if wanted > self._capacity:
                self._grow(wanted, self._rank)

    def close(self) -> None:
        """Remove the hooks, if some batch still has an expert; the model is as before the bank was made."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def load(self, key: str, adapter: Mapping[str, tuple[Tensor, Tensor]], scale: float) -> Slot:
        """Take an expert in, or return the handle of the one that is held as `key`.

        `adapter` maps a layer's name to (A (r, in), B (out, r)); `scale` is alpha / r. It goes into a free
        slot, or waits in host memory until it is used. It is gone with the last reference to the handle.
        Raises `ExpertCorruptError` if a layer is unknown or a shape does not fit.
        """
        self._check(key, adapter)
        with self._changed:
            held = self._slots.get(key)
            if held is not None:
                return held
            rank = max((a.shape[0] for a, _ in adapter.values()), default=self._rank)
            if rank > self._rank:
                self._grow(self._capacity, rank)
            slot = Slot(key, {name: (a.T, (b * scale).T) for name, (a, b) in adapter.items()}, self._released)
            self._slots[key] = slot
            place = self._free_place()
            if place is not None:
                self._seat(slot, place)
            elif self._device.type == "cuda":
                slot.waiting = {n: (_pinned(a), _pinned(b)) for n, (a, b) in (slot.waiting or {}).items()}
            else:  # the caller's own tensors are not ours to rely on
                slot.waiting = {n: (a.clone(), b) for n, (a, b) in (slot.waiting or {}).items()}
            return slot

    def _check(self, key: str, adapter: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        if not adapter and key not in self._slots:
            raise ExpertCorruptError(f"expert {key}: its matrices are missing")
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

    # -- places ------------------------------------------------------------------------------------

    def _free_place(self) -> int | None:
        """Return an empty place, made if there may be more."""
        self._reclaim()
        if not self._free and (self._most is None or self._capacity < self._most):
            more = self._capacity + max(_FIRST_CAPACITY, self._capacity // 4)
            self._grow(more if self._most is None else min(more, self._most), self._rank)
        return self._free.pop(0) if self._free else None

    def _grow(self, capacity: int, rank: int) -> None:
        for name, layer in self._stacks.items():  # one by one: never all of them twice
            self._stacks[name] = layer.grown(capacity, rank)
        self._free += list(range(self._capacity, capacity))
        self._capacity, self._rank = capacity, rank

    def _seat(self, slot: Slot, place: int) -> None:
        for name, (a, b) in (slot.waiting or {}).items():
            stack = self._stacks[name]
            stack.a[place, :, : a.shape[1]].copy_(a, non_blocking=True)
            stack.b[place, : b.shape[0]].copy_(b, non_blocking=True)
        slot.index, slot.waiting = place, None
        self._recent[place] = weakref.ref(slot)

    def _reclaim(self) -> None:
        """Clear the places whose experts are gone."""
        while self._released:
            place = self._released.pop()
            del self._recent[place]
            for layer in self._stacks.values():
                layer.clear(place)
            self._free.insert(0, place)

    def _page_out(self) -> int | None:
        """Move the expert that was not used for longest to host memory; None if all are in use."""
        for place, reference in self._recent.items():
            slot = reference()
            if slot is None or slot.pins:
                continue
            pinned = self._device.type == "cuda"
            waiting = {}
            for name, layer in self._stacks.items():
                a, b = layer.a[place].cpu(), layer.b[place].cpu()
                waiting[name] = (_pinned(a), _pinned(b)) if pinned else (a.clone(), b.clone())
                layer.clear(place)
            slot.waiting, slot.index = waiting, None
            del self._recent[place]
            return place
        return None

    def _place(self, slots: Sequence[Slot]) -> bool:
        """Give all of `slots` a place and pin them, or none; the lock is held."""
        self._reclaim()
        wanted = list(dict.fromkeys(slots))
        for slot in wanted:
            slot.pins += 1
        for slot in wanted:
            if slot.index is None:
                place = self._free_place()
                place = self._page_out() if place is None else place
                if place is None:
                    self._unpin(wanted)
                    return False
                self._seat(slot, place)
                self.paged_in += 1
            if slot.index is not None:
                self._recent.move_to_end(slot.index)
        return True

    def _count(self, activations: int) -> None:
        """So many more activations have an expert; the lock is held. Hooks cost a little even when idle."""
        self._activations += activations
        if self._activations == 0:
            self.close()
        elif not self._handles:
            self._handles = [m.register_forward_hook(self._hooks[n]) for n, m in self._modules.items()]

    def _unpin(self, slots: Sequence[Slot]) -> None:
        with self._changed:
            for slot in slots:
                slot.pins -= 1
            self._changed.notify_all()

    # -- use ---------------------------------------------------------------------------------------

    def try_activation(self, slots: Sequence[Slot | None]) -> Activation | None:
        """Return the activation of `slots`, row by row; None if others use too many of the places now.

        Raises `ValueError` for more distinct experts than there are slots.
        """
        named = [slot for slot in slots if slot is not None]
        distinct = len(set(named))
        if self._most is not None and distinct >= self._most:
            raise ValueError(f"{distinct} experts at once, but there are {self._most - 1} slots")
        with self._changed:
            if not self._place(named):
                return None
            return Activation(self, slots)

    def activation(self, slots: Sequence[Slot | None]) -> Activation:
        """As `try_activation`, but wait until there are places enough; the caller must hold none itself."""
        with self._changed:
            while (found := self.try_activation(slots)) is None:
                self._changed.wait()
            return found

    @contextmanager
    def active(self, slots: Sequence[Slot | None]) -> Iterator[None]:
        """Within the block, row i of this thread's forward passes runs with `slots[i]` (`None`: base).

        Raises `ValueError` for more distinct experts than there are slots.
        """
        if not any(slots):
            yield
            return
        activation = self.activation(slots)
        try:
            with activation:
                yield
        finally:
            activation.close()

    def _hook(self, name: str) -> Any:  # Any: torch types forward hooks as Callable[..., Any]
        def add_expert(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
            rows: Activation | None = getattr(self._rows, "now", None)
            if rows is None:
                return None
            a, b = rows.matrices(name)  # (batch, in, r), (batch, r, out)
            return output.baddbmm_(torch.bmm(inputs[0], a), b)

        return add_expert


class Activation:
    """Which expert each row of a batch has, their places kept until `close`; enter it around forward passes.

    The rows' matrices are gathered once and kept, if that does not take too much memory: in one piece and in
    the order in which they are used, because reading them is most of what they cost.
    """

    def __init__(self, bank: SlotBank, slots: Sequence[Slot | None]) -> None:
        self._bank = bank
        self._pinned = list(dict.fromkeys(slot for slot in slots if slot is not None))
        self._idle = not self._pinned
        bank._count(0 if self._idle else 1)
        device = bank._device
        self._index = torch.tensor([slot.index or 0 if slot else 0 for slot in slots], device=device)
        self._keeps = bank._uniform and bank.nbytes // bank._capacity * len(slots) <= _KEPT_GATHERED_BYTES
        self._kept: dict[str, tuple[Tensor, Tensor]] = {}

    def __enter__(self) -> None:
        self._bank._rows.now = None if self._idle else self

    def __exit__(self, *_: object) -> None:
        self._bank._rows.now = None

    def close(self) -> None:
        """Give the places free."""
        with self._bank._changed:
            self._bank._unpin(self._pinned)
            self._bank._count(0 if self._idle else -1)
            self._pinned, self._idle, self._kept = [], True, {}

    def matrices(self, name: str) -> tuple[Tensor, Tensor]:
        """Return the rows' A^T (batch, in, r) and B^T (batch, r, out) of one layer."""
        if self._keeps and not self._kept:
            self._kept = self._gathered()
        if self._kept:
            return self._kept[name]
        stack = self._bank._stacks[name]
        return stack.a[self._index], stack.b[self._index]

    def _gathered(self) -> dict[str, tuple[Tensor, Tensor]]:
        layers = dict(self._bank._stacks)  # as they are now: others may grow
        shapes = [(len(self._index), *t.shape[1:]) for layer in layers.values() for t in (layer.a, layer.b)]
        sizes = [math.prod(shape) for shape in shapes]
        whole = self._index.new_empty(sum(sizes), dtype=next(iter(layers.values())).a.dtype)
        pieces = iter(
            [part.view(shape) for part, shape in zip(torch.split(whole, sizes), shapes, strict=True)]
        )

        def gathered(stack: Tensor) -> Tensor:
            return torch.index_select(stack, 0, self._index, out=next(pieces))

        return {name: (gathered(layer.a), gathered(layer.b)) for name, layer in layers.items()}


def _let_go(place: list[int], released: list[int]) -> None:
    """Note the place of an expert that is gone. The garbage collector calls: there is no lock to take."""
    released.extend(place)


def _pinned(tensor: Tensor) -> Tensor:
    return tensor.cpu().contiguous().pin_memory()
