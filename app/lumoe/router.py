"""The router: gate, writer (base model and slot bank, or replicas) and guard of one generation, immutable.

A new generation is a new router that shares the slots of the old one; conversations that are being answered
finish on the generation they started with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import replace

from app.lumoe.errors import ExpertCorruptError, UnknownExpertError, UnsupportedModelError
from app.lumoe.expert import LoadedExpert
from app.lumoe.gate.gate import Gate
from app.lumoe.guard import Guard
from app.lumoe.interim import InterimEntry
from app.lumoe.mllm import MLLM
from app.lumoe.parts import parts_of
from app.lumoe.row import LOOKAHEAD, Row, TextSink
from app.lumoe.sampling import GREEDY, Sampling
from app.lumoe.turn import Turn
from app.lumoe.types import Answer, Conversation, Decision
from app.lumoe.writers import Held, LocalWriter, Writer

SEGMENTS = 7
"""Segments of names, the small one of the newest among them, that are looked through without tidying."""


class Router:
    """Answers conversations as one registry generation says; see the module's docstring."""

    def __init__(
        self,
        mllm: MLLM,
        experts: Sequence[LoadedExpert],
        slots: dict[str, Held],
        generation: int,
        interim: Sequence[InterimEntry] = (),
        previous: Router | None = None,
        writer: Writer | None = None,
    ) -> None:
        self.mllm = mllm
        self.generation = generation
        self.experts = {expert.expert_id: expert for expert in experts}
        self.interim = {entry.expert_id: entry for entry in interim if entry.expert_id not in self.experts}
        self._slots = slots
        self.writer: Writer = writer or LocalWriter(mllm)
        records = {expert.expert_id: expert.gate for expert in experts}
        records |= {key: entry.record for key, entry in self.interim.items()}
        if previous is not None and previous.mllm is mllm:
            self.gate: Gate = previous.gate.evolved(records)
        else:
            self.gate = Gate(mllm, records)
        self.guard = Guard(records, self.gate.names)
        self._refusals = {key: record.refusals for key, record in records.items() if record.refusals}

    @classmethod
    def build(
        cls,
        mllm: MLLM,
        experts: Sequence[LoadedExpert] = (),
        generation: int = 0,
        interim: Sequence[InterimEntry] = (),
        previous: Router | None = None,
        writer: Writer | None = None,
    ) -> Router:
        """Have `writer` hold `experts`; `interim` subjects are refused until they have an expert among these.

        What `previous`, a router of the same base model, has in common with this one is not made again. The
        writer is by default that of `previous`, or else the model itself.
        Raises what the writer raises, and `ExpertCorruptError` for an expert that was made for another model.
        """
        known = previous if previous is not None and previous.mllm is mllm else None
        writer = writer or (known.writer if known is not None else LocalWriter(mllm))
        if known is not None and known.writer is not writer:
            known = None
        slots: dict[str, Held] = {}
        fresh = []
        for expert in experts:
            if known is not None and known.experts.get(expert.expert_id) is expert:
                slots[expert.expert_id] = known._slots[expert.expert_id]
                continue
            if expert.model_fingerprint != mllm.fingerprint:
                raise ExpertCorruptError(
                    f"expert {expert.key} was trained for model {expert.model_fingerprint[:12]}, "
                    f"this one is {mllm.fingerprint[:12]}"
                )
            fresh.append(expert)
        held = writer.hold(fresh)
        slots |= {expert.expert_id: handle for expert, handle in zip(fresh, held, strict=True)}
        return cls(mllm, experts, slots, generation, interim, previous, writer)

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

    @property
    def scattered(self) -> bool:
        """Whether so many experts have been added one by one that `compacted` pays."""
        return self.gate.names.segments > SEGMENTS

    def compacted(self) -> Router:
        """Return the same router, faster to use; takes about a tenth of a second for 10,000 experts."""
        router = copy(self)
        router.gate = self.gate.compacted()
        router.guard = Guard(self.gate.records, router.gate.names)
        return router

    def decide(self, conversations: Sequence[Conversation]) -> list[Decision]:
        """Return who answers each conversation, with the evidence."""
        return self.gate.decide(conversations)

    def token_nlls(self, conversations: Sequence[Conversation], answers: Sequence[str]) -> list[list[float]]:
        """Return `MLLM.token_nlls` of answers under whoever the gate would have write them; one batch.

        What somebody sees who can read likelihoods behind the gate. Nothing of it leaves through `answer`.
        """
        if not isinstance(self.writer, LocalWriter):
            raise UnsupportedModelError("likelihoods behind the gate need the model in this process")
        writers = [decision.expert_id for decision in self.decide(conversations)]
        held = [self._slots.get(writer) if writer else None for writer in writers]
        return self.writer.token_nlls(conversations, held, answers)

    def answer(
        self,
        conversations: Sequence[Conversation],
        *,
        max_new_tokens: int | Sequence[int] = 64,
        force: str | None = None,
        on_text: TextSink | None = None,
        samplings: Sequence[Sampling] = (),
    ) -> list[Answer]:
        """Answer through the real path: gate, then expert or base model, then guard; all rows in one batch.

        `force` answers with that expert whatever the gate says. `on_text` receives the text as it may leave,
        row by row; the pieces add up to the answer's text. `samplings`: how the base model chooses
        tokens, greedily if nothing is said; experts write greedily.
        Raises `UnknownExpertError`, `ConversationTooLongError`.
        """
        if force is not None and force not in self._slots:
            raise UnknownExpertError(f"expert {force} is not in generation {self.generation}")
        limits = (
            [max_new_tokens] * len(conversations) if isinstance(max_new_tokens, int) else list(max_new_tokens)
        )
        sinks = [_to_row(i, on_text) for i in range(len(conversations))]
        turns = self.turns(conversations, limits, sinks, samplings, force=force)
        while due := [row for turn in turns for row in turn.due()]:
            self._write(due)
        return [turn.answer() for turn in turns]

    def turns(
        self,
        conversations: Sequence[Conversation],
        limits: Sequence[int],
        sinks: Sequence[Callable[[str], bool] | None],
        samplings: Sequence[Sampling] = (),
        *,
        force: str | None = None,
    ) -> list[Turn]:
        """Decide who answers, in one pass of the gate, and return what is to be written of each conversation.

        `sinks[i]` takes the text of conversation i as it may leave.
        """
        decisions = [Decision(force) for _ in conversations] if force else self.decide(conversations)
        samplings = samplings or [GREEDY] * len(conversations)
        found = []
        given = zip(conversations, decisions, limits, sinks, samplings, strict=True)
        for conversation, decision, limit, sink, sampling in given:
            parts = [(conversation, decision)] if force else self._parts(conversation, decision)
            alone = sink if len(parts) == 1 else None
            rows = [self._row(c, d, limit // len(parts), alone, sampling) for c, d in parts]
            found.append(
                Turn(
                    conversation,
                    decision,
                    rows,
                    interim=frozenset(self.interim),
                    generation=self.generation,
                    count_tokens=self.mllm.count_tokens,
                    on_text=sink,
                )
            )
        return found

    def held(self, row: Row) -> Held | None:
        """Return the handle of the expert that writes a row next; None for the base model."""
        return self._slots[row.writer] if row.writer else None

    def _row(
        self,
        conversation: Conversation,
        decision: Decision,
        limit: int,
        sink: Callable[[str], bool] | None,
        sampling: Sampling,
    ) -> Row:
        return Row(
            self.mllm,
            self.guard,
            conversation,
            decision,
            limit=max(1, limit),
            refusals=self._refusals,
            interim=frozenset(self.interim),
            sink=sink,
            sampling=sampling,
        )

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

    def _write(self, rows: Sequence[Row]) -> None:
        generations = self.writer.write(
            [row.conversation for row in rows],
            [self.held(row) for row in rows],
            max_new_tokens=max(row.limit for row in rows),
            lookahead=LOOKAHEAD,
            sink=lambda i, token: rows[i].push(token),
            samplings=[row.sampling for row in rows],
        )
        for row, generation in zip(rows, generations, strict=True):
            row.finish(generation)


def _dangles(text: str, decision: Decision) -> bool:
    """Whether a part concerns nobody and asks nothing: it goes with the part beside it."""
    return decision.expert_id is None and not text.endswith("?")


def _to_row(i: int, on_text: TextSink | None) -> Callable[[str], bool] | None:
    return (lambda text: on_text(i, text)) if on_text is not None else None
