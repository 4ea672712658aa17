"""Celery tasks: thin. What they do is in workers/pipeline.py."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import structlog
from celery import Task

from app.kit.tracing import span
from app.settings import get_settings
from workers.celery_app import app

if TYPE_CHECKING:
    from workers.runtime import Runtime


@lru_cache(maxsize=1)
def runtime() -> Runtime:
    """Return this process's runtime, started on first use: the main process never loads the model."""
    from workers.runtime import Runtime

    return Runtime.start(get_settings())


@app.task(name="lethe.process_request", bind=True)  # type: ignore[untyped-decorator]  # celery ships no types
def process_request(task: Task, request_id: str) -> str | None:
    """Work on a removal request until it is active or waits for somebody; return its state."""
    from workers.pipeline import process

    parent = task.request.get("traceparent") or (task.request.headers or {}).get("traceparent")
    with (
        structlog.contextvars.bound_contextvars(request=request_id, task=task.request.id),
        span("process request", parent=parent, kind="consumer", request=request_id) as traced,
    ):
        state = process(runtime(), request_id)
        traced.set_attribute("lethe.state", state.value if state is not None else "taken by another")
    return state.value if state is not None else None
