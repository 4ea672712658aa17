"""The client: what goes over the wire, and what comes back when something is wrong."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator

import httpx
import pytest
from PIL import Image

from app.client import ApiError, Client, StreamBrokenError, UnreachableError, png, turn
from app.client.errors import (
    ConflictError,
    EngineBusyError,
    IllegalTransitionError,
    RateLimitedError,
    ServerError,
    UnauthenticatedError,
)
from app.embedded.process import free_port

Answer = Callable[[httpx.Request], httpx.Response]


def client(answer: Answer, retries: int = 2) -> Client:
    """A client whose server is a function."""
    return Client("http://127.0.0.1:1", "lethe_key", retries=retries, transport=httpx.MockTransport(answer))


@pytest.fixture(autouse=True)
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long the client would have slept."""
    slept: list[float] = []
    monkeypatch.setattr("app.client.sync.time.sleep", slept.append)
    return slept


class Flaky:
    """Answers with these in turn, the last one for ever; remembers what it was asked."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.answers = list(answers)
        self.seen: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        request.read()
        self.seen.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def problem(status: int, type: str, **headers: str) -> httpx.Response:
    document = {"type": f"urn:lethe:problem:{type}", "title": type, "hint": "Do something."}
    return httpx.Response(status, json=document, headers=headers)


def ok(**body: object) -> httpx.Response:
    return httpx.Response(200, json=body)


class TestErrors:
    def test_problem_document(self) -> None:
        problem = {"title": "Too large", "detail": "11 MB of at most 10.", "hint": "Send a smaller one."}
        with pytest.raises(ApiError, match=r"11 MB of at most 10\. \(HTTP 413\)") as caught:
            client(lambda _: httpx.Response(413, json=problem)).status("req_1")
        assert caught.value.hint == "Send a smaller one."
        assert caught.value.status == 413

    def test_something_else_than_a_problem(self) -> None:
        with pytest.raises(ApiError, match="Bad gateway"):
            client(lambda _: httpx.Response(502, text="Bad gateway"), retries=0).status("req_1")

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
        return httpx.Response(202, json={"id": request.read().decode()})

    assert "name=Ann" in client(answer).submit(name="Ann", klass="Personage")["id"]


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


class TestRetries:
    def test_reading_is_repeated(self) -> None:
        server = Flaky(problem(503, "unavailable"), httpx.ReadTimeout("slow"), ok(id="req_1"))
        assert client(server).status("req_1")["id"] == "req_1"
        assert len(server.seen) == 3

    def test_as_long_as_the_server_asks(self, naps: list[float]) -> None:
        server = Flaky(problem(429, "rate-limited", **{"Retry-After": "7"}), ok(id="req_1"))
        client(server).status("req_1")
        assert naps == [7.0]

    def test_filing_is_repeated_under_one_key(self) -> None:
        server = Flaky(httpx.ReadError("gone"), problem(409, "idempotency-in-flight"), ok(id="req_1"))
        client(server).submit(name="Ann", klass="Personage", pictures=[("a.png", b"x")])
        assert len({request.headers["idempotency-key"] for request in server.seen}) == 1
        assert len(server.seen) == 3
        assert len({request.content.count(b"a.png") for request in server.seen}) == 1

    def test_approval_may_have_arrived_and_is_not(self) -> None:
        server = Flaky(httpx.ReadTimeout("slow"))
        with pytest.raises(UnreachableError):
            client(server).approve("req_1")
        assert len(server.seen) == 1

    def test_approval_that_never_left_is(self) -> None:
        server = Flaky(httpx.ConnectError("refused"), ok(state="queued"))
        assert client(server).approve("req_1")["state"] == "queued"

    def test_what_will_not_pass_is_not(self) -> None:
        server = Flaky(problem(401, "unauthenticated"))
        with pytest.raises(UnauthenticatedError):
            client(server).requests()
        assert len(server.seen) == 1

    def test_gives_up(self) -> None:
        server = Flaky(problem(503, "engine-busy"))
        with pytest.raises(EngineBusyError):
            client(server).chat([turn("user", "Hello")])
        assert len(server.seen) == 3


class TestKinds:
    def test_a_kind_and_its_hint(self) -> None:
        refused = problem(409, "illegal-transition", **{"X-Request-Id": "abc"})
        with pytest.raises(IllegalTransitionError) as caught:
            client(lambda _: refused).approve("req_1")
        assert isinstance(caught.value, ConflictError)
        assert (caught.value.type, caught.value.hint) == ("illegal-transition", "Do something.")
        assert caught.value.request_id == "abc"

    def test_a_kind_of_tomorrow(self) -> None:
        with pytest.raises(ConflictError) as caught:
            client(lambda _: problem(409, "not-known-yet")).approve("req_1")
        assert type(caught.value) is ConflictError

    def test_a_status_of_tomorrow(self) -> None:
        with pytest.raises(ServerError):
            client(lambda _: problem(599, "odd")).approve("req_1")

    def test_rate_limit(self) -> None:
        refused = problem(429, "rate-limited", **{"Retry-After": "3"})
        with pytest.raises(RateLimitedError) as caught:
            client(lambda _: refused, retries=0).chat([turn("user", "Hello")])
        assert caught.value.retry_after == 3.0


def sse(*frames: str) -> httpx.Response:
    return httpx.Response(200, headers={"Content-Type": "text/event-stream"}, text="".join(frames))


class TestStreams:
    def test_chat(self) -> None:
        server = Flaky(
            sse(
                'data: {"delta": "Good "}\n\n',
                ": ping\n\n",
                'data: {"delta": "day."}\n\n',
                'data: {"response": {"finish_reason": "stop"}}\n\n',
                "data: [DONE]\n\n",
            )
        )
        ends: list[object] = []
        pieces = list(client(server).stream_chat([turn("user", "Hello")], ended=ends.append))
        assert pieces == ["Good ", "day."]
        assert ends == [{"finish_reason": "stop"}]
        assert json.loads(server.seen[0].content)["stream"] is True

    def test_chat_that_fails_on_the_way(self) -> None:
        server = Flaky(
            sse(
                'data: {"delta": "Good "}\n\n',
                'data: {"error": {"title": "Broken", "hint": "Again."}}\n\n',
                "data: [DONE]\n\n",
            )
        )
        with pytest.raises(StreamBrokenError, match="Broken") as caught:
            list(client(server).stream_chat([turn("user", "Hello")]))
        assert caught.value.hint == "Again."

    def test_chat_without_an_end(self) -> None:
        with pytest.raises(UnreachableError):
            list(client(lambda _: sse('data: {"delta": "Go"}\n\n')).stream_chat([turn("user", "Hello")]))

    def test_chat_refused(self) -> None:
        with pytest.raises(UnauthenticatedError):
            list(client(lambda _: problem(401, "unauthenticated")).stream_chat([turn("user", "Hello")]))

    def test_events_are_taken_up_where_they_broke_off(self) -> None:
        def half() -> Iterator[bytes]:
            yield b'id: 4\nevent: state\ndata: {"id": 4, "state": "queued"}\n\n'
            raise httpx.ReadError("cut")

        broken = httpx.Response(200, headers={"Content-Type": "text/event-stream"}, content=half())
        server = Flaky(broken, sse('id: 9\nevent: state\ndata: {"id": 9, "state": "active"}\n\n'))
        assert [event["id"] for event in client(server).events("req_1")] == [4, 9]
        assert [request.headers.get("last-event-id") for request in server.seen] == [None, "4"]

    def test_nothing_more_to_come(self) -> None:
        assert list(client(lambda _: httpx.Response(204)).events("req_1", after=9)) == []


@pytest.mark.parametrize(
    ("state", "action"), [("training", "cancel"), ("active", "revoke"), ("failed", "revoke")]
)
def test_withdraw_asks_for_what_the_state_allows(state: str, action: str) -> None:
    server = Flaky(ok(state=state))
    client(server).withdraw("req_1", reason="no more")
    assert server.seen[-1].url.path == f"/requests/req_1/{action}"
    assert json.loads(server.seen[-1].content) == {"reason": "no more"}
