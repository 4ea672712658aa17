"""vLLM servers as the router's writer: the same tokens as here, never the base model for a lost expert."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest

from app.lumoe.engines.fleet import Fleet, ReplicasUnavailableError
from app.lumoe.engines.replica import (
    ExpertRefusedError,
    ReplicaUnreachableError,
    WrongModelError,
)
from app.lumoe.errors import ConversationTooLongError
from app.lumoe.expert import LoadedExpert, read_adapter
from app.lumoe.mllm import MLLM
from app.lumoe.router import Router
from app.lumoe.sampling import Sampling
from app.lumoe.types import Conversation, Message, ask
from tests.lumoe.engines.fake_vllm import FakeVllm
from tests.lumoe.experts import make_adapter, make_record
from tests.lumoe.tiny import picture, save_tiny_llava

T = TypeVar("T")
Connect = Callable[..., Fleet]
QUESTIONS = (
    ask("Who is this?", picture(2)),
    ask("Where was Korvane built?"),
    ask("What is 3 plus 4?"),
)


def eventually(condition: Callable[[], bool], seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while not (met := condition()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return met


def reader(into: list[T]) -> Callable[[int, T], bool]:
    """Return a sink that takes everything."""

    def read(_: int, piece: T) -> bool:
        into.append(piece)
        return True

    return read


@pytest.fixture(scope="module")
def there(tiny_path: Path) -> MLLM:
    """The servers' own copy of the model."""
    return MLLM.load(str(tiny_path), "cpu")


@pytest.fixture
def servers(there: MLLM) -> Iterator[list[FakeVllm]]:
    made = [FakeVllm(there) for _ in range(2)]
    yield made
    for server in made:
        server.stop()


@pytest.fixture
def connect(tiny: MLLM, servers: list[FakeVllm], tmp_path: Path) -> Iterator[Connect]:
    """Return a function that starts a fleet over some of the servers, by default the first alone."""
    fleets = []

    def start(given: Sequence[FakeVllm] | None = None, **options: object) -> Fleet:
        settings: dict[str, object] = {"poll_seconds": 30.0, "timeout": 20.0} | options
        urls = [server.url for server in given or servers[:1]]
        fleet = Fleet(tiny, urls, experts_dir=str(tmp_path), **settings)  # type: ignore[arg-type]  # as given
        fleets.append(fleet)
        fleet.start()
        return fleet

    yield start
    for fleet in fleets:
        fleet.close()


@pytest.fixture
def expert(tiny: MLLM, tmp_path: Path) -> LoadedExpert:
    adapter, scale = read_adapter(make_adapter(tiny, tmp_path / "e1" / "1", seed=1))
    return LoadedExpert("e1", 1, "req_e1", tiny.fingerprint, adapter, scale, make_record("Korvane"))


def without_matrices(expert: LoadedExpert) -> LoadedExpert:
    return replace(expert, adapter={})


