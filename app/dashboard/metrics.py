"""`GET /metrics`: figures for Prometheus, of the whole service and of the replica that is asked."""

from __future__ import annotations

from typing import Annotated, cast

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, Gauge, generate_latest

from app.accounts.principal import Principal
from app.api.deps import SessionDep, SettingsDep, require
from app.api.engine import ServingEngine
from app.api.problems import responses
from app.dashboard.repository import FigureRepository
from app.registry.service import RegistryService
from app.removal.states import State

router = APIRouter(tags=["health"])


@router.get(
    "/metrics",
    summary="Figures for Prometheus",
    response_class=Response,
    responses={
        200: {"description": "The text format.", "content": {"text/plain": {"schema": {"type": "string"}}}},
        **responses(),
    },
)
def metrics(
    request: Request,
    session: SessionDep,
    settings: SettingsDep,
    _: Annotated[Principal, Depends(require("metrics"))],
) -> Response:
    """Count over all tenants; nothing says who is forgotten, who asked, or what.

    Requests, jobs and the registry are the same from every replica. `lethe_chat*`, `lethe_gate*`,
    `lethe_guard*` and `process_*` are those of the replica that answers: scrape each.
    """
    figures = service_figures(FigureRepository(session), RegistryService(session, settings))
    engine = cast("ServingEngine | None", getattr(request.app.state, "engine", None))
    text = generate_latest(figures) + (generate_latest(engine.metrics) if engine is not None else b"")
    return Response(text, headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4, "Cache-Control": "no-store"})


def service_figures(figures: FigureRepository, service: RegistryService) -> CollectorRegistry:
    """Return what the database says now."""
    registry = CollectorRegistry()

    def gauge(name: str, told: str, *labels: str) -> Gauge:
        return Gauge(f"lethe_{name}", told, labels, registry=registry)

    counts = figures.requests_by_state()
    requests = gauge("requests", "Removal requests by state.", "state")
    for state in State:
        requests.labels(state.value).set(counts.get(state, 0))
    waiting, oldest = figures.jobs_waiting()
    gauge("jobs_waiting", "Jobs that no worker has been handed yet.").set(waiting)
    gauge("jobs_oldest_seconds", "Age of the oldest of them.").set(oldest)
    gauge("leases_live", "Requests that a worker holds.").set(figures.live_leases())
    newest = service.newest()
    gauge("registry_generation", "The newest generation.").set(newest)
    gauge("experts_live", "Experts in it.").set(len(service.live_experts(newest)))
    gauge("interim_protections", "Subjects refused without an expert.").set(
        len(service.live_interims(newest))
    )
    served = gauge(
        "replica_generation", "What each live replica has acknowledged; -1 before the first.", "replica"
    )
    failing = gauge("replica_failing", "Whether it could not load a generation.", "replica")
    for replica in service.live_replicas():
        served.labels(replica.id).set(replica.generation)
        failing.labels(replica.id).set(int(replica.error is not None))
    return registry
