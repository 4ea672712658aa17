"""A running batch that rows join and leave between two tokens.

Rows are left-padded to one width, as in `MLLM.generate`; new ones are read in one pass of their own and their
keys and values put beside those of the others. Row by row the tokens are those that the row gets alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import DynamicCache, RepetitionPenaltyLogitsProcessor
from transformers.cache_utils import DynamicLayer

from app.lumoe.bank import Activation, Slot, SlotBank
from app.lumoe.errors import ConversationTooLongError
from app.lumoe.kvcache import RunningLayer
from app.lumoe.mllm import MLLM
from app.lumoe.sampling import GREEDY, Draw, Sampling
from app.lumoe.types import Conversation, Generation

_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "guidance_scale": (1,),
    "sequence_bias": (),
    "encoder_repetition_penalty": (1,),
    "no_repeat_ngram_size": (0,),
    "encoder_no_repeat_ngram_size": (0,),
    "bad_words_ids": (),
    "min_length": (0,),
    "min_new_tokens": (0,),
    "forced_bos_token_id": (),
    "forced_eos_token_id": (),
    "remove_invalid_values": (False,),
    "exponential_decay_length_penalty": (),
    "suppress_tokens": ([],),
    "begin_suppress_tokens": ([],),
    "watermarking_config": (),
    "stop_strings": (),
    "cache_implementation": (),
    "prompt_lookup_num_tokens": (),
    "num_beams": (1,),
}
"""What a model's generation settings may say, besides None, for `Decoding` to do as `generate` does."""

_WORTH_A_PASS = 64
"""Tokens of padding. Reading the weights once more takes as long as about 25 tokens."""


class Writing:
    """One row: what it answers, who writes, and who reads along.

    Args:
        mllm: the model that writes.
        conversation: what is answered.
        slot: the expert that writes; None for the base model.
        limit: how many tokens it must have room for.
        lookahead: how many more are written, as far as the context has room.
        push: takes each token; returning false ends the row.
        sampling: how tokens are chosen.

    Raises `ConversationTooLongError`.
    """

    def __init__(
        self,
        mllm: MLLM,
        conversation: Conversation,
        slot: Slot | None,
        *,
        limit: int,
        lookahead: int = 0,
        push: Callable[[int], bool] | None = None,
        sampling: Sampling = GREEDY,
    ) -> None:
        self.slot = slot
        self.ids, self.image_tokens = mllm.prompt(conversation)
        room = mllm.max_tokens - len(self.ids)
        if limit > room:
            raise ConversationTooLongError(len(self.ids) + limit, mllm.max_tokens)
        self._most = max(limit, min(limit + lookahead, room))
        self._push = push
        self._eos = mllm.eos_ids
        self.draw = None if sampling.greedy else Draw(sampling)
        self.tokens: list[int] = []
        self.reason: Literal["stop", "length", "cancelled"] | None = None
        self.error: Exception | None = None
        """What whoever reads along stumbled over."""

    def cancel(self) -> None:
        """End the row at the next token."""
        self.reason = self.reason or "cancelled"

    def take(self, token: int) -> None:
        """Add a token; `reason` says afterwards whether the row has ended."""
        if self.reason is not None:
            return
        if token in self._eos:
            self.reason = "stop"
            return
        self.tokens.append(token)
        if not self._wanted(token):
            self.reason = "cancelled"
        elif len(self.tokens) >= self._most:
            self.reason = "length"

    def _wanted(self, token: int) -> bool:
        try:
            return self._push is None or self._push(token)
        except Exception as error:
            self.error = error
            return False

    def generation(self, mllm: MLLM) -> Generation:
        """Return what was written."""
        return Generation(
            mllm.decode(self.tokens), tuple(self.tokens), self.reason or "cancelled", len(self.ids)
        )


