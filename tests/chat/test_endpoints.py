from __future__ import annotations

import json
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.chat.service import ChatEngine
from app.lumoe.decoding import Writing
from app.lumoe.types import ask
from tests.chat.conftest import data_url, png
from tests.lumoe.tiny import picture

Headers = dict[str, str]


def post(client: TestClient, key: Headers, body: dict[str, Any]) -> Any:
    return client.post("/chat", json=body, headers=key)


def question(text: str, *urls: str) -> dict[str, Any]:
    pictures = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return {"messages": [{"role": "user", "content": [*pictures, {"type": "text", "text": text}]}]}


def frames(body: str) -> list[Any]:
    data = [line.removeprefix("data: ") for line in body.splitlines() if line.startswith("data: ")]
    assert data[-1] == "[DONE]"
    return [json.loads(line) for line in data[:-1]]


class TestAnswer:
    def test_is_the_unwrapped_models(self, client: TestClient, chat_key: Headers) -> None:
        engine: ChatEngine = client.app.state.engine  # type: ignore[attr-defined]  # a FastAPI application
        expected = engine.mllm.generate([ask("Who is this?", picture(1))], max_new_tokens=12)[0]
        answer = post(client, chat_key, {**question("Who is this?", data_url(picture(1))), "max_tokens": 12})
        assert answer.status_code == 200
        body = answer.json()
        assert body["message"] == {"role": "assistant", "content": expected.text}
        assert body["usage"] == {
            "prompt_tokens": expected.prompt_tokens,
            "completion_tokens": len(expected.token_ids),
            "total_tokens": expected.prompt_tokens + len(expected.token_ids),
        }
        assert body["finish_reason"] == expected.finish_reason

    def test_multipart_says_the_same(self, client: TestClient, chat_key: Headers) -> None:
        by_json = post(client, chat_key, {**question("Who is this?", data_url(picture(1))), "max_tokens": 12})
        by_form = client.post(
            "/chat",
            data={"message": "Who is this?", "max_tokens": "12"},
            files=[("pictures", ("face.png", png(picture(1)), "image/png"))],
            headers=chat_key,
        )
        assert by_form.status_code == 200
        assert by_form.json()["message"] == by_json.json()["message"]

    def test_multipart_with_earlier_turns(self, client: TestClient, chat_key: Headers) -> None:
        earlier = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hello!"}]
        by_json = post(
            client,
            chat_key,
            {"messages": [*earlier, {"role": "user", "content": "And you?"}], "max_tokens": 12},
        )
        by_form = client.post(
            "/chat",
            data={"message": "And you?", "messages": json.dumps(earlier), "max_tokens": "12"},
            files=[("unrelated", ("x.txt", b"x", "text/plain"))],
            headers=chat_key,
        )
        assert by_form.status_code == 200
        assert by_form.json()["usage"] == by_json.json()["usage"]
        assert by_form.json()["message"] == by_json.json()["message"]

    def test_a_form_whose_pictures_are_text(self, client: TestClient, chat_key: Headers) -> None:
        parts = [("message", (None, "Who?")), ("pictures", (None, "false"))]
        answer = client.post("/chat", files=parts, headers=chat_key)
        assert answer.status_code == 422
        assert "file" in answer.json()["hint"]

    def test_a_whole_number_with_a_point_is_one(self, client: TestClient, chat_key: Headers) -> None:
        body = question("Tell me a story.")
        assert post(client, chat_key, {**body, "max_tokens": 5.0}).json()["usage"]["completion_tokens"] <= 5
        assert post(client, chat_key, {**body, "max_tokens": 5.5}).status_code == 422
        assert post(client, chat_key, {**body, "max_tokens": "5"}).status_code == 422

    def test_stream_adds_up(self, client: TestClient, chat_key: Headers) -> None:
        body = {**question("Tell me a story.", data_url(picture(2))), "max_tokens": 60}
        whole = post(client, chat_key, body).json()
        streamed = client.post("/chat", json={**body, "stream": True}, headers=chat_key)
        assert streamed.headers["content-type"].startswith("text/event-stream")
        *deltas, last = frames(streamed.text)
        assert "".join(frame["delta"] for frame in deltas) == whole["message"]["content"]
        assert last["response"]["usage"] == whole["usage"]

    def test_routing_is_for_operators(
        self, client: TestClient, chat_key: Headers, operator_key: Headers
    ) -> None:
        assert "routing" not in post(client, chat_key, question("Hello")).json()
        routing = post(client, operator_key, question("Hello")).json()["routing"]
        assert routing == {
            "expert_id": None,
            "answered_by": None,
            "generation": 0,
            "guarded": False,
            "evidence": [],
        }


