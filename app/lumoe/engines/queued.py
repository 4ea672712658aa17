"""What every engine has: a fair queue, streams with a deadline, and a router that changes between answers.

The event loop never computes: threads take jobs from the queue, and hand text back as it may leave.
"""

from __future__ import annotations

import asyncio
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field, replace

from app.lumoe.engines.fair import FairQueue, QueueFullError
from app.lumoe.errors import ConversationTooLongError, LumoeError
from app.lumoe.router import Router
from app.lumoe.sampling import GREEDY, Sampling
from app.lumoe.stops import StopFilter
from app.lumoe.types import Answer, Conversation

MOST_NEW_TOKENS = 512
"""What an answer may have at most where the asker sets no limit. With more, conversations of different
lengths would not fit into one batch in a small context."""

MAX_BATCH = 32
MAX_WAITING = 256


class EngineBusyError(LumoeError):
    """More requests wait than the queue holds; try again later."""


class EngineStoppedError(LumoeError):
    """The engine is shutting down."""


class AnswerTimeoutError(LumoeError):
    """The answer was not complete in time."""

    def __init__(self, seconds: float, *, begun: bool) -> None:
        super().__init__(
            f"the answer was not complete after {seconds:g} s"
            if begun
            else f"no answer was begun within {seconds:g} s"
        )
        self.seconds = seconds


@dataclass(slots=True, eq=False)
class Job:
    """One conversation that waits or is being answered."""

    conversation: Conversation
    max_new_tokens: int | None
    stops: StopFilter
    bare: bool
    sampling: Sampling
    loop: asyncio.AbstractEventLoop
    whole: bool = False
    """The asker reads the first piece, to know that there is one, and the rest together."""
    events: asyncio.Queue[str | Answer | Exception] = field(default_factory=asyncio.Queue)
    cancelled: bool = False
    begun: bool = False
    taken: int = 0  # characters that have come, in whichever try
    position: int = 0  # characters that have come in this try
    told: bool = False
    kept: str = ""  # what comes with the last piece

    def release(self, text: str) -> bool:
        """Pass on what is new of `text`; false when nobody wants more."""
        fresh = text[max(0, self.taken - self.position) :]
        self.position += len(text)
        self.taken = max(self.taken, self.position)
        if piece := self.stops.feed(fresh):
            if self.whole and self.told:  # waking the asker for every token takes as long as choosing one
                self.kept += piece
            else:
                self.emit(piece)
                self.told = True
        return not (self.cancelled or self.stops.hit)

    def emit(self, event: str | Answer | Exception) -> None:
        """Hand something to the asker, from any thread."""
        try:
            self.loop.call_soon_threadsafe(self.events.put_nowait, event)
        except RuntimeError:  # the asker's event loop has ended; nobody is listening
            self.cancelled = True

    def limit(self, router: Router) -> int:
        """Return how many tokens the answer may have."""
        if self.max_new_tokens is not None:
            return self.max_new_tokens
        room = router.mllm.max_tokens - router.mllm.count_tokens(self.conversation)
        return max(1, min(MOST_NEW_TOKENS, room))

    def complete(self, answer: Answer, router: Router) -> None:
        """Hand over the answer with the text that left, and its tokens."""
        if rest := self.kept + self.stops.flush():
            self.emit(rest)
        if self.stops.hit:
            answer = replace(answer, text=self.stops.text, token_ids=(), finish_reason="stop")
        if answer.text and not answer.token_ids:
            tokens = router.mllm.tokenizer(answer.text, add_special_tokens=False)["input_ids"]
            answer = replace(answer, token_ids=tuple(tokens))
        self.emit(answer)