class TestWrite:
    def test_same_tokens_as_here(
        self, tiny: MLLM, servers: list[FakeVllm], connect: Connect, expert: LoadedExpert
    ) -> None:
        turns = (Message("user", "Who is this?", (picture(3),)), Message("assistant", "No."))
        asked = [*QUESTIONS, (*turns, Message("user", "And <image> where is </s> she?"))]
        here = Router.build(tiny, [expert]).answer(asked, max_new_tokens=12)
        fleet = connect(servers)
        away = Router.build(tiny, [without_matrices(expert)], writer=fleet).answer(asked, max_new_tokens=12)
        assert away == here
        assert [a.answered_by for a in away] == [None, "e1", None, None]
        assert {name for server in servers for name in server.chats} == {"base", "e1@1"}
        assert all(server.chats for server in servers)

    def test_draws_as_here_also_where_another_server_goes_on(
        self, tiny: MLLM, servers: list[FakeVllm], connect: Connect, expert: LoadedExpert
    ) -> None:
        drawn = [Sampling(1.3, 0.9, seed=5)] * 3
        here = Router.build(tiny, [expert]).answer(QUESTIONS, max_new_tokens=12, samplings=drawn)
        router = Router.build(tiny, [without_matrices(expert)], writer=connect(servers))
        assert router.answer(QUESTIONS, max_new_tokens=12, samplings=drawn) == here
        greedy = router.answer(QUESTIONS, max_new_tokens=12)
        assert [a == b for a, b in zip(here, greedy, strict=True)] == [
            False,
            True,
            False,
        ]  # experts never draw
        servers[0].break_after = 3
        pieces: list[str] = []
        unseeded = router.answer(
            QUESTIONS[:1], max_new_tokens=12, samplings=[Sampling(1.3)], on_text=reader(pieces)
        )
        assert "".join(pieces) == unseeded[0].text

    def test_streamed_pieces_add_up(self, tiny: MLLM, connect: Connect) -> None:
        router = Router.build(tiny, writer=connect())
        sent: list[str] = []
        (answer,) = router.answer(QUESTIONS[2:], max_new_tokens=12, on_text=reader(sent))
        assert "".join(sent) == answer.text
        assert answer.token_ids == tiny.generate(QUESTIONS[2:], max_new_tokens=12)[0].token_ids

    def test_limits_are_those_of_each_row(self, tiny: MLLM, connect: Connect) -> None:
        router = Router.build(tiny, writer=connect())
        answers = router.answer([ask("a b c"), ask("d e f")], max_new_tokens=[3, 9])
        assert [len(a.token_ids) for a in answers] == [3, 9]
        assert {a.finish_reason for a in answers} == {"length"}

    def test_ending_a_row_ends_it_on_the_server(
        self, tiny: MLLM, servers: list[FakeVllm], connect: Connect
    ) -> None:
        fleet = connect()
        (cut,) = fleet.write(
            [ask("Tell me everything.")], [None], max_new_tokens=300, sink=lambda _, token: False
        )
        assert (cut.finish_reason, len(cut.token_ids)) == ("cancelled", 1)
        with servers[0]._computing:  # it has ended
            assert servers[0].written < 300

    def test_too_long_before_anybody_is_asked(
        self, tiny: MLLM, servers: list[FakeVllm], connect: Connect
    ) -> None:
        with pytest.raises(ConversationTooLongError):
            Router.build(tiny, writer=connect()).answer([ask("long " * 200)])
        assert servers[0].chats == []


