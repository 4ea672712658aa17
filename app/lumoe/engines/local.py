"""The engine in this process: one thread owns the model, requests that wait together are answered together.

The event loop never computes. A request is answered by the router that is current when its batch starts.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field, replace

from app.lumoe.errors import ConversationTooLongError, LumoeError
from app.lumoe.router import Router
from app.lumoe.stops import StopFilter
from app.lumoe.types import Answer, Conversation

MOST_NEW_TOKENS = 512
"""What an answer may have at most where the asker sets no limit. With more, conversations of different
lengths would not fit into one batch in a small context."""

_MAX_BATCH = 16
_MAX_WAITING = 256


class EngineBusyError(LumoeError):
    """More requests wait than the queue holds; try again later."""


class EngineStoppedError(LumoeError):
    """The engine is shutting down."""


@dataclass(slots=True)
class _Job:
    conversation: Conversation
    max_new_tokens: int | None
    stops: StopFilter
    bare: bool
    loop: asyncio.AbstractEventLoop
    events: asyncio.Queue[str | Answer | Exception] = field(default_factory=asyncio.Queue)
    cancelled: bool = False
    taken: int = 0  # characters that have come, in whichever try
    position: int = 0  # characters that have come in this try

    def release(self, text: str) -> bool:
        """Pass on what is new of `text`; false when nobody wants more."""
        fresh = text[max(0, self.taken - self.position) :]
        self.position += len(text)
        self.taken = max(self.taken, self.position)
        if piece := self.stops.feed(fresh):
            self.emit(piece)
        return not (self.cancelled or self.stops.hit)

    def emit(self, event: str | Answer | Exception) -> None:
        try:
            self.loop.call_soon_threadsafe(self.events.put_nowait, event)
        except RuntimeError:  # the asker's event loop has ended; nobody is listening
            self.cancelled = True


class LocalEngine:
    """Answers conversations with the current router; `swap` changes it between two batches.

    `threads` batches run at once, of up to `largest_batch` conversations. One thread for a model in this
    process, which computes no faster for more.
    """

    def __init__(
        self,
        router: Router,
        *,
        wait_seconds: float = 0.002,
        threads: int = 1,
        largest_batch: int = _MAX_BATCH,
    ) -> None:
        self._router = router
        self._bare: Router | None = None
        self._wait = wait_seconds
        self._jobs: queue.Queue[_Job | None] = queue.Queue(_MAX_WAITING)
        self._largest = largest_batch
        self._stopped = False
        self.on_batch: Callable[[int], None] = lambda _: None
        """Told how many conversations are answered together, before they are."""
        self._threads = [
            threading.Thread(target=self._run, name=f"lethe-engine-{i}", daemon=True) for i in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def router(self) -> Router:
        """The router that the next batch will use."""
        return self._router

    @property
    def waiting(self) -> int:
        """How many requests wait for a batch."""
        return self._jobs.qsize()

    def swap(self, router: Router) -> None:
        """Serve `router` from the next batch on; batches that run finish on the old one."""
        self._router = router

    def close(self) -> None:
        """Finish what is running, refuse what waits, end the threads."""
        self._stopped = True
        for _ in self._threads:
            self._jobs.put(None)
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
    ) -> Answer:
        """Return the whole answer. Raises as `stream` does."""
        async for event in self.stream(conversation, max_new_tokens=max_new_tokens, stop=stop, bare=bare):
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
    ) -> AsyncGenerator[str | Answer, None]:
        """Yield pieces of text as the guard releases them, and at last the whole `Answer`.

        The pieces add up to the answer's text, and its `token_ids` are those of that text, also of a fixed
        refusal. `max_new_tokens` None: as many as the context has room for, at most `MOST_NEW_TOKENS`.
        What the guard has released ends before the first of `stop`; so no stop string can cut a name in two
        before the guard has read it. `bare`: the base model answers, without gate, experts and guard; never
        for anybody who may not know who is on the list.

        Leaving the iteration cancels the row. Raises `EngineBusyError`, `EngineStoppedError`,
        `ConversationTooLongError`.
        """
        if self._stopped:
            raise EngineStoppedError("the engine is shutting down")
        job = _Job(conversation, max_new_tokens, StopFilter(stop), bare, asyncio.get_running_loop())
        try:
            self._jobs.put_nowait(job)
        except queue.Full:
            raise EngineBusyError(f"{_MAX_WAITING} requests are waiting already") from None
        try:
            while True:
                event = await job.events.get()
                if isinstance(event, Exception):
                    raise event
                yield event
                if isinstance(event, Answer):
                    return
        finally:
            job.cancelled = True

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            if self._stopped:
                job.emit(EngineStoppedError("the engine is shutting down"))
                continue
            batch = [job, *self._collect()]
            for bare in (False, True):
                self._answer([waiting for waiting in batch if waiting.bare is bare and not waiting.cancelled])

    def _collect(self) -> list[_Job]:
        """Take what waits, and what arrives within the wait bound, up to a full batch."""
        found: list[_Job] = []
        while len(found) < self._largest - 1:
            try:
                job = self._jobs.get(timeout=self._wait)
            except queue.Empty:
                break
            if job is None:
                self._jobs.put(None)  # for the loop to find
                break
            found.append(job)
        self.on_batch(len(found) + 1)
        return found

    def _answer(self, jobs: list[_Job]) -> None:
        """Answer a batch; if it fails as a whole, row by row, so that one bad row hurts nobody else."""
        if not jobs:
            return
        router = self._unprotected() if jobs[0].bare else self._router
        try:
            answers = router.answer(
                [job.conversation for job in jobs],
                max_new_tokens=[_limit(job, router) for job in jobs],
                on_text=lambda row, text: jobs[row].release(text),
            )
            answers = [_as_sent(job, answer, router) for job, answer in zip(jobs, answers, strict=True)]
        except ConversationTooLongError as error:
            self._answer_alone(jobs, error)
        except Exception as error:
            for job in jobs:
                job.emit(error)
        else:
            for job, answer in zip(jobs, answers, strict=True):
                job.emit(answer)

    def _unprotected(self) -> Router:
        """Return a router without anybody in it: what it answers is the base model's own."""
        if self._bare is None:
            self._bare = Router.build(self._router.mllm, writer=self._router.writer)
        return self._bare

    def _answer_alone(self, jobs: list[_Job], error: ConversationTooLongError) -> None:
        """Lengths are checked before the first token; only fixed refusals have left, which come again."""
        if len(jobs) == 1:
            jobs[0].emit(error)
            return
        for job in jobs:
            job.position = 0
            self._answer([job])


def _limit(job: _Job, router: Router) -> int:
    if job.max_new_tokens is not None:
        return job.max_new_tokens
    room = router.mllm.max_tokens - router.mllm.count_tokens(job.conversation)
    return max(1, min(MOST_NEW_TOKENS, room))


def _as_sent(job: _Job, answer: Answer, router: Router) -> Answer:
    """Return the answer with the text that left, and its tokens."""
    if rest := job.stops.flush():
        job.emit(rest)
    if job.stops.hit:
        answer = replace(answer, text=job.stops.text, token_ids=(), finish_reason="stop")
    if answer.text and not answer.token_ids:
        tokens = router.mllm.tokenizer(answer.text, add_special_tokens=False)["input_ids"]
        answer = replace(answer, token_ids=tuple(tokens))
    return answer
