"""Pages of figures: all requests over time, errors by experts, and the gate's scores."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response

from app.api.deps import SessionDep, SettingsDep
from app.chat.errors import EngineBusy
from app.chat.schemas import GateScores
from app.dashboard.engine import engine_of
from app.dashboard.rendering import render
from app.dashboard.session import Visitor, visitor
from app.removal.acting import OPERATORS, READERS
from app.removal.lifelong import LifelongMetric, LifelongService
from app.removal.reading import ReadingService
from app.removal.states import State

SHOWN = 30
"""Requests and generations of the heat map: 900 cells keep the page within 150 kB."""
router = APIRouter(include_in_schema=False)
Readers = Annotated[Visitor, Depends(visitor(*READERS))]


@router.get("/dashboard/verification")
def verification(
    request: Request,
    who: Readers,
    session: SessionDep,
    settings: SettingsDep,
    metric: Annotated[LifelongMetric, Query()] = "forget_quality",
) -> Response:
    """Show what was measured; the gate's scores, which concern all tenants, to operators alone."""
    service, reading = LifelongService(session), ReadingService(session, settings)
    newest = reading.listed(who.principal, states=(State.ACTIVE,), after=None, limit=1).items
    gate, why = _gate(request) if who.has(*OPERATORS) else (None, None)
    return render(
        request,
        "verification.html",
        title="Verification",
        metric=metric,
        heat=service.heat_map(who.principal, metric, requests=SHOWN, generations=SHOWN),
        curve=service.curve(who.principal),
        newest=reading.status(who.principal, newest[0].id) if newest else None,
        gate=gate,
        own=service.own_views(who.principal),
        why=why,
        operator=who.has(*OPERATORS),
    )


def _gate(request: Request) -> tuple[GateScores | None, str | None]:
    """Return the gate's scores, or why there are none."""
    try:
        engine = engine_of(request)
    except EngineBusy as error:
        return None, error.detail
    from app.chat.compare import gate_scores

    return gate_scores(engine), None
