"""What is refused below `/v1/`, and how: OpenAI's envelope, with the status that `/chat` has for it."""

from __future__ import annotations

import json
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI

from app.chat.service import ChatEngine
from app.lumoe.decoding import Writing
from tests.chat.conftest import data_url
from tests.chat.v1.conftest import MODEL, Live, Speak
from tests.lumoe.tiny import picture

USER = {"role": "user", "content": "Hello"}


def body(*messages: Any, **fields: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": list(messages) or [USER], **fields}


def parts(*given: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(given)}


def shown(url: str) -> dict[str, Any]:
    return parts({"type": "image_url", "image_url": {"url": url}})


def assert_error(
    response: httpx.Response,
    status: int,
    code: str,
    param: str | None = None,
    kind: str = "invalid_request_error",
) -> str:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert set(response.json()) == {"error"}
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["code"], error["param"]) == (kind, code, param)
    assert error["message"]
    return str(error["message"])


class TestRefused:
    @pytest.mark.parametrize(
        ("fields", "param"),
        [
            ({"n": 2}, "n"),
            ({"logprobs": True}, "logprobs"),
            ({"top_logprobs": 3}, "top_logprobs"),
            ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
            ({"tool_choice": "required"}, "tool_choice"),
            ({"functions": [{"name": "f"}]}, "functions"),
            ({"response_format": {"type": "json_object"}}, "response_format"),
            ({"modalities": ["text", "audio"]}, "modalities"),
            ({"audio": {"voice": "x", "format": "wav"}}, "audio"),
            ({"frequency_penalty": 0.5}, "frequency_penalty"),
            ({"presence_penalty": -1}, "presence_penalty"),
            ({"logit_bias": {"5": 100}}, "logit_bias"),
            ({"store": True}, "store"),
            ({"reasoning_effort": "high"}, "reasoning_effort"),
            ({"max_token": 5}, "max_token"),
            ({"top_k": 5}, "top_k"),
            ({"max_tokens": 5, "max_completion_tokens": 6}, "max_tokens"),
        ],
    )
    def test_parameters(self, live: Live, fields: dict[str, Any], param: str) -> None:
        message = assert_error(live.post(body(**fields)), 422, "unsupported_parameter", param)
        assert "Leave" in message or "Send" in message

    @pytest.mark.parametrize(
        ("fields", "param"),
        [
            ({"max_tokens": 0}, "max_tokens"),
            ({"max_tokens": 5000}, "max_tokens"),
            ({"temperature": -1}, "temperature"),
            ({"temperature": 2.1}, "temperature"),
            ({"seed": 2**63}, "seed"),
            ({"top_p": 0}, "top_p"),
            ({"messages": []}, "messages"),
            ({"messages": "Hello"}, "messages"),
            ({"stream": "maybe"}, "stream"),
        ],
    )
    def test_values(self, live: Live, fields: dict[str, Any], param: str) -> None:
        assert param in assert_error(live.post(body() | fields), 422, "invalid_input", param)

    @pytest.mark.parametrize("stop", ["", ["a", ""], list("abcde"), 5, ["x" * 201]])
    def test_stops(self, live: Live, stop: object) -> None:
        response = live.post(body(stop=stop))
        assert response.status_code == 422
        assert response.json()["error"]["param"].startswith("stop")

    @pytest.mark.parametrize(
        ("message", "code", "param"),
        [
            ({"role": "tool", "content": "x"}, "unsupported_parameter", "messages.0.role"),
            ({"role": "user", "content": "x", "name": "Ann"}, "unsupported_parameter", "messages.0.name"),
            (
                {"role": "assistant", "content": "x", "tool_calls": [{}]},
                "unsupported_parameter",
                "messages.0.tool_calls",
            ),
            ({"role": "user", "content": None}, "invalid_conversation", "messages.0.content"),
            ({"role": "user", "content": ""}, "invalid_conversation", None),
            ({"role": "system", "content": "x"}, "invalid_conversation", None),
            (parts(), "invalid_conversation", None),
            (parts({"type": "input_audio"}), "unsupported_parameter", "messages.0.content.0"),
            (parts({"type": "text"}), "unsupported_parameter", "messages.0.content.0"),
            (shown("https://127.0.0.1/a.png"), "picture_invalid", None),
            (shown("file:///etc/passwd"), "picture_invalid", None),
            (shown("data:image/png;base64,!!"), "picture_invalid", None),
            (shown(data_url(picture(1))[:-60]), "picture_invalid", None),
            ({**shown(data_url(picture(1))), "role": "system"}, "invalid_conversation", None),
            ({"role": "user", "content": "x" * 900}, "context_length_exceeded", None),
        ],
    )
    @pytest.mark.parametrize("stream", [False, True])
    def test_messages(
        self, live: Live, message: dict[str, Any], code: str, param: str | None, stream: bool
    ) -> None:
        assert_error(live.post(body(message, stream=stream)), 422, code, param)

    def test_addresses_are_never_fetched_and_the_error_says_so(self, live: Live) -> None:
        assert (
            "never fetched" in live.post(body(shown("http://127.0.0.1:1/a.png"))).json()["error"]["message"]
        )

    def test_too_much(self, live: Live) -> None:
        long = {"role": "user", "content": "x" * 20_001}
        assert_error(live.post(body(long)), 413, "payload_too_large")
        assert_error(live.post(b"{" + b" " * live.engine.settings.max_body_bytes), 413, "payload_too_large")

    def test_not_json(self, live: Live) -> None:
        assert_error(live.post(b"{"), 400, "malformed_body")
        assert_error(live.post(b"x", **{"Content-Type": "text/plain"}), 415, "unsupported_media_type")

    def test_model(self, live: Live) -> None:
        assert_error(live.post(body() | {"model": "gpt-9"}), 404, "model_not_found", "model")
        missing = {"messages": [USER]}
        assert_error(live.post(missing), 422, "invalid_input", "model")

    def test_keys(self, live: Live) -> None:
        kind = "authentication_error"
        response = live.post(body(), "lethe_" + "x" * 43)
        assert_error(response, 401, "invalid_api_key", kind=kind)
        assert response.headers["www-authenticate"]
        assert_error(live.post(body(), live.owner), 403, "insufficient_permissions", kind="permission_error")
        with live.client("lethe_nobody") as client, pytest.raises(openai.AuthenticationError):
            client.models.list()

    @pytest.mark.parametrize(
        ("method", "path", "status", "code"),
        [
            ("GET", "/v1/nothing", 404, "not_found"),
            ("GET", "/v1/chat/completions", 405, "method_not_allowed"),
        ],
    )
    def test_paths(self, live: Live, method: str, path: str, status: int, code: str) -> None:
        response = httpx.request(method, live.url + path, trust_env=False)
        assert_error(response, status, code)

    def test_elsewhere_errors_stay_problem_documents(self, live: Live) -> None:
        response = httpx.get(f"{live.url}/v1x", trust_env=False)
        assert response.headers["content-type"] == "application/problem+json"

    def test_nothing_is_answered_before_the_experts_are_loaded(
        self, live: Live, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(ChatEngine, "ready", False)
        for stream in (False, True):
            response = live.post(body(stream=stream))
            assert_error(response, 503, "engine_busy", kind="server_error")
            assert response.headers["retry-after"] == "2"


class TestFailure:
    def test_a_failing_stream_ends_with_an_error_and_done(
        self, live: Live, client: OpenAI, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        take = Writing.take
        said = live.engine.mllm.tokenizer("all is well so far " * 4, add_special_tokens=False)["input_ids"]

        def fail_late(row: Writing, _: int) -> None:
            if len(row.tokens) == 40:
                raise RuntimeError("the device is gone")
            take(row, said[len(row.tokens)])

        monkeypatch.setattr(Writing, "take", fail_late)
        streamed = live.post(body(stream=True, max_tokens=60)).text
        lines = [line for line in streamed.splitlines() if line.startswith("data: ")]
        assert lines[-1] == "data: [DONE]"
        error = json.loads(lines[-2].removeprefix("data: "))["error"]
        assert (error["type"], error["code"]) == ("server_error", "internal_error")
        assert "device" not in error["message"]
        stream = client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "Hello"}], stream=True
        )
        with pytest.raises(openai.APIError, match="could not be finished"):
            list(stream)

    def test_a_failing_answer(self, live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(live.engine.mllm, "read", lambda *_, **__: 1 / 0)
        message = assert_error(live.post(body()), 500, "internal_error", kind="server_error")
        assert "zero" not in message


def test_operators_see_routing_and_nobody_else(live: Live, speak: Speak) -> None:
    speak("Hello.", "Hello.")
    assert live.post(body(), live.operator).json()["routing"]["generation"] >= 0
    assert "routing" not in live.post(body()).json()


def test_documented_with_its_own_errors(live: Live) -> None:
    document = httpx.get(f"{live.url}/openapi.json", trust_env=False).json()
    answered = document["paths"]["/v1/chat/completions"]["post"]["responses"]
    assert {"200", "400", "401", "403", "404", "413", "415", "422", "500", "503"} <= set(answered)
    for path in ("/v1/chat/completions", "/v1/models", "/v1/models/{model_id}"):
        for operation in document["paths"][path].values():
            assert operation["security"]
            for status, answer in operation["responses"].items():
                if int(status) >= 400:
                    for example in answer["content"]["application/json"]["examples"].values():
                        assert {"message", "type", "code"} <= set(example["value"]["error"])
