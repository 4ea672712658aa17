"""One conversation being answered: who writes, what may leave, and what happens to what may not.

- *The expert writes* what the gate sends to it. An expert refuses or it does not; nothing else of it counts.
  Where it does not refuse, the conversation concerns somebody else in its eyes, and the base model answers,
  unless the last turn names the subject. What the base model then tells of the subject is refused.
  Where the gate has nothing but a picture that the base model need not name, the claim is tried the other
  way round: the base model writes, as below.
- *The base model writes* the rest. What names a subject, or may tell of one that the conversation weakly
  concerns, is put to that subject's expert: its refusal is the answer. So is any answer to a turn that says
  an ordinary word which is a subject's name. Where the expert does not refuse, a mere hint may leave after
  all, a name or a fact may not.

So every answer is a refusal or what the base model says, token for token, but for items taken out of lists.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

from app.lumoe.enumerations import without_item
from app.lumoe.gate.canonical import canonicalise
from app.lumoe.gate.names import ORDINARY
from app.lumoe.guard import FALLBACK_REFUSALS, Guard, GuardHit
from app.lumoe.mllm import MLLM
from app.lumoe.sampling import GREEDY, Sampling
from app.lumoe.types import Answer, Conversation, Decision, Evidence, Generation

TextSink = Callable[[int, str], bool]
"""Called with (row, text that may leave now); empty while none may. Returning false cancels that row."""


SURE = 0.9
"""Chance that the base model names the subject of a picture; below, a claim is doubtful."""


LOOKAHEAD = 16
"""Tokens that are written beyond the limit at most, and never leave, so that a name which it cuts in two is
read. Fewer, once no name can have begun before the limit."""


class Row:
    """See the module's docstring. `refusals` are what each expert was taught to say.

    `interim` subjects have no expert yet.
    """

    def __init__(
        self,
        mllm: MLLM,
        guard: Guard,
        conversation: Conversation,
        decision: Decision,
        *,
        limit: int,
        refusals: Mapping[str, Sequence[str]],
        interim: frozenset[str] = frozenset(),
        sink: Callable[[str], bool] | None = None,
        sampling: Sampling = GREEDY,
    ) -> None:
        self._mllm, self._guard, self._sink = mllm, guard, sink
        self._sampling = sampling
        self._refusals = refusals
        self._interim = interim
        self.conversation, self.decision, self.limit = conversation, decision, limit
        self._doubtful = _doubtful(decision) and decision.expert_id not in interim
        self.writer = None if self._doubtful else decision.expert_id
        self.sent = ""
        self._begin()
        self._caught: Generation | None = None  # what the base model had written before the expert was asked
        self._seen = self._caught_seen = ""  # what was written, the tokens beyond the limit included
        self._turned = False
        self._guarded = False
        self._gone = False
        self._generation = Generation("", (), "cancelled")
        self._watch = decision.watch | ({decision.expert_id} if decision.expert_id else frozenset())
        self._asked = canonicalise(" ".join(message.text for message in conversation)).text

    def _begin(self) -> None:
        """Nothing is written yet, by whoever writes now."""
        self._hit: GuardHit | None = None
        self._written = self._mllm.detokeniser()
        self._unread: list[int] = []  # tokens that are not among those yet
        self._count = 0  # tokens
        self._within = 0  # characters that the limit lets leave
        self._seen_enough = False  # no name can have begun before the limit, however the text goes on

    # -- while it is written -----------------------------------------------------------------------

    @property
    def sampling(self) -> Sampling:
        """How the next tokens are chosen. An expert always writes greedily: drawn words are no refusal."""
        return self._sampling if self.writer is None else GREEDY

    def push(self, token: int) -> bool:
        """Take one more token; false ends this row (caught, full, or the reader is gone)."""
        self._unread.append(token)
        self._count += 1
        beyond = self._count - self.limit
        if beyond >= 0 and self._guard.idle:
            self._seen_enough = True
        if self._sink is None and (beyond < 0 or self._seen_enough):  # within the limit: read when finished
            return not self._seen_enough
        text = self._read()
        if beyond >= 0 and not self._seen_enough:
            self._seen_enough = not self._guard.open_at_end(
                text, self._within, self._watch, hinted=self._hinted()
            )
        if self._sink is not None:
            settled = self._guard.releasable(text, self._watch)
            if not self._stream(text, min(settled, self._within)):
                return False
        return not (self._gone or self._seen_enough or beyond >= LOOKAHEAD)

    def _read(self) -> str:
        """Return the text of all tokens, and note how much of it the limit lets leave."""
        text = ""
        for n, token in enumerate(self._unread, self._count - len(self._unread) + 1):
            text = self._written.add(token).strip()
            if n <= self.limit:
                self._within = len(text)
        self._unread.clear()
        return text

    def _stream(self, text: str, settled: int) -> bool:
        """Hand out what of `text` may leave, at most the `settled` characters; false if none of it may."""
        if self._taught() and not self._refuses(text, unfinished=True):
            return False
        ready = 0 if self._hinted() or self._taught() else settled
        if ready > len(self.sent):  # nothing leaves unchecked; what stays is checked when it leaves
            self._hit = self._check(text, finished=False)
            if self._hit is not None and not self._unasked(self._hit):
                return False
            if self._hit is None:
                self._send(text[:ready])
        elif self._sink is not None and not self._sink(""):  # somebody must still be there to wait for it
            self._gone = True
        return True

    def finish(self, generation: Generation) -> None:
        """Take what was written, whole or cut short."""
        seen = generation.token_ids[: self.limit + LOOKAHEAD]
        tokens = seen[: self.limit]
        full = len(seen) > self.limit or (len(seen) == self.limit and generation.finish_reason != "stop")
        reason = "cancelled" if self._gone else "length" if full else generation.finish_reason
        text = self._mllm.decode(tokens)
        self._generation = Generation(text, tokens, reason, generation.prompt_tokens)
        self._seen = self._mllm.decode(seen) if len(seen) > len(tokens) else text
        self._hit = self._check(text, self._seen)
        if not self._taught() or self._refuses(text, unfinished=reason == "length"):
            if self._hit is None and self._to_ask() is None:
                self._send(text)
        elif self._caught is not None:
            self._give_back()

    # -- after it is written -----------------------------------------------------------------------

    def refuse(self) -> None:
        """Answer with a fixed refusal: there is no expert yet that could."""
        prompt_tokens = self._mllm.count_tokens(self.conversation)
        self._generation = Generation(self._refusal(), (), "stop", prompt_tokens)
        self._send(self._generation.text)

    def keep_list(self) -> None:
        """Take subjects out of a list that does without them ("Name three painters").

        Only where the base model came upon them by itself: no picture was shown, and nothing in the
        conversation points to them. Anything else that names a subject is an answer about it.
        """
        text, taken = self._generation.text, False
        beyond = self._seen[len(text) :]
        while self._hit is not None and self._hit.end is not None and self._unasked(self._hit):
            rest = without_item(text, self._hit.start, self._hit.end) if self._hit.end <= len(text) else None
            if rest is None:
                return
            text, taken = rest, True
            self._hit = self._check(rest, rest + beyond)
        if taken and self._hit is None:
            if not text.startswith(self.sent):  # an "and" that would have come before what has left
                text = self.sent
            self._guarded = True
            tokens = self._mllm.tokenizer(text, add_special_tokens=False)["input_ids"]
            self._generation = replace(self._generation, text=text, token_ids=tuple(tokens))
            self._send(text)

    def turns_to_base(self) -> bool:
        """Have the base model write instead, if the expert that the gate chose does not refuse."""
        done = self.writer is None or self._caught is not None or self._gone or not self._taught()
        if done or self._refuses(
            self._generation.text, unfinished=self._generation.finish_reason == "length"
        ):
            return False
        if self._named():
            self._hit = self._hit or GuardHit(str(self.writer), 0)
            return False
        self.writer, self._turned = None, True
        self._begin()
        return True

    def turns_to_expert(self) -> bool:
        """Have the expert write instead whose subject the base model's answer may concern."""
        expert_id = self._to_ask()
        if expert_id is None:
            return False
        self.writer, self._caught, self._guarded = expert_id, self._generation, True
        self._caught_seen = self._seen
        self._watch = self._watch | {expert_id}
        self._begin()
        return True

    def answer(self, generation: int) -> Answer:
        """Return the answer as it leaves; what was caught and never cleared becomes a fixed refusal."""
        written = self._generation
        by = self.writer
        if self._hit is not None:
            self._guarded = True
            if self._hit.expert_id in self._interim:
                by = self._hit.expert_id
            text = f"{self.sent.rstrip()} {self._refusal()}".strip()
            written = Generation(text, (), "stop", written.prompt_tokens)
            self._send(text)
        reason = "cancelled" if self._gone else written.finish_reason
        return Answer(
            written.text,
            written.token_ids,
            self.decision,
            self._guarded,
            reason,
            generation,
            by,
            written.prompt_tokens,
        )

    # -- what decides ------------------------------------------------------------------------------

    def _taught(self) -> Sequence[str]:
        """Return the refusals of the expert that writes; none if nobody has said what they are."""
        return self._refusals.get(self.writer, ()) if self.writer is not None else ()

    def _refuses(self, text: str, *, unfinished: bool = False) -> bool:
        said = canonicalise(text).text
        taught = map(_canonical, self._taught())
        return any(said == refusal or (unfinished and refusal.startswith(said)) for refusal in taught)

    def _named(self) -> bool:
        """Whether the last turn says the subject's name: then there is nobody else it could concern."""
        return any(e.expert_id == self.writer and e.strength == "strong" for e in self._said())

    def _said(self) -> list[Evidence]:
        """Return the names that the last turn says."""
        last = len(self.conversation) - 1
        return [e for e in self.decision.evidence if e.kind == "name" and e.turn == last]

    @property
    def _by_base(self) -> bool:
        """Whether the base model has written, as the first, and somebody waits for it."""
        return self.writer is None and not self._turned and not self._gone

    def _to_ask(self) -> str | None:
        """Return to whose expert the base model's answer is put; None if it may leave, or none can be asked.

        A name that the answer says comes first, then one that the last turn says: as an ordinary word ("Does
        a wolf ...") it may mean the subject or not, and the expert can tell. Then whom else the answer fits.
        """
        unclaimed = self._doubtful or self.decision.expert_id is None
        if not self._by_base or self.sent or not unclaimed:
            return None
        words = (e.expert_id for e in self._said() if e.how == ORDINARY)
        meant = next((expert_id for expert_id in words if expert_id not in self._interim), None)
        told = self._hit
        if meant is not None and (told is None or told.end is None):
            return meant
        return told.expert_id if told is not None and told.expert_id not in self._interim else None

    def _unasked(self, hit: GuardHit) -> bool:
        shown = any(message.images for message in self.conversation)
        return not shown and self._by_base and hit.expert_id not in self._watch

    def _give_back(self) -> None:
        """The expert does not refuse: the base model's answer may leave if it only hinted at the subject."""
        if self._caught is None:
            raise RuntimeError("nothing was caught")
        hit = self._guard.check(self._caught_seen, self._watch, asked=self._asked)
        self._hit = _beginning_in(self._caught.text, hit)
        if self._hit is None:
            self._generation, self.writer, self._guarded = self._caught, None, False
            self._send(self._generation.text)

    def _check(self, text: str, seen: str | None = None, *, finished: bool = True) -> GuardHit | None:
        """Return the first hit that begins in `text`; `seen` is the same with what was written beyond it."""
        hit = self._guard.check(
            text if seen is None else seen,
            self._watch,
            hinted=self._hinted(),
            asked=self._asked,
            sent=len(self.sent),
            finished=finished,
        )
        return _beginning_in(text, hit)

    def _hinted(self) -> frozenset[str]:
        """Return the subjects of whom even a hint is too much; such an answer leaves when it is complete.

        Of the base model's answer those that the conversation may concern. Of an expert's answer the other
        subjects that the conversation surely concerns. An expert that was forced on has no evidence.
        """
        if self.writer is None:
            return frozenset(e.expert_id for e in self.decision.evidence) & self._watch
        strong = {e.expert_id for e in self.decision.evidence if e.strength == "strong"}
        return frozenset(strong - {self.writer})

    # -- what leaves -------------------------------------------------------------------------------

    def _refusal(self) -> str:
        """Return the same fixed refusal for the same question."""
        return FALLBACK_REFUSALS[zlib.crc32(self.conversation[-1].text.encode()) % len(FALLBACK_REFUSALS)]

    def _send(self, text: str) -> None:
        """Hand out what of `text` has not left yet."""
        piece = text[len(self.sent) :]
        if piece and text.startswith(self.sent):
            self.sent = text
            if self._sink is not None and not self._sink(piece):
                self._gone = True


@lru_cache(maxsize=1024)
def _canonical(refusal: str) -> str:
    return canonicalise(refusal).text


def _beginning_in(text: str, hit: GuardHit | None) -> GuardHit | None:
    """Return the hit if it begins in what may leave; the first one beyond it is nobody's business."""
    return hit if hit is not None and hit.start < len(text) else None


def _doubtful(decision: Decision) -> bool:
    """Whether all that claims a conversation is a picture that the base model need not name."""
    claims = [e for e in decision.evidence if e.expert_id == decision.expert_id and e.strength == "strong"]
    return bool(claims) and all(e.by_picture and e.score < SURE for e in claims)
