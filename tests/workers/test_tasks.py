"""The Celery task: thin, but it goes on with the trace and names its request in every log line."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import structlog
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from app.kit.tracing import configure_tracing, span
from app.removal.states import State
from workers import tasks

TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    configure_tracing(None, "test", exporter)
    yield exporter
    configure_tracing(None, "test")


def test_goes_on_with_the_trace_of_whoever_asked(
    spans: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    bound: list[dict[str, object]] = []

    def process(_: object, __: str) -> State:
        bound.append(structlog.contextvars.get_contextvars())
        with span("train"):
            return State.ACTIVE

    monkeypatch.setattr("workers.pipeline.process", process)
    monkeypatch.setattr(tasks, "runtime", lambda: None)
    done = tasks.process_request.apply(
        args=["req_1"], headers={"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}, task_id="out_1"
    )
    assert done.result == "active"
    train, whole = spans.get_finished_spans()
    assert (train.name, whole.name) == ("train", "process request")
    assert whole.context is not None
    assert train.parent is not None
    assert f"{whole.context.trace_id:032x}" == TRACE
    assert train.parent.span_id == whole.context.span_id
    assert dict(whole.attributes or {}) == {"lethe.request": "req_1", "lethe.state": "active"}
    assert bound == [{"request": "req_1", "task": "out_1"}]
    assert structlog.contextvars.get_contextvars() == {}