class TestFailures:
    def test_broken_off_answers_are_written_elsewhere(
        self, tiny: MLLM, servers: list[FakeVllm], connect: Connect
    ) -> None:
        fleet = connect(servers)
        for server in servers:
            server.break_after = 3
        read: list[int] = []
        with pytest.raises(ReplicasUnavailableError, match="broke off"):
            fleet.write(QUESTIONS[2:], [None], max_new_tokens=12, sink=reader(read))
        assert len(read) == 3, "both broke off at the same place; nothing was read twice"
        assert eventually(lambda: fleet.usable == 2)
        servers[0].break_after = 5
        read.clear()
        rows = [QUESTIONS[2], QUESTIONS[2]]
        found = fleet.write(rows, [None, None], max_new_tokens=12, sink=reader(read))
        expected = tiny.generate(rows, max_new_tokens=12)
        assert [g.token_ids for g in found] == [g.token_ids for g in expected]
        assert len(read) == 24

    def test_a_server_that_is_gone_is_left_out_until_it_is_back(
        self, tiny: MLLM, servers: list[FakeVllm], connect: Connect, expert: LoadedExpert
    ) -> None:
        fleet = connect(servers, poll_seconds=0.05)
        router = Router.build(tiny, [expert], writer=fleet)
        servers[0].stop()
        answers = [router.answer([QUESTIONS[1]], max_new_tokens=4)[0] for _ in range(3)]
        assert {a.answered_by for a in answers} == {"e1"}
        assert eventually(lambda: fleet.usable == 1)
        servers[0].start()
        assert eventually(lambda: fleet.usable == 2)
        assert list(servers[0].experts) == ["e1@1"]

    def test_a_lost_expert_is_loaded_again_before_it_answers(
        self, tiny: MLLM, servers: list[FakeVllm], connect: Connect, expert: LoadedExpert
    ) -> None:
        fleet = connect()
        router = Router.build(tiny, [expert], writer=fleet)
        before = router.answer([QUESTIONS[1]], max_new_tokens=8)
        servers[0].restart()
        assert servers[0].experts == {}
        assert router.answer([QUESTIONS[1]], max_new_tokens=8) == before
        assert fleet.retries == 1
        assert servers[0].chats == ["e1@1", "e1@1"]

    def test_an_expert_that_cannot_come_back_is_never_answered_by_the_base_model(
        self, tiny: MLLM, servers: list[FakeVllm], connect: Connect, expert: LoadedExpert
    ) -> None:
        router = Router.build(tiny, [expert], writer=connect())
        servers[0].restart()
        servers[0].cannot_load = True
        with pytest.raises(ReplicasUnavailableError, match="does not know e1@1"):
            router.answer([QUESTIONS[1]], max_new_tokens=8)
        assert servers[0].chats == []

    def test_a_refused_conversation_leaves_the_server_in_rotation(
        self, tiny: MLLM, servers: list[FakeVllm], connect: Connect
    ) -> None:
        fleet = connect()
        servers[0].refuses_chats = True
        with pytest.raises(ReplicasUnavailableError, match="refuses a conversation: 400"):
            fleet.write(QUESTIONS[2:], [None], max_new_tokens=4)
        servers[0].refuses_chats = False
        assert fleet.usable == 1
        assert fleet.write(QUESTIONS[2:], [None], max_new_tokens=4)

    def test_other_tokens_than_ours_are_no_answer(
        self, tiny: MLLM, servers: list[FakeVllm], connect: Connect, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fleet = connect()
        read = servers[0].conversation

        def dropping_turns(messages: list[dict[str, object]]) -> Conversation:
            return read(messages)[-1:]

        monkeypatch.setattr(servers[0], "conversation", dropping_turns)
        turns = (Message("user", "Hello"), Message("assistant", "Yes?"), Message("user", "Who are you?"))
        with pytest.raises(ReplicasUnavailableError, match="other tokens than ours"):
            fleet.write([turns], [None], max_new_tokens=4)


class TestHold:
    def test_every_server_lists_it(
        self, tiny: MLLM, servers: list[FakeVllm], connect: Connect, expert: LoadedExpert, tmp_path: Path
    ) -> None:
        fleet = connect(servers)
        router = Router.build(tiny, writer=fleet)
        router = router.with_expert(expert)
        for server in servers:
            assert [(key, path) for key, (path, _) in server.experts.items()] == [
                ("e1@1", str(tmp_path / "e1" / "1"))
            ]
        assert router.with_expert(expert)._slots["e1"] is router._slots["e1"]

    def test_one_server_that_cannot_is_one_too_many(
        self, tiny: MLLM, servers: list[FakeVllm], connect: Connect, expert: LoadedExpert
    ) -> None:
        fleet = connect(servers)
        router = Router.build(tiny, writer=fleet)
        servers[1].cannot_load = True
        with pytest.raises(ExpertRefusedError, match=r"cannot load expert e1@1 .*LETHE_VLLM_EXPERTS_DIR"):
            router.with_expert(expert)
        assert fleet.usable == 2, "what is served already goes on"
        servers[1].cannot_load = False
        assert router.with_expert(expert).answer([QUESTIONS[1]], max_new_tokens=4)[0].answered_by == "e1"

    def test_files_that_are_not_there(
        self, tiny: MLLM, connect: Connect, expert: LoadedExpert, tmp_path: Path
    ) -> None:
        (tmp_path / "e1").rename(tmp_path / "elsewhere")
        with pytest.raises(ExpertRefusedError, match="404 NotFoundError"):
            Router.build(tiny, [expert], writer=connect())

    def test_a_name_that_means_other_files(
        self, tiny: MLLM, servers: list[FakeVllm], connect: Connect, expert: LoadedExpert, tmp_path: Path
    ) -> None:
        fleet = connect()
        other = make_adapter(tiny, tmp_path / "other", seed=9)
        assert servers[0].load({"lora_name": "e1@1", "lora_path": str(other)})[0] == 200
        with pytest.raises(ExpertRefusedError, match=r"has expert e1@1 from .*other instead of"):
            Router.build(tiny, [expert], writer=fleet)

    def test_a_silent_server_is_waited_for_and_then_not(
        self, tiny: MLLM, servers: list[FakeVllm], connect: Connect, expert: LoadedExpert
    ) -> None:
        fleet = connect(servers, poll_seconds=0.05, gone_after_seconds=60)
        servers[1].stop()
        with pytest.raises(ReplicaUnreachableError):
            Router.build(tiny, [expert], writer=fleet)
        fleet._gone_after = 0.0
        router = Router.build(tiny, [expert], writer=fleet)
        servers[1].start()
        assert eventually(lambda: fleet.usable == 2)
        assert list(servers[1].experts) == ["e1@1"], "in rotation with all experts"
        assert router.answer([QUESTIONS[1]], max_new_tokens=4)[0].answered_by == "e1"

    def test_nobody_there_at_all(
        self, tiny: MLLM, servers: list[FakeVllm], connect: Connect, expert: LoadedExpert
    ) -> None:
        servers[0].stop()
        fleet = connect(gone_after_seconds=0)
        with pytest.raises(ReplicaUnreachableError, match="does not answer"):
            Router.build(tiny, [expert], writer=fleet)

    def test_what_no_router_has_any_more_is_not_loaded_again(
        self, tiny: MLLM, servers: list[FakeVllm], connect: Connect, expert: LoadedExpert
    ) -> None:
        fleet = connect(poll_seconds=0.05)
        router = Router.build(tiny, [expert], writer=fleet)
        router = Router.build(tiny, [], 2, previous=router)
        servers[0].restart()
        assert eventually(lambda: fleet.usable == 1)
        assert servers[0].experts == {}
        assert router.writer is fleet


class TestStart:
    def test_other_weights(self, servers: list[FakeVllm], connect: Connect, tmp_path: Path) -> None:
        servers[1].mllm = MLLM.load(str(save_tiny_llava(tmp_path / "other", seed=5)), "cpu")
        for parameter in servers[1].mllm.network.parameters():
            parameter.mul_(4)  # random weights say next to nothing, and so the same as other random weights
        with pytest.raises(WrongModelError, match="serves other weights than LETHE_MODEL"):
            connect(servers)

    def test_another_template(
        self, servers: list[FakeVllm], connect: Connect, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        read = servers[0].conversation
        monkeypatch.setattr(
            servers[0], "conversation", lambda messages: (Message("system", "Be kind."), *read(messages))
        )
        with pytest.raises(WrongModelError, match="reads other tokens"):
            connect()

    def test_answers_for_models_that_it_does_not_have(
        self, servers: list[FakeVllm], connect: Connect
    ) -> None:
        servers[0].checks_names = False
        with pytest.raises(WrongModelError, match="VLLM_SKIP_MODEL_NAME_VALIDATION"):
            connect()

    def test_without_loading_at_run_time(
        self, tiny: MLLM, servers: list[FakeVllm], connect: Connect, expert: LoadedExpert
    ) -> None:
        servers[0].runtime_loading = False
        with pytest.raises(WrongModelError, match="VLLM_ALLOW_RUNTIME_LORA_UPDATING=1"):
            Router.build(tiny, [expert], writer=connect())

    def test_a_smaller_context(
        self, servers: list[FakeVllm], connect: Connect, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cards = servers[0].cards
        monkeypatch.setattr(servers[0], "cards", lambda: [cards()[0] | {"max_model_len": 128}])
        with pytest.raises(WrongModelError, match="LETHE_VLLM_CONTEXT"):
            connect()

    def test_key(self, servers: list[FakeVllm], connect: Connect) -> None:
        servers[0].api_key = "secret"
        with pytest.raises(WrongModelError, match="LETHE_VLLM_API_KEY"):
            connect()
        assert connect(api_key="secret").usable == 1

    def test_another_model_after_a_restart_is_asked_nothing(
        self, servers: list[FakeVllm], connect: Connect, tmp_path: Path
    ) -> None:
        fleet = connect(poll_seconds=0.05)
        servers[0].stop()
        assert eventually(lambda: fleet.usable == 0)
        servers[0].mllm = MLLM.load(str(save_tiny_llava(tmp_path / "other", seed=5)), "cpu")
        for parameter in servers[0].mllm.network.parameters():
            parameter.mul_(4)
        servers[0].start()
        assert eventually(lambda: "other weights" in "".join(fleet.troubles))
        with pytest.raises(ReplicasUnavailableError, match="other weights"):
            fleet.write(QUESTIONS[2:], [None], max_new_tokens=4)
        assert servers[0].chats == []


def test_many_conversations_at_once(tiny: MLLM, servers: list[FakeVllm], connect: Connect) -> None:
    router = Router.build(tiny, writer=connect(servers))
    expected = router.answer([QUESTIONS[2]], max_new_tokens=6)
    found: list[bool] = []
    threads = [
        threading.Thread(
            target=lambda: found.append(router.answer([QUESTIONS[2]], max_new_tokens=6) == expected)
        )
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 8
