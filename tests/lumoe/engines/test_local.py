from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from app.lumoe.decoding import Decoding, Writing
from app.lumoe.engines.local import LocalEngine
from app.lumoe.engines.queued import AnswerTimeoutError, EngineBusyError, EngineStoppedError
from app.lumoe.errors import ConversationTooLongError
from app.lumoe.expert import read_adapter
from app.lumoe.mllm import MLLM
from app.lumoe.router import Router
from app.lumoe.sampling import GREEDY, Sampling
from app.lumoe.turn import Turn
from app.lumoe.types import Answer, Conversation, ask
from app.lumoe.writers import LocalWriter, bank_of
from tests.lumoe.experts import make_adapter
from tests.lumoe.tiny import picture, save_tiny_llava

QUESTIONS = [ask(f"What is {i} plus {i}?") for i in range(12)]
LONG = ask("Tell me everything.")


@pytest.fixture
def engine(tiny: MLLM) -> Iterator[LocalEngine]:
    engine = LocalEngine(Router.build(tiny), wait_seconds=0.05)
    yield engine
    engine.close()


def gather(engine: LocalEngine, conversations: Sequence[Conversation], limit: int | None = 8) -> list[Answer]:
    async def run() -> list[Answer]:
        return await asyncio.gather(*(engine.answer(c, max_new_tokens=limit) for c in conversations))

    return asyncio.run(run())


def answers_of(monkeypatch: pytest.MonkeyPatch) -> list[Answer]:
    """Return a list that every answer is added to, also of askers who have gone."""
    found: list[Answer] = []
    answer = Turn.answer

    def recorded(turn: Turn) -> Answer:
        found.append(answer(turn))
        return found[-1]

    monkeypatch.setattr(Turn, "answer", recorded)
    return found


def hold_back(
    monkeypatch: pytest.MonkeyPatch,
) -> tuple[threading.Event, threading.Event, list[str | None]]:
    """Let no row have a token before the second event; the first is set when one is there for it.

    Returns both, and why rows have ended, token by token.
    """
    take, begun, go = Writing.take, threading.Event(), threading.Event()
    reasons: list[str | None] = []

    def held(row: Writing, token: int) -> None:
        begun.set()
        assert go.wait(20)
        take(row, token)
        reasons.append(row.reason)

    monkeypatch.setattr(Writing, "take", held)
    return begun, go, reasons