class TestRefused:
    def test_anonymous(self, client: TestClient) -> None:
        assert post(client, {}, question("Hello")).status_code == 401

    @pytest.mark.parametrize(
        ("body", "status", "kind"),
        [
            ({"messages": []}, 422, "invalid-input"),
            ({"messages": [{"role": "user", "content": ""}]}, 422, "invalid-conversation"),
            ({"messages": [{"role": "user", "content": "a\x00b"}]}, 422, "invalid-conversation"),
            ({"messages": [{"role": "assistant", "content": "Hi"}]}, 422, "invalid-conversation"),
            ({"messages": [{"role": "pope", "content": "Hi"}]}, 422, "invalid-input"),
            ({"messages": [{"role": "user", "content": "x" * 2001}]}, 413, "payload-too-large"),
            ({"messages": [{"role": "user", "content": "x" * 900}]}, 422, "conversation-too-long"),
            ({"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 0}, 422, "invalid-input"),
            (
                {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1000},
                422,
                "conversation-too-long",
            ),
            ({"messages": [{"role": "user", "content": "Hi"}], "tools": []}, 422, "invalid-input"),
            (question("Hi", *["data:image/png;base64,AAAA"] * 4), 422, "invalid-conversation"),
            (question("Hi", "https://127.0.0.1/a.png"), 422, "picture-invalid"),
            (question("Hi", "data:image/png;base64,!!"), 422, "picture-invalid"),
            (question("Hi", data_url(picture(1))[:-60]), 422, "picture-invalid"),
        ],
    )
    @pytest.mark.parametrize("stream", [False, True])
    def test_bad_conversations(
        self,
        client: TestClient,
        chat_key: Headers,
        body: dict[str, Any],
        status: int,
        kind: str,
        stream: bool,
    ) -> None:
        answer = post(client, chat_key, {**body, "stream": stream})
        assert answer.status_code == status, answer.text
        problem = answer.json()
        assert problem["type"] == f"urn:lethe:problem:{kind}"
        assert problem["hint"]
        assert answer.headers["content-type"] == "application/problem+json"

    def test_picture_in_an_assistants_turn(self, client: TestClient, chat_key: Headers) -> None:
        turn = question("Hi", data_url(picture(1)))["messages"][0]
        body = {"messages": [{**turn, "role": "assistant"}, {"role": "user", "content": "Hi"}]}
        assert post(client, chat_key, body).json()["type"].endswith("invalid-conversation")

    def test_only_emoji_is_a_question_like_any_other(self, client: TestClient, chat_key: Headers) -> None:
        assert post(client, chat_key, question("🦄🦄")).status_code == 200

    def test_not_json(self, client: TestClient, chat_key: Headers) -> None:
        answer = client.post("/chat", content=b"{", headers={**chat_key, "content-type": "application/json"})
        assert (answer.status_code, answer.json()["type"]) == (400, "urn:lethe:problem:malformed-body")

    def test_other_content_type(self, client: TestClient, chat_key: Headers) -> None:
        answer = client.post("/chat", content=b"hello", headers={**chat_key, "content-type": "text/plain"})
        assert answer.status_code == 415

    def test_wrong_method(self, client: TestClient, chat_key: Headers) -> None:
        answer = client.get("/chat", headers=chat_key)
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST")

    def test_broken_earlier_turns(self, client: TestClient, chat_key: Headers) -> None:
        for value, status in (("[", 400), ("{}", 422), ('[{"role": "user"}]', 422)):
            answer = client.post(
                "/chat",
                data={"message": "Hi", "messages": value},
                files=[("pictures", ("a.png", png(picture(1)), "image/png"))],
                headers=chat_key,
            )
            assert answer.status_code == status, value

    def test_nothing_is_answered_before_the_experts_are_loaded(
        self, client: TestClient, chat_key: Headers, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(ChatEngine, "ready", False)  # its agent would set the generation again
        answer = post(client, chat_key, question("Hello"))
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")

    def test_an_error_on_the_way_ends_the_stream_in_order(
        self, client: TestClient, chat_key: Headers, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        engine: ChatEngine = client.app.state.engine  # type: ignore[attr-defined]  # a FastAPI application
        take = Writing.take
        said = engine.mllm.tokenizer("all is well so far " * 4, add_special_tokens=False)["input_ids"]

        def fail_late(row: Writing, _: int) -> None:
            if len(row.tokens) == 40:
                raise RuntimeError("the device is gone")
            take(row, said[len(row.tokens)])

        monkeypatch.setattr(Writing, "take", fail_late)
        streamed = client.post("/chat", json={**question("Hello"), "stream": True}, headers=chat_key)
        assert frames(streamed.text)[-1]["error"]["status"] == 500
