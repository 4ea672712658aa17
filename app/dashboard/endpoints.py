"""`GET /`: the front page."""

from __future__ import annotations

from typing import cast

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from app.api.deps import SessionDep, SettingsDep
from app.api.engine import ServingEngine
from app.dashboard.entrance import router as entrance
from app.dashboard.measured import router as measured
from app.dashboard.metrics import router as metrics_router
from app.dashboard.pages import CONTENT_SECURITY_POLICY, Figures, front_page
from app.dashboard.playground import router as playground
from app.dashboard.policy import router as policy
from app.dashboard.repository import FigureRepository
from app.dashboard.requests import router as requests
from app.dashboard.review import router as review
from app.dashboard.trail import router as trail
from app.registry.service import RegistryService
from app.removal.states import State

router = APIRouter()
for _part in (metrics_router, entrance, requests, review, playground, policy, measured, trail):
    router.include_router(_part)


@router.get("/", response_class=HTMLResponse, include_in_schema=False)
def front(request: Request, session: SessionDep, settings: SettingsDep) -> HTMLResponse:
    """Show whether the service works, and (outside production) how many requests are where."""
    registry = RegistryService(session, settings)
    engine = cast("ServingEngine | None", getattr(request.app.state, "engine", None))
    public = settings.env == "development"
    counts = FigureRepository(session).requests_by_state() if public else {}
    figures = Figures(
        version=request.app.version,
        model=settings.model if public else "set by the operator",
        newest=registry.newest(),
        serving=engine.generation if engine is not None and engine.ready else None,
        requests={state: counts[state] for state in State if state in counts} if public else None,
        replicas=[(r.id, r.generation) for r in registry.live_replicas()] if public else [],
    )
    headers = {"Content-Security-Policy": CONTENT_SECURITY_POLICY, "Cache-Control": "no-store"}
    return HTMLResponse(front_page(figures), headers=headers)
