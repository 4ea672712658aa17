"""The client: what goes over the wire, and what comes back when something is wrong."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator

import httpx
import pytest
from PIL import Image

from app.client import ApiError, Client, UnreachableError, png, turn
from app.embedded.process import free_port


def client(answer: Callable[[httpx.Request], httpx.Response]) -> Client:
    """A client whose server is a function."""
    made = Client("http://127.0.0.1:1", "lethe_key")
    made._http = httpx.Client(
        base_url="http://127.0.0.1:1", headers=made._http.headers, transport=httpx.MockTransport(answer)
    )
    return made


class TestErrors:
    def test_problem_document(self) -> None:
        problem = {"title": "Too large", "detail": "11 MB of at most 10.", "hint": "Send a smaller one."}
        with pytest.raises(ApiError, match=r"11 MB of at most 10\. \(HTTP 413\)") as caught:
            client(lambda _: httpx.Response(413, json=problem)).status("req_1")
        assert caught.value.hint == "Send a smaller one."
        assert caught.value.status == 413

    def test_something_else_than_a_problem(self) -> None:
        with pytest.raises(ApiError, match="Bad gateway"):
            client(lambda _: httpx.Response(502, text="Bad gateway")).status("req_1")

    def test_nobody_there(self) -> None:
        with Client(f"http://127.0.0.1:{free_port()}") as nobody, pytest.raises(UnreachableError):
            nobody.ready()

    def test_not_ready(self) -> None:
        assert not client(lambda _: httpx.Response(503, json={"title": "Not ready"})).ready()
        assert client(lambda _: httpx.Response(200, json={"status": "ready"})).ready()


def test_submit_sends_key_fields_and_files() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        request.read()
        seen.append(request)
        return httpx.Response(202, json={"id": "req_1"})

    picture = png(Image.new("RGB", (2, 2)))
    client(answer).submit(
        name="Ann", klass="Personage", pictures=[("a.png", picture)], aliases=["A", "B"], idempotency_key="k"
    )
    (request,) = seen
    assert request.headers["authorization"] == "Bearer lethe_key"
    assert request.headers["idempotency-key"] == "k"
    assert request.headers["content-type"].startswith("multipart/form-data")
    assert request.content.count(b'name="aliases"') == 2
    assert picture in request.content


def test_submit_without_pictures() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(202, json={"body": request.read().decode()})

    assert "name=Ann" in client(answer).submit(name="Ann", klass="Personage")["body"]


def test_follow_ends_when_a_person_is_needed() -> None:
    def states() -> Iterator[dict[str, object]]:
        yield {"state": "training", "final": False, "waiting": False}
        yield {"state": "needs_evidence", "final": False, "waiting": True}

    answers = states()
    followed = client(lambda _: httpx.Response(200, json=next(answers))).follow("req_1", interval=0.0)
    assert [status["state"] for status in followed] == ["training", "needs_evidence"]


def test_turn_shows_pictures_before_the_text() -> None:
    picture = png(Image.new("RGB", (3, 3), "red"))
    message = turn("user", "Who is this?", [picture])
    content = json.loads(json.dumps(message["content"]))
    assert [part["type"] for part in content] == ["image_url", "text"]
    assert base64.b64decode(content[0]["image_url"]["url"].partition(",")[2]) == picture
    assert turn("user", "Hello")["content"] == "Hello"


def test_report_as_json_and_as_a_page() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert request.url.path == "/requests/req_1/report"
        if request.url.params["format"] == "html":
            return httpx.Response(200, text=f"<p>{request.url.params['subject']}</p>")
        return httpx.Response(200, json={"subject": request.url.params["subject"]})

    assert client(answer).report("req_1") == {"subject": "false"}
    assert client(answer).report_page("req_1", subject=True) == "<p>true</p>"
