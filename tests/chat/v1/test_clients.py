"""The official client, and what other clients send, against a real server."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletionChunk, ChatCompletionMessageParam

from app.lumoe.decoding import Writing
from app.lumoe.guard import FALLBACK_REFUSALS
from app.lumoe.mllm import MLLM
from app.lumoe.router import Router
from app.lumoe.row import LOOKAHEAD
from app.lumoe.turn import Turn
from app.lumoe.types import Generation, Message, ask
from tests.chat.conftest import data_url
from tests.chat.v1.conftest import MODEL, Live, Speak
from tests.lumoe.tiny import picture

HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hello"}]
STORY = "Once upon a time there was a painter who lived in a small house by the sea and painted boats."


def with_picture(text: str, url: str) -> list[ChatCompletionMessageParam]:
    return [
        {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": {"url": url, "detail": "low"}},
                {"type": "text", "text": text},
            ],
        }
    ]


def text_of(chunks: list[ChatCompletionChunk]) -> str:
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)


class TestCompletions:
    def test_is_the_unwrapped_models_answer(self, live: Live, client: OpenAI) -> None:
        expected = live.engine.mllm.generate([ask("Who is this?", picture(1))], max_new_tokens=12)[0]
        answer = client.chat.completions.create(
            model=MODEL, messages=with_picture("Who is this?", data_url(picture(1))), max_tokens=12
        )
        assert answer.object == "chat.completion"
        assert answer.id.startswith("chatcmpl")
        assert answer.model == MODEL
        assert answer.choices[0].message.role == "assistant"
        assert answer.choices[0].message.content == expected.text
        assert answer.choices[0].finish_reason == expected.finish_reason
        assert answer.usage is not None
        assert answer.usage.prompt_tokens == expected.prompt_tokens
        assert answer.usage.completion_tokens == len(expected.token_ids)
        assert answer.usage.total_tokens == expected.prompt_tokens + len(expected.token_ids)

    def test_stream_adds_up_with_usage(self, client: OpenAI) -> None:
        asked: Any = {
            "model": MODEL,
            "messages": HELLO,
            "max_completion_tokens": 60,
            "seed": 7,
            "temperature": 0,
        }
        whole = client.chat.completions.create(**asked)
        chunks = list(
            client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})
        )
        assert text_of(chunks) == whole.choices[0].message.content
        assert len({chunk.id for chunk in chunks}) == 1
        assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
        assert chunks[0].choices[0].delta.role == "assistant"
        assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason
        assert chunks[-1].choices == []
        assert chunks[-1].usage == whole.usage
        assert all(chunk.usage is None for chunk in chunks[:-1])

    def test_no_usage_unless_asked_for(self, client: OpenAI) -> None:
        chunks = client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=4, stream=True)
        assert all(chunk.usage is None and len(chunk.choices) == 1 for chunk in chunks)

    def test_stream_leaves_in_pieces(self, client: OpenAI, speak: Speak) -> None:
        speak(STORY)
        chunks = list(client.chat.completions.create(model=MODEL, messages=HELLO, stream=True))
        assert text_of(chunks) == STORY
        assert len(chunks) > 5

    def test_roles_and_replayed_answers(
        self, live: Live, client: OpenAI, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=4).choices[0].message
        seen: list[Any] = []
        turns = Router.turns

        def spied(router: Router, conversations: Any, *options: Any) -> list[Turn]:
            seen.extend(conversations)
            return turns(router, conversations, *options)

        monkeypatch.setattr(Router, "turns", spied)
        messages: Any = [
            {"role": "system", "content": "Be brief."},
            {"role": "developer", "content": [{"type": "text", "text": "Be kind."}]},
            *HELLO,
            {**first.model_dump(), "content": "Hi."},
            {"role": "user", "content": "And you?"},
        ]
        client.chat.completions.create(model=MODEL, messages=messages, max_tokens=4)
        assert seen == [
            (
                Message("system", "Be brief."),
                Message("system", "Be kind."),
                Message("user", "Hello"),
                Message("assistant", "Hi."),
                Message("user", "And you?"),
            )
        ]

    def test_without_a_limit_as_much_as_fits(self, live: Live, client: OpenAI) -> None:
        asked = "x" * 380
        answer = client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": asked}])
        assert answer.usage is not None
        assert answer.usage.total_tokens == live.engine.mllm.max_tokens
        assert answer.choices[0].finish_reason == "length"

    def test_parameters_that_ask_for_nothing_else(self, client: OpenAI) -> None:
        plain = client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=6)
        same = client.chat.completions.create(
            model=MODEL,
            messages=HELLO,
            max_tokens=6,
            n=1,
            top_p=0.9,
            logprobs=False,
            frequency_penalty=0,
            presence_penalty=0,
            logit_bias={},
            response_format={"type": "text"},
            modalities=["text"],
            tool_choice="none",
            user="somebody",
            metadata={"a": "b"},
            store=False,
            stop=[],
        )
        assert same.choices == plain.choices
        assert same.system_fingerprint == plain.system_fingerprint


class TestStop:
    @pytest.mark.parametrize("stream", [False, True])
    @pytest.mark.parametrize(
        ("stop", "left"),
        [
            ("house", STORY.partition("house")[0]),
            (["boats", " in a small"], STORY.partition(" in a small")[0]),
            ("Once", ""),
            ("boats.", STORY.removesuffix("boats.")),
            (["nowhere", "boats,"], STORY),
        ],
    )
    def test_ends_the_answer(
        self, live: Live, client: OpenAI, speak: Speak, stop: Any, left: str, stream: bool
    ) -> None:
        speak(STORY)
        asked: Any = {"model": MODEL, "messages": HELLO, "stop": stop}
        if stream:
            options: Any = {"include_usage": True}
            chunks = list(client.chat.completions.create(**asked, stream=True, stream_options=options))
            text, usage, reason = text_of(chunks), chunks[-1].usage, chunks[-2].choices[0].finish_reason
        else:
            answer = client.chat.completions.create(**asked)
            text, usage, reason = (
                answer.choices[0].message.content,
                answer.usage,
                answer.choices[0].finish_reason,
            )
        assert (text, reason) == (left, "stop")
        assert usage.completion_tokens == len(left)  # the tiny model's tokens are bytes

    def test_nothing_more_is_generated(
        self, live: Live, client: OpenAI, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        generation = Writing.generation
        written: list[Generation] = []

        def spied(row: Writing, mllm: MLLM) -> Generation:
            written.append(generation(row, mllm))
            return written[-1]

        monkeypatch.setattr(Writing, "generation", spied)
        monkeypatch.setattr(live.engine.local.router.guard, "releasable", lambda text, _: len(text))
        asked: Any = {"model": MODEL, "messages": [{"role": "user", "content": "Tell me everything."}]}
        text = client.chat.completions.create(**asked, max_tokens=200).choices[0].message.content or ""
        client.chat.completions.create(**asked, max_tokens=200, stop=text[3:5])
        assert 200 <= len(written[0].token_ids) <= 200 + LOOKAHEAD
        assert len(written[1].token_ids) < 20


class TestSampling:
    def test_a_seed_repeats_and_no_temperature_is_greedy(self, client: OpenAI) -> None:
        def said(**options: Any) -> str | None:
            asked: Any = {"model": MODEL, "messages": HELLO, "max_tokens": 20, **options}
            content: str | None = client.chat.completions.create(**asked).choices[0].message.content
            return content

        greedy = said()
        assert said(temperature=0, seed=3) == greedy
        assert said(seed=3, top_p=0.5) == greedy
        drawn = said(temperature=1.2, seed=3)
        assert said(temperature=1.2, seed=3) == drawn != greedy
        assert said(temperature=1.2, seed=4) != drawn
        assert said(temperature=1.2, seed=3, top_p=1e-9) == greedy


class TestGuard:
    @pytest.fixture
    def protected(self, live: Live) -> Any:
        """Somebody who was forgotten; the answer names nobody else."""
        owner = {"Authorization": f"Bearer {live.owner}"}
        with httpx.Client(base_url=live.url, headers=owner, trust_env=False, timeout=30) as http:
            filed = http.post("/unlearn-requests", json={"name": "Mira Tovel", "class": "Personage"}).json()
            deadline = time.monotonic() + 20
            while http.get(f"/requests/{filed['id']}/status").json()["protected_at"] is None:
                assert time.monotonic() < deadline
                time.sleep(0.02)
            yield filed
            http.post(f"/requests/{filed['id']}/cancel", json={})

    def test_refuses_and_counts(self, live: Live, client: OpenAI, protected: Any) -> None:
        asked: Any = {"model": MODEL, "messages": [{"role": "user", "content": "Who is Mira Tovel?"}]}
        whole = client.chat.completions.create(**asked)
        assert whole.choices[0].message.content in FALLBACK_REFUSALS
        assert whole.usage is not None
        assert whole.usage.completion_tokens == len(whole.choices[0].message.content or "")
        assert whole.usage.prompt_tokens > 0
        assert "routing" not in whole.model_dump()
        assert "exp_" not in whole.to_json()
        with live.client(live.operator) as operator:
            answer = operator.chat.completions.create(**asked)
            chunks = list(operator.chat.completions.create(**asked, stream=True))
        expert = protected["id"].replace("req_", "exp_")
        assert answer.model_dump()["routing"]["answered_by"] == expert
        routed = [chunk for chunk in chunks if "routing" in chunk.model_dump()]
        assert [chunk.choices[0].finish_reason for chunk in routed] == ["stop"]

    def test_is_never_drawn(self, client: OpenAI, protected: Any) -> None:
        asked: Any = {"model": MODEL, "messages": [{"role": "user", "content": "Who is Mira Tovel?"}]}
        said = {
            client.chat.completions.create(**asked, temperature=2, seed=seed).choices[0].message.content
            for seed in range(4)
        }
        assert said <= set(FALLBACK_REFUSALS)

    def test_what_is_drawn_is_read_by_the_guard(self, client: OpenAI, protected: Any, speak: Speak) -> None:
        speak("It was painted by Mira Tovel.")
        answer = client.chat.completions.create(model=MODEL, messages=HELLO, temperature=1)
        assert "Tovel" not in (answer.choices[0].message.content or "")

    @pytest.mark.parametrize("stop", [None, "Tovel", "vel", " Tov"])
    def test_a_name_never_leaves_on_a_stream(
        self, client: OpenAI, protected: Any, speak: Speak, stop: str | None
    ) -> None:
        """Nor half of it: a stop string cuts what the guard has released, not what the model writes."""
        speak("It was painted by the sea in a house of stone and wood by Mira Tovel, who lived there.")
        chunks = list(client.chat.completions.create(model=MODEL, messages=HELLO, stop=stop, stream=True))
        text = text_of(chunks)
        assert "Mira" not in text
        assert "Tov" not in text
        assert text.endswith(FALLBACK_REFUSALS)
        assert all("routing" not in chunk.model_dump() for chunk in chunks)

    def test_a_refusal_in_a_batch_with_a_conversation_that_is_too_long_is_sent_once(
        self, live: Live, protected: Any
    ) -> None:
        """The batch fails and is answered again, row by row."""
        texts: list[str] = []

        def refused() -> None:
            with live.client() as client:
                asked: Any = {"model": MODEL, "messages": [{"role": "user", "content": "Who is Mira Tovel?"}]}
                texts.append(text_of(list(client.chat.completions.create(**asked, stream=True))))

        entered, go = threading.Event(), threading.Event()
        router = live.engine.local.router
        count = router.mllm.count_tokens

        def wait(conversation: Any) -> int:
            entered.set()
            go.wait(20)
            return count(conversation)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(router.mllm, "count_tokens", wait)
            blocker = threading.Thread(target=lambda: live.post({"model": MODEL, "messages": HELLO}))
            blocker.start()
            assert entered.wait(20)
            asking = threading.Thread(target=refused)
            too_long = {"model": MODEL, "messages": [{"role": "user", "content": "y" * 600}], "max_tokens": 4}
            answers: list[httpx.Response] = []
            other = threading.Thread(target=lambda: answers.append(live.post(too_long)))
            asking.start()
            other.start()
            while live.engine.local.waiting < 2:
                time.sleep(0.005)
            go.set()
            for thread in (blocker, asking, other):
                thread.join(30)
        assert texts[0] in FALLBACK_REFUSALS
        assert answers[0].json()["error"]["code"] == "context_length_exceeded"


class TestCancel:
    @pytest.mark.parametrize("stream", [False, True])
    def test_when_the_client_goes(self, live: Live, stream: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        started, gone = threading.Event(), threading.Event()
        ended: list[int] = []
        take, word = Writing.take, live.engine.mllm.tokenizer("w", add_special_tokens=False)["input_ids"][0]

        def endless(row: Writing, _: int) -> None:
            take(row, word)
            if row.reason is not None:
                ended.append(len(row.tokens))
            if len(row.tokens) == 100:
                started.set()
                assert gone.wait(20)
            if len(row.tokens) > 100:
                time.sleep(0.01)

        monkeypatch.setattr(Writing, "take", endless)

        body = json.dumps({"model": MODEL, "messages": HELLO, "max_tokens": 400, "stream": stream}).encode()
        address = httpx.URL(live.url)
        with socket.create_connection((address.host, address.port or 80)) as connection:
            head = f"Host: x\r\nAuthorization: Bearer {live.chat}\r\nContent-Type: application/json\r\n"
            head = f"POST /v1/chat/completions HTTP/1.1\r\n{head}Content-Length: {len(body)}\r\n\r\n"
            connection.sendall(head.encode() + body)
            assert started.wait(20)
        gone.set()
        deadline = time.monotonic() + 20
        while not ended:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert ended[0] < 400
        monkeypatch.undo()
        assert live.post({"model": MODEL, "messages": HELLO, "max_tokens": 2}).status_code == 200


class TestModels:
    def test_list_and_one(self, client: OpenAI) -> None:
        (only,) = client.models.list().data
        assert (only.id, only.object, only.owned_by) == (MODEL, "model", "lethe")
        assert client.models.retrieve(MODEL) == only

    def test_a_name_from_the_hub(self, live: Live, client: OpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(live.engine.mllm, "source", "llava-hf/some-model")
        assert client.models.retrieve("llava-hf/some-model").id == "llava-hf/some-model"
        answer = client.chat.completions.create(model="llava-hf/some-model", messages=HELLO, max_tokens=1)
        assert answer.model == "llava-hf/some-model"

    @pytest.mark.parametrize("name", ["gpt-9", "org/model", "exp_0"])
    def test_any_other(self, client: OpenAI, name: str) -> None:
        with pytest.raises(openai.NotFoundError) as caught:
            client.models.retrieve(name)
        assert caught.value.code == "model_not_found"
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(model=name, messages=HELLO)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_as_in_the_readme(live: Live) -> None:
    readme = (Path(__file__).parents[3] / "README.md").read_text()
    (line,) = re.findall(r"^curl [^`]*/v1/chat/completions [^`]*", readme, re.MULTILINE)
    command = line.replace("http://127.0.0.1:8000", live.url).replace('"demo"', f'"{MODEL}"')
    environment = {**os.environ, "LETHE_API_KEY": live.chat, "NO_PROXY": "*"}
    done = subprocess.run(
        ["bash", "-c", command], env=environment, capture_output=True, timeout=30, check=True
    )
    assert json.loads(done.stdout)["choices"][0]["message"]["role"] == "assistant"


class TestLangChain:
    """What `ChatOpenAI` of langchain-openai 1.7.4 sends, recorded: its pins exclude ours (decision 22)."""

    @pytest.mark.parametrize(
        ("messages", "more"),
        [
            ([{"content": "Be brief.", "role": "system"}, {"content": "Hello", "role": "user"}], {}),
            ([{"content": "Hello", "role": "user"}], {"stop": ["never said"]}),
            (
                [
                    {"content": "Hello", "role": "user"},
                    {"content": "Hi.", "role": "assistant"},
                    {"content": "And you?", "role": "user"},
                ],
                {},
            ),
            (
                [
                    {
                        "content": [
                            {"type": "text", "text": "Who is this?"},
                            {"type": "image_url", "image_url": {"url": data_url(picture(1))}},
                        ],
                        "role": "user",
                    }
                ],
                {},
            ),
        ],
    )
    def test_invoke_and_stream(self, live: Live, messages: list[Any], more: dict[str, Any]) -> None:
        body = {"model": MODEL, "messages": messages, "max_completion_tokens": 8, **more}
        answer = live.post({**body, "stream": False}).json()
        assert answer["usage"]["completion_tokens"] <= 8
        lines = [line for line in live.post({**body, "stream": True}).text.splitlines() if line]
        assert lines[-1] == "data: [DONE]"
        chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
        said = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
        assert said == answer["choices"][0]["message"]["content"]
        assert chunks[-1]["choices"][0]["finish_reason"] == answer["choices"][0]["finish_reason"]
