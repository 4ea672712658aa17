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
import time
import weakref
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from app.lumoe.errors import ExpertCorruptError

_FIRST_CAPACITY = 8
_FEW_FREE = 4
"""With fewer free places than this, more are made ahead."""
_KEPT_GATHERED_BYTES = 256 * 2**20
"""Up to so many bytes an `Activation` keeps its matrices side by side, and gathers them only once."""
_MOST_FILLED = 2
"""Rows that share experts are not brought together if that takes more than so many times as many rows."""
_TURNED_FROM = 12
"""From so many vectors a matrix, a CPU is faster with A^T x^T: measured 1.9 times at 12, 3.5 times at 48."""

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
        slots, width, old_rank = self.a.shape
        if slots >= capacity and old_rank >= rank:
            return self
        capacity, rank = max(slots, capacity), max(old_rank, rank)
        larger = object.__new__(_Layer)
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
        self._spare: Tensor | None = (
            None  # what an activation gathered into, for the next: new memory is slow
        )

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

    @property
    def short(self) -> bool:
        """Whether few places are left, and there may be more: then `extend` pays."""
        with self._changed:
            return len(self._free) < _FEW_FREE and self._larger > self._capacity

    def extend(self) -> None:
        """Make more places before the last one is taken, beside running batches: one layer after another.

        Whoever needs the bank waits for one layer at most, and between two of them this thread rests as long
        as it copied.
        """
        with self._changed:
            capacity = self._larger
        for name in self._modules:
            began = time.perf_counter()
            with self._changed:
                self._stacks[name] = self._stacks[name].grown(capacity, self._rank)
            time.sleep(time.perf_counter() - began)
        with self._changed:
            self._grow(capacity, self._rank)

    @property
    def _larger(self) -> int:
        """The capacity that comes next."""
        more = self._capacity + max(_FIRST_CAPACITY, self._capacity // 4)
        return more if self._most is None else min(more, self._most)

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
        if not self._free and self._larger > self._capacity:
            self._grow(self._larger, self._rank)
        return self._free.pop(0) if self._free else None

    def _grow(self, capacity: int, rank: int) -> None:
        for name, layer in self._stacks.items():  # one by one: never all of them twice
            self._stacks[name] = layer.grown(capacity, rank)
        self._free += list(range(self._capacity, capacity))
        self._capacity, self._rank = max(self._capacity, capacity), rank

    def _seat(self, slot: Slot, place: int) -> None:
        for name, (a, b) in (slot.waiting or {}).items():
            stack = self._stacks[name]
            stack.a[place, :, : a.shape[1]].copy_(a, non_blocking=True)
            stack.b[place, : b.shape[0]].copy_(b, non_blocking=True)
        slot.index, slot.waiting = place, None
        self._recent[place] = weakref.ref(slot)

    def _reclaim(self) -> None:
        """Clear the places whose experts are gone."""
        if self._released:
            self._spare = None  # what is gone must not lie there either
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

    def _take_piece(self, size: int, dtype: torch.dtype) -> Tensor:
        """Return memory for `size` elements; what it holds means nothing."""
        with self._changed:
            spare, self._spare = self._spare, None
        if spare is not None and spare.numel() >= size and spare.dtype == dtype:
            return spare
        with torch.inference_mode(False):  # outside of that mode nobody may write to what was made in it
            return torch.empty(size, dtype=dtype, device=self._device)

    def _give_piece(self, piece: Tensor | None) -> None:
        """Keep the larger of the pieces for the next activation; the lock is held."""
        if piece is not None and (self._spare is None or self._spare.numel() < piece.numel()):
            self._spare = piece

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
            return rows.add(name, inputs[0], output)

        return add_expert


class Activation:
    """Which expert each row of a batch has, their places kept until `close`; enter it around forward passes.

    The matrices are gathered once and kept, if that does not take too much memory: in one piece and in the
    order in which they are used, because reading them is most of what they cost. Rows that share an expert
    read its matrices once.
    """

    def __init__(self, bank: SlotBank, slots: Sequence[Slot | None]) -> None:
        self._bank = bank
        self._pinned = list(dict.fromkeys(slot for slot in slots if slot is not None))
        self._idle = not self._pinned
        bank._count(0 if self._idle else 1)
        places = [slot.index or 0 if slot else 0 for slot in slots]
        self._sharing = _Sharing.of(places, bank._device)
        gathered = self._sharing.places if self._sharing else places
        self._index = torch.tensor(gathered, device=bank._device)
        self._keeps = bank._uniform and bank.nbytes // bank._capacity * len(gathered) <= _KEPT_GATHERED_BYTES
        self._kept: dict[str, tuple[Tensor, Tensor]] = {}
        self._piece: Tensor | None = None

    def __enter__(self) -> None:
        self._bank._rows.now = None if self._idle else self

    def __exit__(self, *_: object) -> None:
        self._bank._rows.now = None

    def close(self) -> None:
        """Give the places free."""
        with self._bank._changed:
            self._bank._unpin(self._pinned)
            self._bank._count(0 if self._idle else -1)
            self._bank._give_piece(self._piece)
            self._pinned, self._idle, self._kept, self._piece = [], True, {}, None

    def add(self, name: str, x: Tensor, y: Tensor) -> Tensor:
        """Add what the rows' experts make of x (batch, t, in) to a layer's output y (batch, t, out)."""
        a, b = self._matrices(name)
        if self._sharing is not None:
            return self._sharing.add(x, a, b, y)
        return y.baddbmm_(_down(x, a), b)

    def _matrices(self, name: str) -> tuple[Tensor, Tensor]:
        """Return a layer's A^T (g, in, r) and B^T (g, r, out), one a row, or one an expert if rows share."""
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
        self._piece = self._bank._take_piece(sum(sizes), next(iter(layers.values())).a.dtype)
        parts = torch.split(self._piece[: sum(sizes)], sizes)
        pieces = iter([part.view(shape) for part, shape in zip(parts, shapes, strict=True)])

        def gathered(stack: Tensor) -> Tensor:
            return torch.index_select(stack, 0, self._index, out=next(pieces))

        return {name: (gathered(layer.a), gathered(layer.b)) for name, layer in layers.items()}


@dataclass(frozen=True, slots=True)
class _Sharing:
    """Rows that share experts: how each expert's matrices are read once for all of its rows.

    Args:
        places: the places of the distinct experts, and 0 at the end if some row has none.
        groups: how many of them are experts.
        group: (batch) by row, which of `places` it has.
        order: (groups * most) rows, expert by expert; smaller groups are filled up with a row of theirs.
        rows: (n) the rows that have an expert; None if a single expert has all rows.
        positions: (n) where each of them is found in `order`.
    """

    places: list[int]
    groups: int
    group: Tensor
    order: Tensor
    rows: Tensor | None
    positions: Tensor

    @staticmethod
    def of(places: Sequence[int], device: torch.device) -> _Sharing | None:
        """Return how the rows share the experts at `places` (0: none); None if that is not worth it."""
        members: dict[int, list[int]] = {}
        for row, place in enumerate(places):
            if place:
                members.setdefault(place, []).append(row)
        groups = list(members.values())
        n, most = sum(map(len, groups)), max(map(len, groups), default=0)
        if not groups or n < 2 * len(groups) or len(groups) * most > _MOST_FILLED * n:
            return None
        at = {row: i * most + j for i, group in enumerate(groups) for j, row in enumerate(group)}
        with_expert = sorted(at)

        def tensor(values: Sequence[int]) -> Tensor:
            return torch.tensor(values, device=device)

        return _Sharing(
            places=[*members, *([0] if n < len(places) else [])],
            groups=len(groups),
            group=tensor([at[row] // most if row in at else len(groups) for row in range(len(places))]),
            order=tensor([row for group in groups for row in (group + group[:1] * most)[:most]]),
            rows=tensor(with_expert) if len(groups) > 1 or n < len(places) else None,
            positions=tensor([at[row] for row in with_expert]),
        )

    def add(self, x: Tensor, a: Tensor, b: Tensor, y: Tensor) -> Tensor:
        """See `Activation.add`; a (g, in, r) and b (g, r, out) are those of `places`."""
        if self.rows is None:
            y.view(1, -1, y.shape[-1]).baddbmm_(_down(x.reshape(1, -1, x.shape[-1]), a), b)
            return y
        if x.shape[1] > a.shape[-1]:  # a row's vectors are more than its matrices: bring these to those
            return y.baddbmm_(_down(x, a[self.group]), b[self.group])
        together = x[self.order].view(self.groups, -1, x.shape[-1])
        added = torch.bmm(_down(together, a[: self.groups]), b[: self.groups])
        return y.index_add_(0, self.rows, added.view(-1, *y.shape[1:])[self.positions])


def _down(x: Tensor, a: Tensor) -> Tensor:
    """Return x (g, n, in) times a (g, in, r)."""
    if x.shape[1] >= _TURNED_FROM and x.device.type == "cpu":
        return torch.bmm(a.transpose(1, 2), x.transpose(1, 2)).transpose(1, 2)
    return torch.bmm(x, a)


def _let_go(place: list[int], released: list[int]) -> None:
    """Note the place of an expert that is gone. The garbage collector calls: there is no lock to take."""
    released.extend(place)


def _pinned(tensor: Tensor) -> Tensor:
    return tensor.cpu().contiguous().pin_memory()
