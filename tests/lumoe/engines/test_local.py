from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence

import pytest

from app.lumoe.engines.local import EngineStoppedError, LocalEngine
from app.lumoe.errors import ConversationTooLongError
from app.lumoe.mllm import MLLM
from app.lumoe.router import Router
from app.lumoe.types import Answer, Conversation, ask
from tests.lumoe.tiny import picture

QUESTIONS = [ask(f"What is {i} plus {i}?") for i in range(12)]


@pytest.fixture
def engine(tiny: MLLM) -> Iterator[LocalEngine]:
    engine = LocalEngine(Router.build(tiny), wait_seconds=0.05)
    yield engine
    engine.close()


def gather(engine: LocalEngine, conversations: Sequence[Conversation], limit: int | None = 8) -> list[Answer]:
    async def run() -> list[Answer]:
        return await asyncio.gather(*(engine.answer(c, max_new_tokens=limit) for c in conversations))

    return asyncio.run(run())


class TestAnswer:
    def test_concurrent_requests_share_batches_and_get_their_own_answers(
        self, engine: LocalEngine, tiny: MLLM, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        expected = [tiny.generate([question], max_new_tokens=8)[0].token_ids for question in QUESTIONS]
        sizes: list[int] = []
        answer = engine.router.answer

        def counted(conversations: Sequence[Conversation], **options: object) -> list[Answer]:
            sizes.append(len(conversations))
            return answer(conversations, **options)  # type: ignore[arg-type]  # passed on as they came

        monkeypatch.setattr(engine.router, "answer", counted)
        assert [a.token_ids for a in gather(engine, QUESTIONS)] == expected
        assert sum(sizes) == 12
        assert len(sizes) < 12

    def test_one_too_long_row_hurts_nobody_else(self, engine: LocalEngine) -> None:
        async def run() -> list[Answer | BaseException]:
            rows = [*QUESTIONS[:3], ask("long " * 200)]
            return await asyncio.gather(
                *(engine.answer(c, max_new_tokens=4) for c in rows), return_exceptions=True
            )

        results = asyncio.run(run())
        assert [isinstance(r, Answer) for r in results] == [True, True, True, False]
        assert isinstance(results[3], ConversationTooLongError)

    def test_engine_survives_a_failure(self, engine: LocalEngine, monkeypatch: pytest.MonkeyPatch) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(engine.router.mllm, "generate", lambda *_, **__: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                gather(engine, QUESTIONS[:1])
        assert gather(engine, QUESTIONS[:1])[0].text is not None


class TestStream:
    def test_pieces_add_up(self, engine: LocalEngine) -> None:
        async def run() -> tuple[str, Answer]:
            text = ""
            async for event in engine.stream(ask("Who is this?", picture(1)), max_new_tokens=40):
                if isinstance(event, Answer):
                    return text, event
                text += event
            raise AssertionError("no answer")

        text, answer = asyncio.run(run())
        assert text == answer.text

    def test_leaving_cancels_the_row(self, engine: LocalEngine, monkeypatch: pytest.MonkeyPatch) -> None:
        finished: list[Answer] = []
        answer = engine.router.answer

        def recorded(conversations: Sequence[Conversation], **options: object) -> list[Answer]:
            answers = answer(conversations, **options)  # type: ignore[arg-type]  # passed on as they came
            finished.extend(answers)
            return answers

        monkeypatch.setattr(engine.router, "answer", recorded)
        monkeypatch.setattr(engine.router.guard, "releasable", len)

        async def run() -> None:
            stream = engine.stream(ask("Tell me everything."), max_new_tokens=300)
            async for _ in stream:
                break
            await stream.aclose()

        asyncio.run(run())
        engine.close()
        assert [a.finish_reason for a in finished] == ["cancelled"]
        assert len(finished[0].token_ids) < 300

    def test_leaving_cancels_a_row_of_which_nothing_may_leave_yet(
        self, engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        finished: list[Answer] = []
        answer = engine.router.answer
        begun = threading.Event()

        def recorded(conversations: Sequence[Conversation], **options: object) -> list[Answer]:
            answers = answer(conversations, **options)  # type: ignore[arg-type]  # passed on as they came
            finished.extend(answers)
            return answers

        def hold(_: str) -> int:
            begun.set()
            return 0

        monkeypatch.setattr(engine.router, "answer", recorded)
        monkeypatch.setattr(engine.router.guard, "releasable", hold)

        async def run() -> None:
            asking = asyncio.create_task(engine.answer(ask("Tell me everything."), max_new_tokens=300))
            await asyncio.to_thread(begun.wait, 20)
            asking.cancel()

        asyncio.run(run())
        engine.close()
        assert [a.finish_reason for a in finished] == ["cancelled"]
        assert len(finished[0].token_ids) < 300


class TestStop:
    def test_ends_the_answer_and_counts_what_left(self, engine: LocalEngine) -> None:
        async def run(*stop: str) -> Answer:
            return await engine.answer(ask("Tell me everything."), max_new_tokens=100, stop=stop)

        whole = asyncio.run(run())
        cut = asyncio.run(run("never", whole.text[40:44]))
        assert cut.text == whole.text[: whole.text.index(whole.text[40:44])]
        assert cut.finish_reason == "stop"
        tokenizer = engine.router.mllm.tokenizer
        assert list(cut.token_ids) == tokenizer(cut.text, add_special_tokens=False)["input_ids"]


class TestLimit:
    def test_without_one_as_much_as_fits(self, engine: LocalEngine, tiny: MLLM) -> None:
        answer = gather(engine, [ask("x" * 400)], limit=None)[0]
        assert answer.prompt_tokens + len(answer.token_ids) <= tiny.max_tokens

    def test_a_prompt_that_leaves_no_room(self, engine: LocalEngine) -> None:
        with pytest.raises(ConversationTooLongError):
            gather(engine, [ask("x" * 600)], limit=None)


class TestSwap:
    def test_next_batch_uses_the_new_router(self, engine: LocalEngine, tiny: MLLM) -> None:
        assert gather(engine, QUESTIONS[:1])[0].generation == 0
        engine.swap(Router.build(tiny, generation=5))
        assert gather(engine, QUESTIONS[:1])[0].generation == 5


class TestClose:
    def test_refuses_afterwards(self, tiny: MLLM) -> None:
        engine = LocalEngine(Router.build(tiny))
        engine.close()
        with pytest.raises(EngineStoppedError):
            gather(engine, QUESTIONS[:1])