class Decoding:
    """The running batch of one model. One thread uses it."""

    def __init__(self, mllm: MLLM, bank: SlotBank) -> None:
        self._mllm, self._bank = mllm, bank
        penalty = _setting(mllm, "repetition_penalty")
        self._penalty = RepetitionPenaltyLogitsProcessor(float(penalty)) if penalty not in (None, 1) else None
        self.rows: list[Writing] = []
        self._mask = torch.zeros(0, 0, dtype=torch.long, device=mllm.device)  # (rows, width)
        self._cache: Any = None  # Any: transformers types a cache's layers as any kind
        self._last: list[int] = []
        self._activation: Activation | None = None

    @staticmethod
    def possible(mllm: MLLM) -> bool:
        """Whether rows of this model can join, and get what `generate` would have written.

        Every layer must keep all keys and values and nothing else, a token's position be its number in the
        row, and the model's generation settings ask for nothing but a repetition penalty.
        """
        config = mllm.network.config.get_text_config(decoder=True)
        layers = DynamicCache(config=config).layers
        plain = all(_setting(mllm, key) in (None, *neutral) for key, neutral in _NEUTRAL.items())
        turned = any(hasattr(module, "get_rope_index") for module in mllm.network.modules())
        typed = getattr(mllm.processor, "return_mm_token_type_ids", False)
        return plain and not turned and not typed and all(type(layer) is DynamicLayer for layer in layers)

    def clear(self) -> None:
        """Forget all rows."""
        self.rows, self._last, self._cache = [], [], None
        self._mask = torch.zeros(0, 0, dtype=torch.long, device=self._mllm.device)
        if self._activation is not None:
            self._activation.close()
            self._activation = None

    @torch.inference_mode()
    def join(self, rows: Sequence[Writing]) -> list[Writing]:
        """Read the prompts of `rows`, write their first tokens, and return those that cannot join yet.

        Those would need more experts at once than there are slots.
        """
        joining, left = self._fitting(rows)
        for part in self._alike(joining):
            if not self._read(part):
                left += part
        return left

    def _alike(self, rows: Sequence[Writing]) -> list[list[Writing]]:
        """Return the rows in one pass, or in two if that saves enough of what shorter ones are padded with.

        On a CPU alone: a GPU reads padding in less time than a second pass takes.
        """
        ordered = sorted(rows, key=lambda row: len(row.ids))
        if self._mllm.device.type != "cpu" or len(rows) < 2:
            return [list(rows)] if rows else []
        saved = [i * (len(ordered[-1].ids) - len(ordered[i - 1].ids)) for i in range(1, len(ordered))]
        at = max(range(len(saved)), key=saved.__getitem__) + 1
        return [ordered[:at], ordered[at:]] if saved[at - 1] >= _WORTH_A_PASS else [list(rows)]

    def _read(self, joining: list[Writing]) -> bool:
        """Read the prompts of `joining` in one pass; false if their experts have no slots now."""
        activation = self._bank.try_activation([row.slot for row in joining])
        if activation is None:
            return False
        alone = not self.rows
        try:
            width = max(len(row.ids) for row in joining)
            pad = self._mllm.pad_id
            ids = torch.tensor([[pad] * (width - len(r.ids)) + r.ids for r in joining])
            mask = torch.tensor([[0] * (width - len(r.ids)) + [1] * len(r.ids) for r in joining])
            mask = mask.to(self._mllm.device)
            with activation:
                output = self._mllm.read(
                    ids, mask, image_tokens=[t for row in joining for t in row.image_tokens]
                )
            last = self._choose(joining, output.logits[:, -1])
        except BaseException:
            activation.close()
            raise
        self._merge(joining, output.past_key_values, mask, last)
        if alone:
            self._activation = activation
        else:
            activation.close()
            self._regroup()
        self._leave()
        return True

    @torch.inference_mode()
    def step(self) -> None:
        """Write one more token of every row; rows that have ended leave."""
        if not self.rows:
            return
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(self.rows), 1)], 1)
        if self._activation is None:
            self._activation = self._bank.activation([row.slot for row in self.rows])
        with self._activation:
            output = self._mllm.read(torch.tensor(self._last)[:, None], self._mask, past=self._cache)
        self._last = self._choose(self.rows, output.logits[:, -1])
        self._leave()

    def _fitting(self, rows: Sequence[Writing]) -> tuple[list[Writing], list[Writing]]:
        most = self._bank.max_slots
        used = {row.slot for row in self.rows if row.slot is not None}
        joining: list[Writing] = []
        left: list[Writing] = []
        for row in rows:
            if row.slot is None or most is None or row.slot in used or len(used) < most:
                joining.append(row)
                used |= {row.slot} if row.slot is not None else set()
            else:
                left.append(row)
        return joining, left

    def _choose(self, rows: Sequence[Writing], logits: Tensor) -> list[int]:
        """Choose each row's next token from `logits` (rows, vocab) and hand it on."""
        scores = logits.float()
        if self._penalty is not None:
            for i, row in enumerate(rows):
                seen = torch.tensor([row.ids + row.tokens], device=scores.device)
                scores[i : i + 1] = self._penalty(seen, scores[i : i + 1])
        tokens: list[int] = scores.argmax(-1).tolist()
        for i, row in enumerate(rows):
            if row.draw is not None:
                tokens[i] = row.draw.token(scores[i])
            row.take(tokens[i])
        return tokens

    def _merge(self, rows: Sequence[Writing], cache: Any, mask: Tensor, last: Sequence[int]) -> None:
        if not self.rows:
            cache.layers = [RunningLayer([layer]) for layer in cache.layers]
            self._cache, self._mask = cache, mask
        else:
            width = max(self._mask.shape[1], mask.shape[1])
            pairs = zip(self._cache.layers, cache.layers, strict=True)
            self._cache.layers = [RunningLayer(pair) for pair in pairs]
            pads = [torch.nn.functional.pad(m, (width - m.shape[1], 0)) for m in (self._mask, mask)]
            self._mask = torch.cat(pads)
        self.rows += rows
        self._last += last

    def _leave(self) -> None:
        """Drop the rows that have ended, and the columns that nobody needs any more."""
        kept = [i for i, row in enumerate(self.rows) if row.reason is None]
        if len(kept) == len(self.rows):
            return
        if not kept:
            self.clear()
            return
        chosen = torch.tensor(kept, device=self._mask.device)
        self._mask = self._mask[chosen]
        empty = int((self._mask.sum(0).cumsum(0) == 0).sum())
        self._mask = self._mask[:, empty:]
        for layer in self._cache.layers:
            layer.keep(chosen, empty)
        self.rows = [self.rows[i] for i in kept]
        self._last = [self._last[i] for i in kept]
        self._regroup()

    def _regroup(self) -> None:
        """Have the places of the rows' experts kept, before those of the rows that left are given free."""
        before = self._activation
        self._activation = self._bank.try_activation([row.slot for row in self.rows])
        if before is not None:
            before.close()


def _setting(mllm: MLLM, name: str) -> Any:
    return getattr(mllm.network.generation_config, name, None)