class TestAnswer:
    def test_concurrent_requests_share_batches_and_get_their_own_answers(
        self, engine: LocalEngine, tiny: MLLM, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        expected = [tiny.generate([question], max_new_tokens=8)[0].token_ids for question in QUESTIONS]
        sizes: list[int] = []
        monkeypatch.setattr(engine, "on_batch", sizes.append)
        assert [a.token_ids for a in gather(engine, QUESTIONS)] == expected
        assert max(sizes) > 1

    def test_a_conversation_joins_those_that_are_being_written(
        self, engine: LocalEngine, tiny: MLLM, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """And leaves before them, with the tokens that it gets alone."""
        shown = ask("Who is this?", picture(2))
        expected = [tiny.generate([c], max_new_tokens=n)[0].token_ids for c, n in ((LONG, 60), (shown, 5))]
        take, halfway, joined = Writing.take, threading.Event(), threading.Event()
        ended: list[int] = []

        def watched(row: Writing, token: int) -> None:
            take(row, token)
            if len(row.tokens) == 20:
                halfway.set()
                assert joined.wait(20)
            if row.reason is not None:
                ended.append(len(row.tokens))

        monkeypatch.setattr(Writing, "take", watched)

        async def run() -> list[Answer]:
            first = asyncio.create_task(engine.answer(LONG, max_new_tokens=60))
            await asyncio.to_thread(halfway.wait, 20)
            second = asyncio.create_task(engine.answer(shown, max_new_tokens=5))
            while not engine.waiting:
                await asyncio.sleep(0.001)
            joined.set()
            return [await first, await second]

        answers = asyncio.run(run())
        assert [a.token_ids for a in answers] == expected
        assert ended[0] == 5

    def test_models_whose_rows_cannot_join_are_answered_batch_by_batch(
        self, tiny: MLLM, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Decoding, "possible", lambda _: False)
        monkeypatch.setattr(Writing, "take", lambda *_: 1 / 0)
        expected = [tiny.generate([question], max_new_tokens=8)[0].token_ids for question in QUESTIONS]
        engine = LocalEngine(Router.build(tiny), wait_seconds=0.05)
        assert [a.token_ids for a in gather(engine, QUESTIONS)] == expected
        engine.close()

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
            patch.setattr(engine.router.mllm, "read", lambda *_, **__: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                gather(engine, QUESTIONS[:1])
        assert gather(engine, QUESTIONS[:1])[0].text is not None

    def test_those_who_were_to_join_a_failing_batch_are_told(
        self, tiny: MLLM, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Also who would have been next: the bare ones join after the others."""
        begun, go, _ = hold_back(monkeypatch)
        engine = LocalEngine(Router.build(tiny), timeout=20)

        async def run() -> list[Answer | BaseException]:
            first = asyncio.create_task(engine.answer(LONG, max_new_tokens=8))
            await asyncio.to_thread(begun.wait, 20)
            asked = [engine.answer(QUESTIONS[0], max_new_tokens=8, bare=bare) for bare in (False, True)]
            others = [asyncio.create_task(one) for one in asked]
            while engine.waiting < 2:
                await asyncio.sleep(0.001)
            monkeypatch.setattr(tiny, "read", lambda *_, **__: 1 / 0)
            go.set()
            return await asyncio.gather(first, *others, return_exceptions=True)

        results = asyncio.run(run())
        assert [type(result) for result in results] == [ZeroDivisionError] * 3
        engine.close()

    def test_what_fails_in_one_row_hurts_nobody_else(
        self, engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        releasable = engine.router.guard.releasable

        def fail_once(*_: object) -> int:
            monkeypatch.setattr(engine.router.guard, "releasable", releasable)
            raise KeyError("one of them")

        monkeypatch.setattr(engine.router.guard, "releasable", fail_once)

        async def run() -> list[Answer | BaseException]:
            asked = [engine.answer(c, max_new_tokens=8) for c in QUESTIONS[:4]]
            return await asyncio.gather(*asked, return_exceptions=True)

        results = asyncio.run(run())
        assert sorted(type(result).__name__ for result in results) == ["Answer"] * 3 + ["KeyError"]


class TestSampling:
    def test_a_seed_repeats_and_company_changes_nothing(self, engine: LocalEngine) -> None:
        drawn = Sampling(temperature=1.5, seed=7)

        async def run(*samplings: Sampling) -> list[Answer]:
            return await asyncio.gather(
                *(engine.answer(LONG, max_new_tokens=20, sampling=sampling) for sampling in samplings)
            )

        alone = asyncio.run(run(drawn))[0]
        together = asyncio.run(
            run(GREEDY, drawn, Sampling(temperature=1.5, seed=8), Sampling(temperature=1.5))
        )
        assert together[1].token_ids == alone.token_ids
        assert len({answer.token_ids for answer in together}) == 4
        assert together[0].token_ids == asyncio.run(run(GREEDY))[0].token_ids


class TestBounds:
    def test_no_more_than_may_wait_and_half_of_it_for_one_asker(
        self, tiny: MLLM, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        begun, go, _ = hold_back(monkeypatch)
        engine = LocalEngine(Router.build(tiny), max_batch=1, max_waiting=4)

        async def run() -> list[Answer | BaseException]:
            async def one(asker: str) -> Answer:
                return await engine.answer(QUESTIONS[0], max_new_tokens=2, asker=asker)

            first = asyncio.create_task(one("a"))
            await asyncio.to_thread(begun.wait, 20)
            tasks = [asyncio.create_task(one(asker)) for asker in "aaabcd"]
            await asyncio.sleep(0.05)
            go.set()
            return await asyncio.gather(first, *tasks, return_exceptions=True)

        results = asyncio.run(run())
        assert [isinstance(result, Answer) for result in results] == [
            True,
            True,
            True,
            False,
            True,
            True,
            False,
        ]
        assert isinstance(results[3], EngineBusyError)
        assert "of this key" in str(results[3])
        assert isinstance(results[6], EngineBusyError)
        engine.close()

    def test_a_timeout_ends_what_waits_and_what_is_written(
        self, tiny: MLLM, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        begun, go, reasons = hold_back(monkeypatch)
        engine = LocalEngine(Router.build(tiny), max_batch=1, timeout=0.1)

        async def run() -> list[Answer | BaseException]:
            first = asyncio.create_task(engine.answer(LONG, max_new_tokens=100))
            await asyncio.to_thread(begun.wait, 20)
            second = asyncio.create_task(engine.answer(LONG, max_new_tokens=100))
            return list(await asyncio.gather(first, second, return_exceptions=True))

        results = asyncio.run(run())
        assert [str(result) for result in results] == [
            "the answer was not complete after 0.1 s",
            "no answer was begun within 0.1 s",
        ]
        assert all(isinstance(result, AnswerTimeoutError) for result in results)
        assert engine.waiting == 0
        go.set()
        engine.close()
        assert reasons == ["cancelled"]


class TestSlots:
    def test_more_experts_than_slots(self, tmp_path: Path) -> None:
        """Each row gets its own expert's answer, though only two of them fit at once."""
        mllm = MLLM.load(str(save_tiny_llava(tmp_path / "model")))
        bank = bank_of(mllm)
        bank.limit(2)
        writer = LocalWriter(mllm)
        adapters = [read_adapter(make_adapter(mllm, tmp_path / str(i), seed=i)) for i in range(5)]
        slots = [bank.load(f"e{i}", *adapter) for i, adapter in enumerate(adapters)]
        assert bank.resident == 2
        expected = [writer.write([LONG], [slot], max_new_tokens=12)[0].token_ids for slot in slots]
        assert len(set(expected)) == 5
        together = writer.write([LONG] * 6, [*slots, None], max_new_tokens=12)
        assert [g.token_ids for g in together] == [
            *expected,
            mllm.generate([LONG], max_new_tokens=12)[0].token_ids,
        ]
        decoding = Decoding(mllm, bank)
        rows = [Writing(mllm, LONG, slot, limit=12) for slot in slots]
        left = decoding.join(rows)
        assert left == rows[2:]
        while decoding.rows or left:
            decoding.step()
            left = decoding.join(left)
        assert [row.generation(mllm).token_ids for row in rows] == expected
        assert bank.resident == 2
        assert bank.paged_in > 3


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

    @pytest.mark.parametrize("stop", [(), ("e",)])
    def test_whole_there_are_two_pieces_at_most_and_the_same_answer(
        self, engine: LocalEngine, monkeypatch: pytest.MonkeyPatch, stop: tuple[str, ...]
    ) -> None:
        monkeypatch.setattr(engine.router.guard, "releasable", lambda text, _: len(text) - 8)

        async def run(*, whole: bool) -> tuple[list[str], Answer]:
            pieces: list[str] = []
            stream = engine.stream(ask("Tell me everything."), max_new_tokens=60, stop=stop, whole=whole)
            async for event in stream:
                if isinstance(event, Answer):
                    return pieces, event
                pieces.append(event)
            raise AssertionError("no answer")

        (one_by_one, expected), (together, answer) = (asyncio.run(run(whole=w)) for w in (False, True))
        assert len(together) <= 2
        assert stop or len(one_by_one) > 2
        assert "".join(together) == "".join(one_by_one) == answer.text == expected.text
        assert answer.token_ids == expected.token_ids

    def test_leaving_cancels_the_row(self, engine: LocalEngine, monkeypatch: pytest.MonkeyPatch) -> None:
        finished = answers_of(monkeypatch)
        monkeypatch.setattr(engine.router.guard, "releasable", lambda text, _: len(text))

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
        finished = answers_of(monkeypatch)
        begun = threading.Event()

        def hold(*_: object) -> int:
            begun.set()
            return 0

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
