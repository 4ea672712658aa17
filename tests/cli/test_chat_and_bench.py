"""`lethe chat` and `lethe bench`: a conversation on a terminal, and what a run of questions measures."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner, Result

from app.cli import app
from app.cli.bench import measure, quantile
from app.client import Client, UnreachableError, turn
from tests.service import png


class Server:
    """Answers with what was asked, as a stream where a stream is asked for; refuses the word `forbidden`."""

    def __init__(self) -> None:
        self.asked: list[list[dict[str, object]]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.read())
        self.asked.append(body["messages"])
        last = body["messages"][-1]["content"]
        text = last if isinstance(last, str) else last[-1]["text"]
        if text == "forbidden":
            problem = {"title": "No.", "hint": "Ask something else."}
            return httpx.Response(422, json=problem)
        if not body.get("stream"):
            return httpx.Response(200, json={"message": {"content": f"You said: {text}"}})
        routing = {"answered_by": None, "evidence": [
            {"strength": "weak", "kind": "name", "expert_id": "exp_1", "score": 0.5, "threshold": 0.9}
        ]}  # fmt: skip
        frames = [{"delta": "You said: "}, {"delta": text}, {"response": {"routing": routing}}]
        lines = [*(json.dumps(frame) for frame in frames), "[DONE]"]
        return httpx.Response(
            200,
            headers={"Content-Type": "text/event-stream"},
            text="".join(f"data: {line}\n\n" for line in lines),
        )


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    made = Server()
    transport = httpx.MockTransport(made)
    monkeypatch.setattr("app.cli.chat.client_for", lambda _: Client("http://x", "key", transport=transport))
    return made


def chat(*arguments: str, input: str | None = None) -> Result:
    return CliRunner().invoke(app, ["chat", *arguments], input=input, env={"COLUMNS": "200", "TERM": "dumb"})


class TestChat:
    def test_one_question(self, server: Server) -> None:
        assert chat("Hello").stdout == "You said: Hello\n"
        assert json.loads(chat("Hello", "--json").stdout)["message"]["content"] == "You said: Hello"

    def test_conversation(self, server: Server, tmp_path: Path) -> None:
        path = tmp_path / "a.png"
        path.write_bytes(png())
        done = chat(input=f"Hello\n/why\n/picture {path}\nWho is it?\n/new\nAgain\n/quit\n")
        assert done.exit_code == 0
        assert "You said: Who is it?" in done.stdout
        assert "weak name for exp_1: 0.500 against 0.900" in done.stdout
        first, second, third = server.asked
        assert [t["role"] for t in second] == ["user", "assistant", "user"]
        assert second[1]["content"] == "You said: Hello"
        content = second[2]["content"]
        assert isinstance(content, list)
        assert [part["type"] for part in content] == ["image_url", "text"]
        assert (len(first), len(third)) == (1, 1)

    def test_a_refusal_does_not_end_it_or_stay_in_it(self, server: Server) -> None:
        done = chat(input="forbidden\nHello\n")
        assert done.exit_code == 0
        assert "Ask something else." in done.stderr
        assert [t["content"] for t in server.asked[-1]] == ["Hello"]

    def test_picture_that_is_none(self, server: Server, tmp_path: Path) -> None:
        path = tmp_path / "a.png"
        path.write_text("no picture")
        refused = chat("Who is it?", "--picture", str(path))
        assert refused.exit_code == 1
        assert "PNG, JPEG or WebP" in refused.stderr
        assert chat(input=f"/picture {path}\nHello\n").exit_code == 0

    def test_json_needs_a_question(self, server: Server) -> None:
        assert chat("--json").exit_code == 1


class TestBench:
    def test_counts_and_times(self) -> None:
        server = Server()
        transport = httpx.MockTransport(server)
        found = asyncio.run(measure("http://x", "key", [turn("user", "Hello")], 7, 3, 8, transport))
        assert (found.n, found.answered, found.errors) == (7, 7, {})
        assert len(server.asked) == 8, "one to warm up"
        assert found.first_text_p50 is not None
        assert found.total_p95 is not None
        assert 0 < found.first_text_p50 <= found.total_p95 <= found.seconds

    def test_counts_what_is_not_answered(self) -> None:
        calls = iter(range(100))

        def answer(request: httpx.Request) -> httpx.Response:
            busy = next(calls) > 2
            return httpx.Response(503, json={"title": "Busy"}) if busy else Server()(request)

        transport = httpx.MockTransport(answer)
        found = asyncio.run(measure("http://x", "key", [turn("user", "Hello")], 5, 1, 8, transport))
        assert (found.answered, found.errors) == (2, {"Busy (HTTP 503)": 3})

    def test_nobody_there(self) -> None:
        def answer(_: httpx.Request) -> httpx.Response:
            raise httpx.ConnectError("refused")

        with pytest.raises(UnreachableError):
            asyncio.run(measure("http://x", "k", [turn("user", "?")], 1, 1, 8, httpx.MockTransport(answer)))

    def test_quantiles_are_nearest_ranks(self) -> None:
        values = [float(n) for n in range(1, 21)]
        assert (quantile(values, 0.5), quantile(values, 0.95), quantile([3.0], 0.95)) == (10.0, 19.0, 3.0)
        assert quantile([], 0.5) is None
