"""The engine's life in an API process, and the way of a request into it and out again."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from math import isfinite

from prometheus_client import CollectorRegistry

from app.chat.errors import ConversationTooLong, EngineBusy, InvalidConversation
from app.chat.interim import InterimLoader
from app.chat.metrics import ChatMetrics, Outcome
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
from app.kit.errors import ConfigurationError, PayloadTooLarge
from app.kit.ids import new_id
from app.kit.pictures import open_picture
from app.kit.wake import wake_client
from app.lumoe.engines.local import EngineBusyError, EngineStoppedError, LocalEngine
from app.lumoe.errors import ConversationTooLongError, ModelNotFoundError
from app.lumoe.expert import LoadedExpert, expert_folder, load_expert
from app.lumoe.mllm import MLLM
from app.lumoe.router import Router
from app.lumoe.types import Answer, Conversation, Message
from app.registry.replica import ReplicaAgent
from app.registry.service import ExpertRow, InterimRow
from app.settings import Settings

_HOLD_EXPERTS = 4096


class ExpertLoader:
    """Loads what a registry generation lists; an expert version is read and checked once."""

    def __init__(self, settings: Settings) -> None:
        self._root = settings.experts_dir
        self._cipher = settings.evidence_cipher()
        self._held: dict[str, LoadedExpert] = {}

    def load(self, rows: list[ExpertRow]) -> list[LoadedExpert]:
        """Return the experts of `rows`. Raises `ExpertCorruptError`; then nothing of it is served."""
        loaded = {}
        for row in rows:
            held = self._held.get(row.manifest_sha256)
            loaded[row.manifest_sha256] = held or load_expert(
                expert_folder(self._root, row.path), self._cipher, manifest_sha256=row.manifest_sha256
            )
        self._held = dict(list(loaded.items())[-_HOLD_EXPERTS:])
        return list(loaded.values())


class ChatEngine:
    """Base model, router and replica agent of one API process."""

    def __init__(self, settings: Settings, mllm: MLLM, sessions: SessionFactory) -> None:
        self.settings = settings
        self.mllm = mllm
        self.started_at = utcnow()
        self.counted = ChatMetrics()
        self.local = LocalEngine(Router.build(mllm))
        self._loader = ExpertLoader(settings)
        self._lock = threading.Lock()
        self._compacting: threading.Thread | None = None
        self._redis = wake_client(settings.redis_url)
        self.agent = ReplicaAgent(sessions, settings, self._redis, self.apply, fingerprint=mllm.fingerprint)
        self._interims = InterimLoader(settings, sessions, mllm, f"replica:{self.agent.id}")
        self.local.on_batch = self.counted.batches.observe
        self.counted.waiting.set_function(lambda: self.local.waiting)
        self.counted.generation.set_function(lambda: self.generation if self.ready else -1)

    @classmethod
    def start(cls, settings: Settings, sessions: SessionFactory) -> ChatEngine:
        """Load the model and begin to follow the registry.

        Raises `ConfigurationError` naming the variable to set when the model cannot be loaded.
        """
        if settings.engine != "local":
            raise ConfigurationError("Cannot start: LETHE_ENGINE: only `local` is available in this version.")
        try:
            mllm = MLLM.load(settings.model, settings.device)
        except ModelNotFoundError as error:
            raise ConfigurationError(f"Cannot start: {error}") from None
        engine = cls(settings, mllm, sessions)
        engine.agent.start()
        return engine

    def close(self) -> None:
        """Stop following the registry, finish the running batch."""
        self.agent.stop()
        self.local.close()
        self._redis.close()

    def apply(self, generation: int, rows: list[ExpertRow], interims: list[InterimRow]) -> None:
        """Load a registry generation and serve it from the next batch on; all of its experts or nothing.

        Raises `ExpertCorruptError`; and `InterimUnreadableError` for a subject that cannot be decrypted, when
        the rest is served already: one that nobody can read must not keep the others unprotected.
        """
        with self._lock:
            experts = self._loader.load(rows)
            interim = self._interims.load(interims)
            router = self.local.router
            if router.generation != generation or len(router.interim) != len(interim.entries):
                self.local.swap(Router.build(self.mllm, experts, generation, interim.entries, router))
                self._compact_soon()
            interim.check()

    def _compact_soon(self) -> None:
        """Tidy a router that has grown expert by expert, beside the traffic."""
        router = self.local.router
        if not router.scattered or (self._compacting is not None and self._compacting.is_alive()):
            return

        def compact() -> None:
            tidy = router.compacted()
            with self._lock:
                if self.local.router is router:
                    self.local.swap(tidy)

        self._compacting = threading.Thread(target=compact, name="lethe-compact", daemon=True)
        self._compacting.start()

    @property
    def ready(self) -> bool:
        """Whether a registry generation has been loaded; before that, nothing may be answered."""
        return self.agent.generation >= 0

    @property
    def generation(self) -> int:
        """The registry generation that the next batch will be answered by."""
        return self.local.router.generation

    @property
    def metrics(self) -> CollectorRegistry:
        """What this replica has counted."""
        return self.counted.registry


def conversation_of(request: ChatRequest, settings: Settings) -> Conversation:
    """Check and decode the messages.

    Raises `InvalidConversation`, `PictureInvalid`, `PictureTooLarge`, `PayloadTooLarge`.
    """
    return with_files(request, (), settings)


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

    def __init__(self, engine: ChatEngine, *, show_routing: bool) -> None:
        self._engine = engine
        self._show_routing = show_routing

    async def stream(
        self, conversation: Conversation, max_tokens: int | None, stop: Sequence[str] = ()
    ) -> AsyncGenerator[str | ChatResponse, None]:
        """Yield pieces of text and at last the response. Raises `ConversationTooLong`, `EngineBusy`.

        `max_tokens` None: as many as fit. The answer ends before the first of `stop`.
        """
        began, counted, first = time.monotonic(), self._engine.counted, True
        outcome: Outcome = "failed"
        try:
            if not self._engine.ready:
                raise EngineStoppedError("this replica has not loaded its experts yet")
            found = self._engine.local.stream(conversation, max_new_tokens=max_tokens, stop=stop)
            async with aclosing(found) as events:
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
            raise ConversationTooLong(
                f"Conversation and answer take {error.tokens} tokens; the limit is {error.limit}."
            ) from None
        except (EngineBusyError, EngineStoppedError) as error:
            outcome = "busy"
            raise EngineBusy(f"Not answered: {error}.") from None
        except (asyncio.CancelledError, GeneratorExit):
            outcome = outcome if outcome == "answered" else "cancelled"
            raise
        finally:
            counted.ended(outcome, time.monotonic() - began)

    async def answer(
        self, conversation: Conversation, max_tokens: int | None, stop: Sequence[str] = ()
    ) -> ChatResponse:
        """Return the whole response. Raises as `stream` does."""
        async with aclosing(self.stream(conversation, max_tokens, stop)) as events:
            async for event in events:
                if isinstance(event, ChatResponse):
                    return event
        raise EngineBusy("Not answered: the engine ended.")

    def _response(self, answer: Answer) -> ChatResponse:
        completion = len(answer.token_ids)
        return ChatResponse(
            id=new_id("cht"),
            model=self._engine.mllm.source,
            message=ChatAnswer(content=answer.text),
            finish_reason=answer.finish_reason,
            usage=Usage(
                prompt_tokens=answer.prompt_tokens,
                completion_tokens=completion,
                total_tokens=answer.prompt_tokens + completion,
            ),
            routing=_routing(answer) if self._show_routing else None,
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
