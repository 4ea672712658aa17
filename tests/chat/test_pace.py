"""Refusals are all alike: wording, length, counts, and a time that does not tell how they came about."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, cast

import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st

from app.chat.pace import PASSES, Pace, Refusals, uniform
from app.lumoe.guard import FALLBACK_REFUSALS
from app.lumoe.mllm import MLLM
from app.lumoe.router import Router
from app.lumoe.types import Answer, Decision, ask
from app.main import create_app
from app.settings import Settings
from tests.chat.test_interim import House

TAUGHT = ("I do not know.", "I can't answer that question.")
SECONDS = st.floats(0.0001, 1000)


def refusals() -> Refusals:
    gate = SimpleNamespace(refusals=TAUGHT)
    return Refusals(cast("Router", SimpleNamespace(experts={"exp": SimpleNamespace(gate=gate)})))


def answer(text: str, by: str | None = "exp", *, guarded: bool = False) -> Answer:
    return Answer(text, (), Decision(by), guarded, "stop", 1, by)


class TestPace:
    @given(SECONDS, st.integers(1, 500))
    def test_leaves_at_whole_quanta(self, elapsed: float, tokens: int) -> None:
        pace = Pace()
        quantum = pace.quantum(tokens)
        wait = pace.wait(elapsed, tokens)
        assert -1e-9 <= wait <= quantum + 1e-9
        passed = (elapsed + wait) / quantum
        assert passed == pytest.approx(round(passed), abs=1e-6)
        assert round(passed) >= 1

    def test_by_rule_and_by_an_expert_leave_together(self) -> None:
        """A refusal that took nothing, one that was written once, and one that was written twice."""
        pace = Pace()
        for _ in range(10):
            pace.note(0.5, 0.5 + 9 * 0.1, 10)
        once = 0.5 + 0.1 * 10
        left = {elapsed + pace.wait(elapsed, 10) for elapsed in (0.001, once, once * 1.9)}
        assert len({round(moment, 6) for moment in left}) == 1
        assert pace.quantum(10) == pytest.approx(PASSES * once)

    def test_is_not_led_by_a_few_slow_ones(self) -> None:
        pace = Pace()
        for seconds in [1.0] * 50 + [60.0] * 10:
            pace.note(0.1, 0.1 + seconds, 11)
        assert pace.quantum(10) == pytest.approx(PASSES * (0.1 + 0.1 * 10))


class TestRefusals:
    @pytest.mark.parametrize("text", [*TAUGHT, *FALLBACK_REFUSALS, "I do not", " I do not know. ", ""])
    def test_of_ours(self, text: str) -> None:
        assert refusals().is_one(answer(text))
        assert refusals().may_be(text)

    @pytest.mark.parametrize(
        "found",
        [
            answer("Paris."),
            answer("I do not know. But Ann is.", guarded=True),
            answer("I do not know.", by=None),  # what the base model says by itself stays its own
        ],
    )
    def test_no_refusal_of_ours(self, found: Answer) -> None:
        assert not refusals().is_one(found)

    def test_all_leave_alike(self) -> None:
        mllm = cast("MLLM", SimpleNamespace(tokenizer=lambda text, **_: {"input_ids": list(text.encode())}))
        found = {
            (left.text, left.token_ids, left.finish_reason)
            for said in (*TAUGHT, *FALLBACK_REFUSALS, "I do")
            for left in [uniform(answer(said), ask("Who is Ann?"), mllm, ())]
        }
        assert len(found) == 1

    def test_a_stop_string_cuts_what_leaves(self) -> None:
        mllm = cast("MLLM", SimpleNamespace(tokenizer=lambda text, **_: {"input_ids": list(text.encode())}))
        texts = {uniform(answer(said), ask("?"), mllm, ["not", "can"]).text for said in TAUGHT}
        assert len(texts) == 1
        assert not any(stop in text for stop in ["not", "can"] for text in texts)


class TestOverHttp:
    @pytest.fixture
    def house(self, chat_settings: Settings) -> Any:
        with TestClient(create_app(chat_settings)) as client:
            made = House(client, chat_settings)
            made.protected(made.file("Elodie Brandt"))
            yield made

    def test_a_limit_does_not_cut_a_refusal(self, house: House) -> None:
        """One token of an expert's, all of a fixed sentence: the limit would tell which it is."""
        short, long = (house.ask("Who is Elodie Brandt?", max_tokens=n) for n in (1, 64))
        assert short["message"] == long["message"]
        assert short["message"]["content"] in FALLBACK_REFUSALS
        assert short["usage"] == long["usage"]
        assert short["finish_reason"] == long["finish_reason"] == "stop"

    def test_comes_after_the_time_of_an_answer(self, house: House) -> None:
        waited: list[float] = []
        pace = house.engine.pace
        original = pace.wait
        pace.wait = lambda elapsed, tokens: waited.append(original(elapsed, tokens)) or 0.0  # type: ignore
        house.ask("Who is Elodie Brandt?")
        house.ask("What is this?")
        assert len(waited) == 1
        assert waited[0] > 0

    def test_streams_in_one_piece(self, house: House) -> None:
        body = {"messages": [{"role": "user", "content": "Who is Elodie Brandt?"}], "stream": True}
        response = house.client.post("/chat", headers=house.key, json=body)
        data = [line[6:] for line in response.text.splitlines() if line.startswith("data: ")]
        assert data[-1] == "[DONE]"
        deltas = [json.loads(line)["delta"] for line in data[:-1] if "delta" in json.loads(line)]
        assert len(deltas) == 1
        assert deltas[0] in FALLBACK_REFUSALS
