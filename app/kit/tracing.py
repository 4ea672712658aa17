"""Traces (OpenTelemetry) from a request over HTTP to its publication; nothing unless they are configured.

Spans carry ids, states and figures. Nothing personal is ever an attribute: traces are kept by other systems.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, TypeAlias

from app.kit.errors import ConfigurationError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Tracer

Value: TypeAlias = str | int | float | bool

_HEADER = "traceparent"
_tracer: Tracer | None = None


class Span(Protocol):
    """What can be said about a span while it is open."""

    def update_name(self, name: str) -> None:
        """Give it the name by which it is found."""

    def set_attribute(self, key: str, value: Value) -> None:
        """Add a fact; never a personal one."""


class _Nothing:
    """Stands for a span where there is no tracing."""

    def update_name(self, name: str) -> None:
        """Do nothing."""

    def set_attribute(self, key: str, value: Value) -> None:
        """Do nothing."""


_NOTHING = _Nothing()


def configure_tracing(endpoint: str | None, service: str, exporter: SpanExporter | None = None) -> None:
    """Send this process's spans to a collector (OTLP over HTTP), or, with None, make none from now on.

    Args:
        endpoint: base URL, such as `http://collector:4318`.
        service: name of the process's kind, `lethe-api` or `lethe-worker`.
        exporter: instead of the endpoint; gets each span at once.

    Raises:
        ConfigurationError: the extra `otel` is not installed.
    """
    global _tracer
    if endpoint is None and exporter is None:
        _tracer = None
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
    except ImportError as error:
        raise ConfigurationError(
            f"LETHE_OTLP_ENDPOINT: traces need the extra `otel` (pip install 'lethe[otel]'): {error}"
        ) from error
    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    if exporter is not None:
        provider.add_span_processor(SimpleSpanProcessor(exporter))
    else:
        url = f"{(endpoint or '').rstrip('/')}/v1/traces"
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=url)))
    _tracer = provider.get_tracer("lethe")


@contextmanager
def span(name: str, *, parent: str | None = None, kind: str = "internal", **facts: Value) -> Iterator[Span]:
    """Open a span until the end of the block; an error that leaves it is noted by its type alone.

    Args:
        name: short, the same for every occurrence.
        parent: W3C `traceparent` of the span it follows from, if that is in another process.
        kind: `internal`, `server` or `consumer`.
        facts: ids, states, figures.
    """
    if _tracer is None:
        yield _NOTHING
        return
    from opentelemetry.context import Context
    from opentelemetry.trace import SpanKind, StatusCode
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    context = None
    if parent or kind != "internal":
        # From nothing: a server's next request on a connection begins in the context of the one before.
        context = TraceContextTextMapPropagator().extract({_HEADER: parent} if parent else {}, Context())
    with _tracer.start_as_current_span(
        name,
        context,
        SpanKind[kind.upper()],
        {f"lethe.{key}": value for key, value in facts.items()},
        record_exception=False,  # its message may be anything
        set_status_on_exception=False,
    ) as found:
        try:
            yield found
        except BaseException as error:
            found.set_status(StatusCode.ERROR, type(error).__name__)
            raise


def traceparent() -> str | None:
    """Return the open span as a W3C `traceparent`, for whoever goes on elsewhere; None without tracing."""
    if _tracer is None:
        return None
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return carrier.get(_HEADER)


def parent_of(headers: Mapping[str, str]) -> str | None:
    """Return the `traceparent` among headers."""
    return headers.get(_HEADER)
