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
    """Writes rows greedily, each with its own expert or with the base model."""

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
    ) -> list[Generation]:
        """Write row i with the expert `held[i]`, or with the base model where that is None.

        As `MLLM.generate`: up to `lookahead` tokens beyond the limit, and `sink` sees every token as it
        comes and may end a row. Raises `ConversationTooLongError`.
        """


class LocalWriter:
    """The model in this process, with its slot bank; see `Writer`."""

    def __init__(self, mllm: MLLM) -> None:
        self._mllm = mllm
        self._bank = bank_of(mllm)

    def hold(self, experts: Sequence[LoadedExpert]) -> list[Held]:
        """Copy `experts` into slots; a slot is free again when its handle is gone."""
        return [self._bank.load(expert.key, expert.adapter, expert.scale) for expert in experts]

    def write(
        self,
        conversations: Sequence[Conversation],
        held: Sequence[Held | None],
        *,
        max_new_tokens: int,
        lookahead: int = 0,
        sink: TokenSink | None = None,
    ) -> list[Generation]:
        """Write all rows in one batch; see `Writer.write`."""
        with self._bank.active([_slot(handle) for handle in held]):
            return self._mllm.generate(
                conversations, max_new_tokens=max_new_tokens, lookahead=lookahead, sink=sink
            )

    def token_nlls(
        self, conversations: Sequence[Conversation], held: Sequence[Held | None], answers: Sequence[str]
    ) -> list[list[float]]:
        """Return `MLLM.token_nlls` of row i's answer under the expert `held[i]`; one batch."""
        with self._bank.active([_slot(handle) for handle in held]):
            return self._mllm.token_nlls(conversations, answers)


def _slot(held: Held | None) -> Slot | None:
    if held is not None and not isinstance(held, Slot):
        raise TypeError(f"{held.key} is held by another writer")
    return held
