"""Who writes what the router has decided: this process's own model, or replicas elsewhere.

The router asks a writer to hold experts and to write rows; gate, guard and the rows' rules are the router's
alone and know nothing of where the tokens come from.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Protocol
from weakref import WeakKeyDictionary

from app.lumoe.bank import Slot, SlotBank
from app.lumoe.expert import LoadedExpert
from app.lumoe.mllm import MLLM, target_linears
from app.lumoe.sampling import Sampling
from app.lumoe.steering import TokenSink
from app.lumoe.types import Conversation, Generation

_banks: WeakKeyDictionary[MLLM, SlotBank] = WeakKeyDictionary()
_banks_lock = threading.Lock()


def bank_of(mllm: MLLM) -> SlotBank:
    """Return the slot bank of `mllm`, made on first use."""
    with _banks_lock:
        if mllm not in _banks:
            _banks[mllm] = SlotBank(target_linears(mllm.network))
        return _banks[mllm]


class Held(Protocol):
    """An expert that a writer can write with, for as long as somebody keeps this handle."""

    @property
    def key(self) -> str:
        """The immutable name of the expert's version."""


class Writer(Protocol):
    """Writes rows, each with its own expert or with the base model."""

    def hold(self, experts: Sequence[LoadedExpert]) -> list[Held]:
        """Make `experts` usable and return their handles, in order; all of them or none.

        Raises `ExpertCorruptError` for one that does not fit the model.
        """

    def write(
        self,
        conversations: Sequence[Conversation],
        held: Sequence[Held | None],
        *,
        max_new_tokens: int,
        lookahead: int = 0,
        sink: TokenSink | None = None,
        samplings: Sequence[Sampling] = (),
    ) -> list[Generation]:
        """Write row i with the expert `held[i]`, or with the base model where that is None.

        As `MLLM.generate`: greedily unless `samplings` says otherwise, up to `lookahead` tokens beyond the
        limit, and `sink` sees every token as it comes and may end a row. Raises `ConversationTooLongError`.
        """


class LocalWriter:
    """The model in this process, with its slot bank; see `Writer`."""

    def __init__(self, mllm: MLLM) -> None:
        self._mllm = mllm
        self._bank = bank_of(mllm)

    @property
    def bank(self) -> SlotBank:
        """Where the experts are."""
        return self._bank

    def hold(self, experts: Sequence[LoadedExpert]) -> list[Held]:
        """Copy `experts` into slots; a slot is free again when its handle is gone."""
        if len(experts) > 1:
            self._bank.reserve(len(experts))
        return [self._bank.load(expert.key, expert.adapter, expert.scale) for expert in experts]

    def write(
        self,
        conversations: Sequence[Conversation],
        held: Sequence[Held | None],
        *,
        max_new_tokens: int,
        lookahead: int = 0,
        sink: TokenSink | None = None,
        samplings: Sequence[Sampling] = (),
    ) -> list[Generation]:
        """Write all rows in one batch, or in several if it has more experts than there are slots."""
        found: list[Generation | None] = [None] * len(conversations)
        for rows in self._groups(held):
            with self._bank.active([slot_of(held[i]) for i in rows]):
                written = self._mllm.generate(
                    [conversations[i] for i in rows],
                    max_new_tokens=max_new_tokens,
                    lookahead=lookahead,
                    sink=_renumbered(rows, sink),
                    samplings=[samplings[i] for i in rows] if samplings else (),
                )
            for i, generation in zip(rows, written, strict=True):
                found[i] = generation
        return [generation for generation in found if generation is not None]

    def token_nlls(
        self, conversations: Sequence[Conversation], held: Sequence[Held | None], answers: Sequence[str]
    ) -> list[list[float]]:
        """Return `MLLM.token_nlls` of row i's answer under the expert `held[i]`; batches as `write`'s."""
        found: list[list[float]] = [[] for _ in conversations]
        for rows in self._groups(held):
            with self._bank.active([slot_of(held[i]) for i in rows]):
                values = self._mllm.token_nlls([conversations[i] for i in rows], [answers[i] for i in rows])
            for i, value in zip(rows, values, strict=True):
                found[i] = value
        return found

    def _groups(self, held: Sequence[Held | None]) -> list[list[int]]:
        """Return the rows of each batch: as many as there are slots for their experts."""
        most = self._bank.max_slots
        groups: list[list[int]] = [[]] if held else []
        used: set[Slot] = set()
        for i, handle in enumerate(held):
            slot = slot_of(handle)
            if slot is not None and slot not in used and most is not None and len(used) >= most:
                groups.append([])
                used = set()
            if slot is not None:
                used.add(slot)
            groups[-1].append(i)
        return groups


def _renumbered(rows: Sequence[int], sink: TokenSink | None) -> TokenSink | None:
    return (lambda i, token: sink(rows[i], token)) if sink is not None else None


def slot_of(held: Held | None) -> Slot | None:
    """Return the slot that a handle of `LocalWriter` is. Raises `TypeError` for another writer's."""
    if held is not None and not isinstance(held, Slot):
        raise TypeError(f"{held.key} is held by another writer")
    return held
