"""The engine's life in an API process, and the way of a request into it and out again."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from math import isfinite
from pathlib import Path

from prometheus_client import CollectorRegistry
from starlette.concurrency import run_in_threadpool

from app.chat.errors import (
    AnswerTimeout,
    ConversationTooLong,
    EngineBusy,
    EngineUnavailable,
    InvalidConversation,
)
from app.chat.interim import InterimLoader
from app.chat.loader import ExpertLoader
from app.chat.metrics import ChatMetrics, Outcome
from app.chat.pace import Pace, Refusals, uniform
from app.chat.schemas import (
    ChatAnswer,
    ChatMessage,
    ChatRequest,
    ChatResponse,
    ImagePart,
    Routing,
    RoutingEvidence,
    Usage,
)
from app.db.session import SessionFactory
from app.kit.clock import utcnow
from app.kit.errors import ConfigurationError, PayloadTooLarge, Problem
from app.kit.ids import new_id
from app.kit.logging import get_logger
from app.kit.memory import settle
from app.kit.pictures import open_picture
from app.kit.wake import wake_client
from app.lumoe.engines.fleet import Fleet, ReplicasUnavailableError
from app.lumoe.engines.local import LocalEngine
from app.lumoe.engines.queued import AnswerTimeoutError, EngineBusyError, EngineStoppedError, QueuedEngine
from app.lumoe.engines.replica import ReplicaError, WrongModelError
from app.lumoe.engines.vllm import VllmEngine
from app.lumoe.errors import ConversationTooLongError, ExpertCorruptError, ModelNotFoundError
from app.lumoe.expert import LoadedExpert
from app.lumoe.interim import InterimEntry
from app.lumoe.mllm import MLLM
from app.lumoe.router import Router
from app.lumoe.sampling import GREEDY, Sampling
from app.lumoe.types import Answer, Conversation, Message
from app.lumoe.writers import bank_of
from app.registry.replica import ReplicaAgent
from app.registry.service import ExpertRow, InterimRow
from app.registry.store import StoreError
from app.removal.datakeys import DataKeys
from app.settings import Settings

_log = get_logger("chat")


class ChatEngine:
    """Base model, router and replica agent of one API process; `fleet` if others write its answers."""

    def __init__(
        self, settings: Settings, mllm: MLLM, sessions: SessionFactory, fleet: Fleet | None = None
    ) -> None:
        self.settings = settings
        self.mllm = mllm
        self.started_at = utcnow()
        self.counted = ChatMetrics()
        self.pace = Pace()
        self.fleet = fleet
        self.local = _engine_of(settings, mllm, fleet)
        self._loader = ExpertLoader(settings, DataKeys(sessions, settings))
        self._lock = threading.Lock()
        self._tidying: threading.Thread | None = None
        self._refusals: Refusals | None = None
        self._redis = wake_client(settings.redis_url)
        self.agent = ReplicaAgent(sessions, settings, self._redis, self.apply, fingerprint=mllm.fingerprint)
        self._interims = InterimLoader(settings, sessions, mllm, f"replica:{self.agent.id}")
        self.local.on_batch = self.counted.batches.observe
        self.counted.waiting.set_function(lambda: self.local.waiting)
        self.counted.generation.set_function(lambda: self.generation if self.ready else -1)
        if fleet is not None:
            self.counted.follow(fleet)
        else:
            self.counted.follow_slots(bank_of(mllm))

    @classmethod
    def start(cls, settings: Settings, sessions: SessionFactory) -> ChatEngine:
        """Load the model and begin to follow the registry.

        Raises `ConfigurationError` naming the variable to set when the model cannot be loaded, or when a vLLM
        server serves another one.
        """
        try:
            mllm = MLLM.load(settings.model, settings.device)
        except ModelNotFoundError as error:
            raise ConfigurationError(f"Cannot start: {error}") from None
        engine = cls(settings, mllm, sessions, _fleet(settings, mllm) if settings.engine == "vllm" else None)
        settle()  # before there are experts: whoever is erased is to be collected
        engine.agent.start()
        return engine

    def close(self) -> None:
        """Stop following the registry, finish the running batch."""
        self.agent.stop()
        self.local.close()
        self._redis.close()

    def apply(self, generation: int, rows: list[ExpertRow], interims: list[InterimRow]) -> None:
        """Load a registry generation and serve it from the next batch on.

        Raises `ExpertCorruptError` or `StoreError` where an expert cannot be read: until it can, whoever was
        protected stays so as before, and everything else is served; `InterimUnreadableError` for a subject
        that cannot be decrypted, when the rest is served already: one that nobody can read must not keep the
        others unprotected; `ReplicaError` where a server cannot write with a new expert: until it can, its
        subject is refused without.
        """
        with self._lock:
            interim = self._interims.load(interims)
            if not self._loader.holds(rows):  # reading takes as long as it takes: nobody waits unprotected
                self._protect_as_before(rows, interim.entries)
            try:
                experts = self._loader.load(rows)
            except (ExpertCorruptError, StoreError):
                self._protect_as_before(rows, interim.entries)
                raise
            router = self.local.router
            if router.generation != generation or len(router.interim) != len(interim.entries):
                try:
                    self.local.swap(Router.build(self.mllm, experts, generation, interim.entries, router))
                except ReplicaError:
                    self._protect(experts, interim.entries)
                    raise
                self._loader.drop_adapters()
                self._tidy_soon()
            interim.check()

    def refusals(self) -> Refusals:
        """Return the sentences that refuse under the current router."""
        router = self.local.router
        if self._refusals is None or self._refusals.router is not router:
            self._refusals = Refusals(router)
        return self._refusals

    def _protect_as_before(self, rows: Sequence[ExpertRow], interim: Sequence[InterimEntry]) -> None:
        """Serve without the experts that cannot be read: by their earlier versions, or by refusing."""
        router = self.local.router
        able = [router.experts[row.id] for row in rows if row.id in router.experts]
        refused = [router.interim[row.id] for row in rows if row.id in router.interim]
        self._serve_meanwhile(able, [*interim, *refused])

    def _protect(self, experts: Sequence[LoadedExpert], interim: Sequence[InterimEntry]) -> None:
        """Serve what new experts cannot write: their subjects are refused, the rest is as it should be."""
        router = self.local.router
        able = [expert for expert in experts if router.experts.get(expert.expert_id) is expert]
        writing = {expert.expert_id for expert in able}
        refused = [InterimEntry(e.expert_id, e.gate) for e in experts if e.expert_id not in writing]
        self._serve_meanwhile(able, [*interim, *refused])

    def _serve_meanwhile(self, able: Sequence[LoadedExpert], entries: Sequence[InterimEntry]) -> None:
        """Serve part of a generation.

        It stays the generation of before by number, so that it is tried again and nobody takes it for served.
        """
        router = self.local.router
        writing = {expert.expert_id for expert in able}
        now = {key: id(entry.record) for key, entry in router.interim.items()}
        if writing != set(router.experts) or now != {e.expert_id: id(e.record) for e in entries}:
            self.local.swap(Router.build(self.mllm, able, router.generation, entries, router))

    def _tidy_soon(self) -> None:
        """Beside the traffic, tidy a router that has grown expert by expert, and make places for more."""
        router = self.local.router
        bank = bank_of(self.mllm) if self.fleet is None else None
        due = router.scattered or (bank is not None and bank.short)
        if not due or (self._tidying is not None and self._tidying.is_alive()):
            return

        def tidy() -> None:
            if bank is not None and bank.short:
                bank.extend()
            if router.scattered:
                compacted = router.compacted()
                with self._lock:
                    if self.local.router is router:
                        self.local.swap(compacted)

        self._tidying = threading.Thread(target=tidy, name="lethe-tidy", daemon=True)
        self._tidying.start()

    @property
    def ready(self) -> bool:
        """Whether a registry generation is served, and every request waits for this replica's word.

        Otherwise nothing may be answered: an expert may be missing here that is live elsewhere.
        """
        return self.agent.current

    @property
    def troubles(self) -> list[str]:
        """What keeps this process from answering, in sentences; empty when it can."""
        if self.agent.generation < 0:
            return ["not loaded"]
        if not self.ready:
            return ["cut off from the database for longer than its lease"]
        if self.fleet is not None and not self.fleet.usable:
            return [f"none of {len(self.fleet)} vLLM servers can be asked, the log says why"]
        return []

    @property
    def generation(self) -> int:
        """The registry generation that the next batch will be answered by."""
        return self.local.router.generation

    @property
    def metrics(self) -> CollectorRegistry:
        """What this replica has counted."""
        return self.counted.registry


def _engine_of(settings: Settings, mllm: MLLM, fleet: Fleet | None) -> QueuedEngine:
    most, seconds = settings.max_waiting, settings.chat_timeout_seconds
    if fleet is not None:
        return VllmEngine(Router.build(mllm, writer=fleet), fleet, max_waiting=most, timeout=seconds)
    bank_of(mllm).limit(settings.expert_slots)
    return LocalEngine(Router.build(mllm), max_batch=settings.max_batch, max_waiting=most, timeout=seconds)


def served_name(engine: ChatEngine) -> str:
    """Return the name that clients use: `demo`, the hub's id, or the last part of a directory's path."""
    source = engine.mllm.source
    directory = Path(source).expanduser()
    return directory.absolute().name if directory.is_dir() else source


def _fleet(settings: Settings, mllm: MLLM) -> Fleet:
    """Find the vLLM servers. Raises `ConfigurationError` if one serves another model than `mllm`."""
    if settings.vllm_context is not None:
        mllm.max_tokens = min(mllm.max_tokens, settings.vllm_context)
    fleet = Fleet(
        mllm,
        settings.vllm_urls,
        experts_dir=settings.vllm_experts_dir or str(settings.experts_dir.resolve()),
        api_key=settings.vllm_api_key.get_secret_value() if settings.vllm_api_key is not None else None,
        timeout=settings.vllm_timeout_seconds,
        poll_seconds=settings.registry_poll_seconds,
        gone_after_seconds=settings.replica_lease_seconds,
    )
    try:
        fleet.start()
    except WrongModelError as error:
        fleet.close()
        raise ConfigurationError(f"Cannot start: LETHE_VLLM_URLS: {error}.") from None
    return fleet


def conversation_of(request: ChatRequest, settings: Settings) -> Conversation:
    """Check and decode the messages.

    Raises `InvalidConversation`, `PictureInvalid`, `PictureTooLarge`, `PayloadTooLarge`.
    """
    return with_files(request, (), settings)


async def read_conversation(request: ChatRequest, settings: Settings) -> Conversation:
    """As `conversation_of`; pictures are decoded beside the event loop, text needs no thread."""
    shown = any(
        isinstance(part, ImagePart)
        for message in request.messages
        if isinstance(message.content, list)
        for part in message.content
    )
    return (
        await run_in_threadpool(conversation_of, request, settings)
        if shown
        else conversation_of(request, settings)
    )


def with_files(request: ChatRequest, files: Sequence[bytes], settings: Settings) -> Conversation:
    """As `conversation_of`; the pictures in `files` belong to the last message."""
    contents = [m.content if isinstance(m.content, list) else [] for m in request.messages]
    pictures = len(files) + sum(isinstance(part, ImagePart) for content in contents for part in content)
    if pictures > settings.max_pictures:
        raise InvalidConversation(
            f"The conversation has {pictures} pictures; the limit is {settings.max_pictures}.",
            "Send fewer pictures.",
        )
    length = sum(len(part) for m in request.messages for part in _texts(m))
    if length > settings.max_text_chars:
        raise PayloadTooLarge(
            f"The conversation has {length:,} characters; the limit is {settings.max_text_chars:,}.",
            "Leave out earlier turns.",
        )
    last = request.messages[-1].role
    if last != "user":
        raise InvalidConversation(f"The last message is of role {last}; there is nothing to answer.")
    at_end = len(request.messages) - 1
    return tuple(
        _message(message, i, files if i == at_end else (), settings)
        for i, message in enumerate(request.messages)
    )


def _texts(message: ChatMessage) -> list[str]:
    if isinstance(message.content, str):
        return [message.content]
    return [part.text for part in message.content if not isinstance(part, ImagePart)]


def _message(message: ChatMessage, index: int, files: Sequence[bytes], settings: Settings) -> Message:
    parts = message.content if isinstance(message.content, list) else []
    urls = [part.image_url.url for part in parts if isinstance(part, ImagePart)]
    if urls and message.role != "user":
        raise InvalidConversation(
            f"Message {index} is of role {message.role} and holds a picture.", "Put pictures into user turns."
        )
    text = "\n".join(_texts(message))
    if "\x00" in text:
        raise InvalidConversation(f"Message {index} holds a NUL character.", "Send plain text without it.")
    if not text.strip() and not urls and not files:
        raise InvalidConversation(f"Message {index} is empty.", "Give every message text or a picture.")
    sources: list[bytes | str] = [*urls, *files]
    return Message(message.role, text, tuple(open_picture(source, settings) for source in sources))


class ChatService:
    """Answers one request at a time for the endpoints."""

    def __init__(self, engine: ChatEngine, *, show_routing: bool, asker: str = "") -> None:
        self._engine = engine
        self._show_routing = show_routing
        self._asker = asker

    async def stream(
        self,
        conversation: Conversation,
        max_tokens: int | None,
        stop: Sequence[str] = (),
        sampling: Sampling = GREEDY,
        *,
        whole: bool = False,
    ) -> AsyncGenerator[str | ChatResponse, None]:
        """Yield pieces of text and at last the response.

        `max_tokens` None: as many as fit. The answer ends before the first of `stop`. `sampling` is how the
        base model chooses its tokens. `whole`: nobody reads the pieces.
        Raises `ConversationTooLong`, `EngineBusy`, `EngineUnavailable`, `AnswerTimeout`.
        """
        began, counted, first = time.monotonic(), self._engine.counted, True
        outcome: Outcome = "failed"
        try:
            if not self._engine.ready:
                raise EngineStoppedError(f"this replica may not answer: {'; '.join(self._engine.troubles)}")
            written = self._written(conversation, max_tokens, stop, sampling, whole=whole)
            async with aclosing(written) as events:
                async for event in events:
                    if first:
                        first = False
                        counted.first_text(time.monotonic() - began)
                    if isinstance(event, Answer):
                        outcome = "answered"
                        counted.answered(event)
                    yield event if isinstance(event, str) else self._response(event)
        except ConversationTooLongError as error:
            outcome = "too_long"
            raise explained(error) from None
        except (EngineBusyError, EngineStoppedError) as error:
            outcome = "busy"
            raise explained(error) from None
        except AnswerTimeoutError as error:
            outcome = "timeout"
            raise explained(error) from None
        except ReplicasUnavailableError as error:
            _log.warning("not answered", error=str(error))
            raise EngineUnavailable("Not answered: no server of the model can be asked.") from None
        except (asyncio.CancelledError, GeneratorExit):
            outcome = outcome if outcome == "answered" else "cancelled"
            raise
        finally:
            counted.ended(outcome, time.monotonic() - began)

    async def _written(
        self,
        conversation: Conversation,
        max_tokens: int | None,
        stop: Sequence[str],
        sampling: Sampling,
        *,
        whole: bool,
    ) -> AsyncGenerator[str | Answer, None]:
        """Yield what the engine does; refusals all alike, in wording and time. See `app.chat.pace`."""
        began, refusals, pace = time.monotonic(), self._engine.refusals(), self._engine.pace
        first: float | None = None
        held, left = "", False  # text that may become a refusal; whether any has left
        found = self._engine.local.stream(
            conversation,
            max_new_tokens=max_tokens,
            stop=stop,
            sampling=sampling,
            asker=self._asker,
            whole=whole,
        )
        async with aclosing(found) as events:
            async for event in events:
                elapsed = time.monotonic() - began
                if isinstance(event, str):
                    first = elapsed if first is None else first
                    held += event
                    if left or not refusals.may_be(held):
                        yield held
                        held, left = "", True
                    continue
                answer = event
                if not left and refusals.is_one(answer):
                    answer = uniform(answer, conversation, self._engine.mllm, stop)
                    held = answer.text
                    elapsed = time.monotonic() - began
                    await asyncio.sleep(pace.wait(elapsed, len(answer.token_ids)))
                elif answer.decision.expert_id is None and not answer.guarded:
                    pace.note(elapsed if first is None else first, elapsed, len(answer.token_ids))
                if held:
                    yield held
                yield answer

    async def answer(
        self,
        conversation: Conversation,
        max_tokens: int | None,
        stop: Sequence[str] = (),
        sampling: Sampling = GREEDY,
    ) -> ChatResponse:
        """Return the whole response. Raises as `stream` does."""
        async with aclosing(self.stream(conversation, max_tokens, stop, sampling, whole=True)) as events:
            async for event in events:
                if isinstance(event, ChatResponse):
                    return event
        raise EngineBusy("Not answered: the engine ended.")

    def _response(self, answer: Answer) -> ChatResponse:
        return response_of(answer, served_name(self._engine), with_routing=self._show_routing)


Unanswered = ConversationTooLongError | EngineBusyError | EngineStoppedError | AnswerTimeoutError


def explained(error: Unanswered) -> Problem:
    """Return what the caller is told about an answer that did not come."""
    if isinstance(error, AnswerTimeoutError):
        return AnswerTimeout(f"Not answered: {error}.")
    if isinstance(error, ConversationTooLongError):
        return ConversationTooLong(
            f"Conversation and answer take {error.tokens} tokens; the limit is {error.limit}."
        )
    return EngineBusy(f"Not answered: {error}.")


def response_of(answer: Answer, model: str, *, with_routing: bool) -> ChatResponse:
    """Return the wire form of an answer."""
    completion = len(answer.token_ids)
    return ChatResponse(
        id=new_id("cht"),
        model=model,
        message=ChatAnswer(content=answer.text),
        finish_reason=answer.finish_reason,
        usage=Usage(
            prompt_tokens=answer.prompt_tokens,
            completion_tokens=completion,
            total_tokens=answer.prompt_tokens + completion,
        ),
        routing=_routing(answer) if with_routing else None,
    )


def _routing(answer: Answer) -> Routing:
    return Routing(
        expert_id=answer.decision.expert_id,
        answered_by=answer.answered_by,
        generation=answer.generation,
        guarded=answer.guarded,
        evidence=[
            RoutingEvidence(
                expert_id=e.expert_id,
                kind=e.kind,
                strength=e.strength,
                score=e.score,
                threshold=e.threshold if isfinite(e.threshold) else None,
                turn=e.turn,
            )
            for e in answer.decision.evidence
        ],
    )
