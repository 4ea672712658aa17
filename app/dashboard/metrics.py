"""`GET /metrics`: figures for Prometheus, of the whole service and of the replica that is asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, cast

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, Gauge, generate_latest

from app.accounts.principal import Principal
from app.api.deps import SessionDep, SettingsDep, require
from app.api.engine import ServingEngine
from app.api.problems import responses
from app.api.routes import CommittingRoute
from app.dashboard.repository import FigureRepository
from app.registry.service import RegistryService
from app.removal.states import STAGES, WORKING, State

router = APIRouter(tags=["health"], route_class=CommittingRoute)

STAGE_HOURS, SCORE_DAYS, DELIVERY_HOURS = 24, 30, 1
"""How far back the figures look that are no counts of what is now."""


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
    _work_figures(figures, gauge)
    _webhook_figures(figures, gauge)
    return registry


def _work_figures(figures: FigureRepository, gauge: Callable[..., Gauge]) -> None:
    """How long the worker's stages take, and what verification says."""
    seconds = gauge(
        "stage_seconds", "Time in a stage, of requests that left it in the last day.", "stage", "quantile"
    )
    left = gauge("stage_requests", "Requests that left a stage in the last day.", "stage")
    stages = {state.value: stage for state, stage in zip(WORKING, STAGES, strict=True)}
    for stage in STAGES:
        left.labels(stage).set(0)
    for times in figures.stage_times([*stages], STAGE_HOURS):
        stage = stages[times.state]
        left.labels(stage).set(times.n)
        seconds.labels(stage, "0.5").set(times.median)
        seconds.labels(stage, "0.95").set(times.p95)
    told = "Measured before publishing, in the last 30 days."
    value = gauge("verification_score", told, "metric", "statistic")
    measured = gauge("verifications", "How many of them.", "metric")
    failed = gauge("verifications_failed", "How many of them fell short of the policy.", "metric")
    for score in figures.scores(SCORE_DAYS):
        measured.labels(score.metric).set(score.n)
        failed.labels(score.metric).set(score.failed)
        for statistic, found in (("mean", score.mean), ("min", score.least), ("max", score.most)):
            value.labels(score.metric, statistic).set(found)


def _webhook_figures(figures: FigureRepository, gauge: Callable[..., Gauge]) -> None:
    counts, attempts = figures.webhooks(), figures.deliveries(DELIVERY_HOURS)
    webhooks = gauge("webhooks", "Registered webhooks.", "state")
    tried = gauge("webhook_attempts", "Attempts at delivering in the last hour.", "outcome")
    for ok, state, outcome in ((True, "enabled", "delivered"), (False, "disabled", "failed")):
        webhooks.labels(state).set(counts.get(ok, 0))
        tried.labels(outcome).set(attempts.get(ok, 0))
    waiting, oldest = figures.messages_waiting()
    gauge("webhook_messages_waiting", "Messages that enabled webhooks have not got yet.").set(waiting)
    gauge("webhook_messages_oldest_seconds", "Age of the oldest of them.").set(oldest)