class QueuedEngine(ABC):
    """Answers conversations with the current router; `swap` changes it between two answers.

    Args:
        router: the first one.
        threads: how many run `_run`.
        max_waiting: how many may wait; see `FairQueue`.
        timeout: seconds for an answer, from its arrival; None for any number.
    """

    def __init__(
        self,
        router: Router,
        *,
        threads: int = 1,
        max_waiting: int = MAX_WAITING,
        timeout: float | None = None,
    ) -> None:
        self._router = router
        self._bare: Router | None = None
        self._jobs: FairQueue[Job] = FairQueue(max_waiting)
        self._timeout = timeout
        self._stopped = False
        self.on_batch: Callable[[int], None] = lambda _: None
        """Told how many conversations are being answered together, whenever some have begun."""
        self._threads = [
            threading.Thread(target=self._run, name=f"lethe-engine-{i}", daemon=True) for i in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def router(self) -> Router:
        """The router that the next answer will use."""
        return self._router

    @property
    def waiting(self) -> int:
        """How many requests wait to be begun."""
        return len(self._jobs)

    def swap(self, router: Router) -> None:
        """Serve `router` from the next answer on; those that are being written finish on the old one."""
        self._router = router

    def close(self) -> None:
        """Finish what is running, refuse what waits, end the threads."""
        self._stopped = True
        for job in self._jobs.close():
            job.emit(EngineStoppedError("the engine is shutting down"))
        deadline = time.monotonic() + 60
        for thread in self._threads:
            thread.join(timeout=max(0.0, deadline - time.monotonic()))

    async def answer(
        self,
        conversation: Conversation,
        *,
        max_new_tokens: int | None,
        stop: Sequence[str] = (),
        bare: bool = False,
        sampling: Sampling = GREEDY,
        asker: str = "",
    ) -> Answer:
        """Return the whole answer. Raises as `stream` does."""
        events = self.stream(
            conversation,
            max_new_tokens=max_new_tokens,
            stop=stop,
            bare=bare,
            sampling=sampling,
            asker=asker,
            whole=True,
        )
        async for event in events:
            if isinstance(event, Answer):
                return event
        raise EngineStoppedError("the engine ended without an answer")

    async def stream(
        self,
        conversation: Conversation,
        *,
        max_new_tokens: int | None,
        stop: Sequence[str] = (),
        bare: bool = False,
        sampling: Sampling = GREEDY,
        asker: str = "",
        whole: bool = False,
    ) -> AsyncGenerator[str | Answer, None]:
        """Yield pieces of text as the guard releases them, and at last the whole `Answer`.

        The pieces add up to the answer's text, and its `token_ids` are those of that text, also of a fixed
        refusal. `max_new_tokens` None: as many as the context has room for, at most `MOST_NEW_TOKENS`.
        What the guard has released ends before the first of `stop`; so no stop string can cut a name in two
        before the guard has read it. `sampling` is how the base model writes; experts write greedily. `bare`:
        the base model answers, without gate, experts and guard; never for anybody who may not know who is on
        the list. `asker`: whose turn it is, where many wait. `whole`: two pieces at most, the second with all
        that the first did not have.

        Leaving the iteration cancels the row. Raises `EngineBusyError`, `EngineStoppedError`,
        `ConversationTooLongError`, `AnswerTimeoutError`.
        """
        if self._stopped:
            raise EngineStoppedError("the engine is shutting down")
        stops = StopFilter(stop)
        job = Job(conversation, max_new_tokens, stops, bare, sampling, asyncio.get_running_loop(), whole)
        deadline = None if self._timeout is None else job.loop.time() + self._timeout
        try:
            self._jobs.put(asker, job)
        except QueueFullError as error:
            raise EngineBusyError(str(error)) from None
        if self._stopped:  # it was closed in between
            job.emit(EngineStoppedError("the engine is shutting down"))
        try:
            while True:
                event = await self._next(job, deadline)
                if isinstance(event, Exception):
                    raise event
                yield event
                if isinstance(event, Answer):
                    return
        finally:
            job.cancelled = True
            if not job.begun:
                self._jobs.remove(asker, job)

    async def _next(self, job: Job, deadline: float | None) -> str | Answer | Exception:
        try:
            async with asyncio.timeout_at(deadline):
                return await job.events.get()
        except TimeoutError:
            return AnswerTimeoutError(self._timeout or 0.0, begun=job.begun)

    @abstractmethod
    def _run(self) -> None:
        """Answer jobs from the queue until it is closed."""

    def _router_for(self, job: Job) -> Router:
        """Return the current router, or for a bare job one that has nobody in it."""
        if not job.bare:
            return self._router
        if self._bare is None:
            self._bare = Router.build(self._router.mllm, writer=self._router.writer)
        return self._bare

    def _answer_together(self, jobs: Sequence[Job]) -> None:
        """Answer a batch by one router; if a row is too long, one by one, so that it hurts nobody else."""
        jobs = [job for job in jobs if not job.cancelled]
        if not jobs:
            return
        router = self._router_for(jobs[0])
        try:
            answers = router.answer(
                [job.conversation for job in jobs],
                max_new_tokens=[job.limit(router) for job in jobs],
                on_text=lambda row, text: jobs[row].release(text),
                samplings=[job.sampling for job in jobs],
            )
        except ConversationTooLongError as error:
            if len(jobs) == 1:
                jobs[0].emit(error)
                return
            for job in jobs:  # lengths are checked before the first token; fixed refusals may have left
                job.position = 0
                self._answer_together([job])
        except Exception as error:
            for job in jobs:
                job.emit(error)
        else:
            for job, answer in zip(jobs, answers, strict=True):
                job.complete(answer, router)
