"""The router: gate, slot bank, base model and guard of one registry generation, immutable.

A new generation is a new router that shares the slots of the old one; conversations that are being answered
finish on the generation they started with.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from weakref import WeakKeyDictionary

from app.lumoe.bank import Slot, SlotBank
from app.lumoe.enumerations import without_item
from app.lumoe.errors import ExpertCorruptError, UnknownExpertError
from app.lumoe.expert import LoadedExpert
from app.lumoe.gate.canonical import canonicalise
from app.lumoe.gate.gate import Gate
from app.lumoe.guard import FALLBACK_REFUSALS, Guard, GuardHit
from app.lumoe.interim import InterimEntry
from app.lumoe.mllm import MLLM, target_linears
from app.lumoe.parts import parts_of
from app.lumoe.types import Answer, Conversation, Decision, Generation

TextSink = Callable[[int, str], bool]
"""Called with (row, text that may leave now); returning false cancels that row."""

_banks: WeakKeyDictionary[MLLM, SlotBank] = WeakKeyDictionary()
_banks_lock = threading.Lock()


def bank_of(mllm: MLLM) -> SlotBank:
    """Return the slot bank of `mllm`, made on first use."""
    with _banks_lock:
        if mllm not in _banks:
            _banks[mllm] = SlotBank(target_linears(mllm.network))
        return _banks[mllm]


class Router:
    """Answers conversations as one registry generation says; see the module's docstring."""

    def __init__(
        self,
        mllm: MLLM,
        experts: Sequence[LoadedExpert],
        slots: dict[str, Slot],
        generation: int,
        interim: Sequence[InterimEntry] = (),
        gate: Gate | None = None,
    ) -> None:
        self.mllm = mllm
        self.generation = generation
        self.experts = {expert.expert_id: expert for expert in experts}
        self.interim = {entry.expert_id: entry for entry in interim if entry.expert_id not in self.experts}
        self._slots = slots
        self._bank = bank_of(mllm)
        records = {expert.expert_id: expert.gate for expert in experts}
        records |= {key: entry.record for key, entry in self.interim.items()}
        self.gate = gate.evolved(records) if gate is not None else Gate(mllm, records)
        self.guard = Guard(records, self.gate.names)

    @classmethod
    def build(
        cls,
        mllm: MLLM,
        experts: Sequence[LoadedExpert] = (),
        generation: int = 0,
        interim: Sequence[InterimEntry] = (),
        previous: Router | None = None,
    ) -> Router:
        """Load `experts` into slots; `interim` subjects are refused until they have an expert among these.

        What `previous`, a router of the same base model, has in common with this one is not made again.
        Raises `ExpertCorruptError` for an expert that was made for another model.
        """
        bank = bank_of(mllm)
        slots = {}
        for expert in experts:
            if expert.model_fingerprint != mllm.fingerprint:
                raise ExpertCorruptError(
                    f"expert {expert.key} was trained for model {expert.model_fingerprint[:12]}, "
                    f"this one is {mllm.fingerprint[:12]}"
                )
            slots[expert.expert_id] = bank.load(expert.key, expert.adapter, expert.scale)
        gate = previous.gate if previous is not None and previous.mllm is mllm else None
        return cls(mllm, experts, slots, generation, interim, gate)

    def with_expert(self, expert: LoadedExpert, generation: int | None = None) -> Router:
        """Return a router that also serves `expert`, in place of an older version of it."""
        others = [held for key, held in self.experts.items() if key != expert.expert_id]
        return Router.build(
            self.mllm,
            [*others, expert],
            self.generation if generation is None else generation,
            list(self.interim.values()),
            previous=self,
        )

    def decide(self, conversations: Sequence[Conversation]) -> list[Decision]:
        """Return who answers each conversation, with the evidence."""
        return self.gate.decide(conversations)

    def answer(
        self,
        conversations: Sequence[Conversation],
        *,
        max_new_tokens: int | Sequence[int] = 64,
        force: str | None = None,
        on_text: TextSink | None = None,
    ) -> list[Answer]:
        """Answer through the real path: gate, then expert or base model, then guard; all rows in one batch.

        `force` answers with that expert whatever the gate says. `on_text` receives the text as it may leave,
        row by row; the pieces add up to the answer's text.
        Raises `UnknownExpertError`, `ConversationTooLongError`.
        """
        if force is not None and force not in self._slots:
            raise UnknownExpertError(f"expert {force} is not in generation {self.generation}")
        decisions = [Decision(force) for _ in conversations] if force else self.decide(conversations)
        limits = (
            [max_new_tokens] * len(conversations) if isinstance(max_new_tokens, int) else list(max_new_tokens)
        )
        parts = [
            self._parts(c, d) if not force else [(c, d)]
            for c, d in zip(conversations, decisions, strict=True)
        ]
        rows = [
            [
                _Row(self, i, c, d, max(1, limits[i] // len(part)), on_text if len(part) == 1 else None)
                for c, d in part
            ]
            for i, part in enumerate(parts)
        ]
        self._answer([row for part in rows for row in part])
        answers = [[row.answer() for row in part] for part in rows]
        whole = [_joined(some, decision) for some, decision in zip(answers, decisions, strict=True)]
        for i, (some, answer) in enumerate(zip(answers, whole, strict=True)):
            if on_text is not None and len(some) > 1:
                on_text(i, answer.text)
        return whole

    def _parts(self, conversation: Conversation, decision: Decision) -> list[tuple[Conversation, Decision]]:
        """Take apart a turn that asks about a subject and about something else: each part has its own answer.

        So two subjects have two experts, never an average of them, and what concerns nobody is answered if it
        is a question in words; a picture belongs to all of the turn.
        """
        last = conversation[-1]
        texts = parts_of(last.text) if decision.expert_id is not None and not last.images else []
        if len(texts) < 2:
            return [(conversation, decision)]
        found: list[tuple[str, Decision]] = []
        decided = self.decide([(*conversation[:-1], replace(last, text=text)) for text in texts])
        for text, own in zip(texts, decided, strict=True):
            if found and (
                found[-1][1].expert_id == own.expert_id or _dangles(text, own) or _dangles(*found[-1])
            ):
                before, other = found[-1]
                found[-1] = f"{before} {text}", own if other.expert_id is None else other
            else:
                found.append((text, own))
        if len(found) < 2:
            return [(conversation, decision)]
        return [((*conversation[:-1], replace(last, text=text)), own) for text, own in found]

    def _answer(self, rows: Sequence[_Row]) -> None:
        """Write all rows: the refused first, the others in one batch, the caught again with their expert."""
        refused = [row for row in rows if row.decision.expert_id in self.interim]
        for row in refused:  # first: there is nothing to wait for
            row.refuse()
        written = [row for row in rows if row not in refused]
        self._write(written, [row.decision.expert_id for row in written])
        for row in written:
            row.keep_list()
        caught = [row for row in written if row.hit is not None and not row.sent and row.may_retry]
        for row in caught:
            row.restart()
        self._write(caught, [row.rerouted_to for row in caught])

    def _write(self, rows: Sequence[_Row], experts: Sequence[str | None]) -> None:
        if not rows:
            return
        watched = any(row.streams for row in rows) or len({row.limit for row in rows}) > 1
        with self._bank.active([self._slots[e] if e is not None else None for e in experts]):
            generations = self.mllm.generate(
                [row.conversation for row in rows],
                max_new_tokens=max(row.limit for row in rows),
                sink=(lambda i, token: rows[i].push(token)) if watched else None,
            )
        for row, expert, generation in zip(rows, experts, generations, strict=True):
            row.finish(generation, expert)


def _dangles(text: str, decision: Decision) -> bool:
    """Whether a part concerns nobody and asks nothing: it goes with the part beside it."""
    return decision.expert_id is None and not text.endswith("?")


def _joined(answers: Sequence[Answer], decision: Decision) -> Answer:
    """Return the answer to a turn that was answered in parts."""
    if len(answers) == 1:
        return answers[0]
    return replace(
        answers[0],
        text=" ".join(answer.text for answer in answers if answer.text),
        token_ids=tuple(token for answer in answers for token in answer.token_ids),
        decision=decision,
        guarded=any(answer.guarded for answer in answers),
        finish_reason="length" if any(a.finish_reason == "length" for a in answers) else "stop",
        answered_by=next((a.answered_by for a in answers if a.answered_by is not None), None),
        prompt_tokens=sum(answer.prompt_tokens for answer in answers),
    )


class _Row:
    """One conversation being answered: its tokens so far, what has left, and what the guard caught."""

    def __init__(
        self,
        router: Router,
        index: int,
        conversation: Conversation,
        decision: Decision,
        limit: int,
        sink: TextSink | None,
    ) -> None:
        self._router = router
        self._index = index
        self._sink = sink
        self.conversation = conversation
        self.decision = decision
        self.limit = limit
        self.hit: GuardHit | None = None
        self.sent = ""
        self.rerouted_to: str | None = None
        self._guarded = False
        self._gone = False
        self._tokens: list[int] = []
        self._generation = Generation("", (), "cancelled")
        self._by: str | None = decision.expert_id
        self._watch = decision.watch | ({decision.expert_id} if decision.expert_id else frozenset())
        self._asked = canonicalise(" ".join(message.text for message in conversation)).text

    @property
    def streams(self) -> bool:
        """Whether somebody reads along while the text is written."""
        return self._sink is not None

    @property
    def may_retry(self) -> bool:
        """The base model's answer concerned a subject: that subject's expert, if any, answers instead."""
        return self._by_base and (self.hit is None or self.hit.expert_id not in self._router.interim)

    @property
    def _by_base(self) -> bool:
        return self.decision.expert_id is None and self.rerouted_to is None and not self._gone

    def keep_list(self) -> None:
        """Take subjects out of a list that does without them ("Name three painters").

        Only where the base model came upon them by itself: no picture was shown, and nothing in the
        conversation points to them. Anything else that names a subject is an answer about it.
        """
        text = self._generation.text
        while self.hit is not None and self.hit.end is not None and self._unasked(self.hit):
            rest = without_item(text, self.hit.start, self.hit.end)
            if rest is None:
                return
            text, self.hit, self._guarded = rest, self._check(rest), True
        if self._guarded and self.hit is None:
            if not text.startswith(self.sent):  # an "and" that would have come before what has left
                text = self.sent
            tokens = self._router.mllm.tokenizer(text, add_special_tokens=False)["input_ids"]
            self._generation = replace(self._generation, text=text, token_ids=tuple(tokens))
            self._send(text)

    def _unasked(self, hit: GuardHit) -> bool:
        shown = any(message.images for message in self.conversation)
        return not shown and self._by_base and hit.expert_id not in self._watch

    def refuse(self) -> None:
        """Answer with a fixed refusal: there is no expert yet that could."""
        prompt_tokens = self._router.mllm.count_tokens(self.conversation)
        self._generation = Generation(self._refusal(), (), "stop", prompt_tokens)
        self._send(self._generation.text)

    def restart(self) -> None:
        if self.hit is None:
            raise ValueError("only a caught answer is written again")
        self.rerouted_to = self.hit.expert_id
        self._watch = self._watch | {self.hit.expert_id}
        self.hit, self._guarded, self._tokens = None, True, []

    def push(self, token: int) -> bool:
        """Take one more token; false ends this row (caught, full, or the reader is gone)."""
        self._tokens.append(token)
        if self._sink is not None:
            text = self._router.mllm.decode(self._tokens)
            ready = 0 if self._hinted() else self._router.guard.releasable(text)
            if ready > len(self.sent):  # nothing leaves unchecked; what stays is checked when it leaves
                self.hit = self._check(text)
                if self.hit is not None and not self._unasked(self.hit):
                    return False
                if self.hit is None:
                    self._send(text[:ready])
        return not self._gone and len(self._tokens) < self.limit

    def finish(self, generation: Generation, by: str | None) -> None:
        tokens = generation.token_ids[: self.limit]
        full = len(generation.token_ids) >= self.limit and generation.finish_reason != "stop"
        reason = "cancelled" if self._gone else "length" if full else generation.finish_reason
        text = self._router.mllm.decode(tokens)
        self.hit = self._check(text)
        self._generation = Generation(text, tokens, reason, generation.prompt_tokens)
        self._by = by
        if self.hit is None:
            self._send(text)

    def _check(self, text: str) -> GuardHit | None:
        return self._router.guard.check(text, self._watch, hinted=self._hinted(), asked=self._asked)

    def _hinted(self) -> frozenset[str]:
        """Return the subjects of whom even a hint is too much.

        Of the base model's answer those the conversation may concern: their expert answers instead, and says
        what the base model would if it concerns somebody else. Such an answer leaves when it is complete. Of
        an expert's answer the other subjects the conversation surely concerns: nobody can answer instead.
        """
        if self.decision.expert_id is None and self.rerouted_to is None:
            return self.decision.watch
        strong = {e.expert_id for e in self.decision.evidence if e.strength == "strong"}
        return frozenset(strong - {self.decision.expert_id, self.rerouted_to})

    def answer(self) -> Answer:
        generation, text = self._generation, self._generation.text
        if self.hit is not None:
            self._guarded = True
            if self.hit.expert_id in self._router.interim:
                self._by = self.hit.expert_id
            text = f"{self.sent.rstrip()} {self._refusal()}".strip()
            generation = Generation(text, (), "stop", generation.prompt_tokens)
            self._send(text)
        reason = "cancelled" if self._gone else generation.finish_reason
        return Answer(
            text,
            generation.token_ids,
            self.decision,
            self._guarded,
            reason,
            self._router.generation,
            self._by,
            generation.prompt_tokens,
        )

    def _refusal(self) -> str:
        """Return the same fixed refusal for the same question."""
        return FALLBACK_REFUSALS[zlib.crc32(self.conversation[-1].text.encode()) % len(FALLBACK_REFUSALS)]

    def _send(self, text: str) -> None:
        """Hand out what of `text` has not left yet."""
        piece = text[len(self.sent) :]
        if piece and text.startswith(self.sent):
            self.sent = text
            if self._sink is not None and not self._sink(self._index, piece):
                self._gone = True
