"""Traces: spans that follow from each other across processes, nothing personal in them; off, nothing."""

from __future__ import annotations

import builtins
import http.server
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from app.kit import tracing
from app.kit.errors import ConfigurationError
from app.kit.tracing import configure_tracing, span, traceparent


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    configure_tracing(None, "test", exporter)
    yield exporter
    configure_tracing(None, "test")


def test_children_and_children_in_other_processes(spans: InMemorySpanExporter) -> None:
    with span("outer") as outer:
        outer.update_name("renamed")
        outer.set_attribute("http.route", "/")
        carried = traceparent()
    with span("elsewhere", parent=carried, kind="consumer", request="req_1"), span("inner"):
        pass
    first, inner, elsewhere = spans.get_finished_spans()
    assert (first.name, elsewhere.name, inner.name) == ("renamed", "elsewhere", "inner")
    assert first.context is not None
    assert elsewhere.context is not None
    assert elsewhere.parent is not None
    assert inner.parent is not None
    assert elsewhere.parent.span_id == first.context.span_id
    assert inner.parent.span_id == elsewhere.context.span_id
    assert {s.context.trace_id for s in (first, inner, elsewhere) if s.context} == {first.context.trace_id}
    assert dict(elsewhere.attributes or {}) == {"lethe.request": "req_1"}


def test_what_a_server_answers_follows_from_nothing_that_is_open(spans: InMemorySpanExporter) -> None:
    with span("request before on the same connection"), span("next request", kind="server"):
        pass
    found = spans.get_finished_spans()[0]
    assert (found.name, found.parent) == ("next request", None)


def test_an_error_is_noted_by_its_type_alone(spans: InMemorySpanExporter) -> None:
    def fail() -> None:
        with span("work"):
            raise ValueError("Elodie Brandt")

    with pytest.raises(ValueError, match="Elodie"):
        fail()
    (found,) = spans.get_finished_spans()
    assert found.status.description == "ValueError"
    assert "Elodie" not in found.to_json()


def test_off() -> None:
    with span("work", request="req_1") as found:
        found.set_attribute("x", 1)
        found.update_name("y")
        assert traceparent() is None


def test_off_loads_nothing() -> None:
    code = "import sys, app.main, workers.tasks; print('opentelemetry.exporter' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: object) -> object:
        if name.startswith("opentelemetry.exporter"):
            raise ImportError(name)
        return real(name, *arguments)  # type: ignore[arg-type]  # handed on as they came

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigurationError, match=r"lethe\[otel\]"):
        configure_tracing("http://127.0.0.1:4318", "test")


def test_to_a_collector() -> None:
    got: list[str] = []
    arrived = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            got.append(self.path)
            self.send_response(200)
            self.end_headers()
            arrived.set()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as collector:
        threading.Thread(target=collector.serve_forever, args=(0.01,), daemon=True).start()
        configure_tracing(f"http://127.0.0.1:{collector.server_port}/", "test")
        with span("work"):
            pass
        flush = tracing._tracer.span_processor.force_flush  # type: ignore[union-attr]  # the SDK's tracer
        assert flush(5000)
        collector.shutdown()
    configure_tracing(None, "test")
    assert got == ["/v1/traces"]
