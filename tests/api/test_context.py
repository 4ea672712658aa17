"""What every request carries: an id in the answer and in all its log lines, one line in the log, one span."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator

import pytest
import structlog
from fastapi.testclient import TestClient
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from app.db.models import OutboxMessage
from app.kit.logging import configure_logging
from app.kit.tracing import configure_tracing
from app.main import create_app
from app.settings import Settings
from tests.service import Service, assert_problem
from workers.outbox import celery_publisher

Lines = Callable[[], list[dict[str, object]]]


@pytest.fixture
def lines(service: Service) -> Iterator[Lines]:
    """Return the log so far, line by line."""
    sink = io.StringIO()
    configure_logging(json=True)
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(file=sink))
    yield lambda: [json.loads(line) for line in sink.getvalue().splitlines()]
    configure_logging(json=False)


class TestRequestId:
    def test_of_ones_own(self, shared: Service) -> None:
        answers = [shared.client.get("/healthz").headers["x-request-id"] for _ in range(2)]
        assert len(set(answers)) == 2
        assert all(len(found) == 32 for found in answers)

    def test_the_clients(self, shared: Service) -> None:
        response = shared.get("/requests", headers={"X-Request-Id": "build-42.a"})
        assert response.headers["x-request-id"] == "build-42.a"

    @pytest.mark.parametrize("given", ["a b", "x" * 65, "a\tb", "<script>"])
    def test_one_that_could_forge_a_log(self, shared: Service, given: str) -> None:
        assert shared.get("/requests", headers={"X-Request-Id": given}).headers["x-request-id"] != given

    def test_of_what_went_wrong(self, own_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(*_: object) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr("app.api.health._redis", broken)
        app = create_app(own_settings, with_engine=False)
        with TestClient(app, raise_server_exceptions=False) as client:
            response = client.get("/readyz", headers={"X-Request-Id": "mine"})
        problem = assert_problem(response, 500, "internal-error")
        assert "X-Request-Id" in problem["hint"]
        assert response.headers["x-request-id"] == "mine"
        assert len([1 for name in response.headers if name == "x-request-id"]) == 1


class TestLog:
    def test_one_line_with_the_routes_template(self, service: Service, lines: Lines) -> None:
        service.get("/requests/Elodie%20Brandt/status?x=Elodie", headers={"X-Request-Id": "mine"})
        service.client.get("/healthz")
        found = lines()
        (line,) = [one for one in found if one["event"] == "answered"]
        told = {"method": "GET", "route": "/requests/{request_id}/status", "status": 404}
        assert told | {"request_id": "mine"} | line == line
        assert "Elodie" not in json.dumps(found)

    def test_address_that_is_none(self, service: Service, lines: Lines) -> None:
        service.client.get("/Elodie")
        (line,) = [one for one in lines() if one["event"] == "answered"]
        assert (line["route"], line["status"]) == ("(none)", 404)


@pytest.fixture
def spans(service: Service) -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    configure_tracing(None, "test", exporter)
    yield exporter
    configure_tracing(None, "test")


class TestTraces:
    def test_off(self, service: Service) -> None:
        service.file()
        with service.sessions() as session:
            assert session.query(OutboxMessage).one().traceparent is None

    def test_a_request_and_what_it_leaves_for_the_worker(
        self, service: Service, spans: InMemorySpanExporter
    ) -> None:
        trace = "0af7651916cd43dd8448eb211c80319c"
        headers = {"traceparent": f"00-{trace}-b7ad6b7169203331-01"}
        response = service.post(
            "/unlearn-requests", json={"name": "Elodie", "class": "Personage"}, headers=headers
        )
        assert response.status_code == 202
        (found,) = spans.get_finished_spans()
        assert found.name == "POST /unlearn-requests"
        assert found.context is not None
        assert f"{found.context.trace_id:032x}" == trace
        assert dict(found.attributes or {})["http.response.status_code"] == 202
        assert "Elodie" not in found.to_json()

        with service.sessions() as session:
            row = session.query(OutboxMessage).one()
        assert row.traceparent == f"00-{trace}-{found.context.span_id:016x}-01"
        sent: dict[str, object] = {}

        class App:
            def send_task(self, *_: object, **arguments: object) -> None:
                sent.update(arguments)

        celery_publisher(App())(row)
        assert sent["headers"] == {"traceparent": row.traceparent}
