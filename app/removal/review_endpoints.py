"""HTTP for what a reviewer looks at: the evidence, the policy, what was measured of all requests together."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query
from fastapi.responses import Response

from app.accounts.principal import Principal
from app.api.deps import SessionDep, SettingsDep, require
from app.api.pagination import Cursor, Limit, PageOf, decode_number, encode_cursor
from app.api.problems import responses
from app.api.routes import CommittingRoute
from app.removal.acting import OPERATORS, READERS
from app.removal.errors import (
    EvidenceGone,
    EvidenceNotFound,
    PolicyChanged,
    PolicyOfAll,
    RequestNotFound,
)
from app.removal.lifelong import LifelongMetric, LifelongService
from app.removal.policies import PolicyService
from app.removal.reading import ReadingService
from app.removal.schemas import (
    EvidenceView,
    HeatMapView,
    LifelongView,
    OwnViewsView,
    PointView,
    PolicyChange,
    PolicyVersionView,
    PolicyView,
)

router = APIRouter(tags=["removal"], route_class=CommittingRoute)

Readers = Annotated[Principal, Depends(require(*READERS))]
_OPERATORS = Depends(require(*OPERATORS))
Operators = Annotated[Principal, _OPERATORS]
RequestId = Annotated[str, Path(description="Id of a removal request: `req_...`")]
EvidenceId = Annotated[str, Path(max_length=64, description="Id of a picture: `evd_...`")]


@router.get(
    "/requests/{request_id}/evidence", summary="List the pictures", responses=responses(RequestNotFound)
)
def list_evidence(
    request_id: RequestId, principal: Operators, session: SessionDep, settings: SettingsDep
) -> list[EvidenceView]:
    """List the request's pictures, those that were deleted too, without looking at them."""
    return ReadingService(session, settings).evidence(principal, request_id)


@router.get(
    "/requests/{request_id}/evidence/{evidence_id}",
    summary="Look at a picture",
    response_class=Response,
    responses={
        200: {"description": "The picture.", "content": {"image/png": {}}},
        **responses(RequestNotFound, EvidenceNotFound, EvidenceGone),
    },
)
def get_evidence(
    request_id: RequestId,
    evidence_id: EvidenceId,
    principal: Operators,
    session: SessionDep,
    settings: SettingsDep,
) -> Response:
    """Return one picture as it is kept, decrypted for this answer; the access is audited."""
    content = ReadingService(session, settings).picture(principal, request_id, evidence_id)
    return Response(content, media_type="image/png", headers={"Cache-Control": "no-store"})


@router.get("/policy", summary="The rules in force", dependencies=[_OPERATORS], responses=responses())
def get_policy(session: SessionDep, settings: SettingsDep) -> PolicyView:
    """Return the policy that the next approval takes its snapshot of."""
    return PolicyService(session, settings).view()


@router.put("/policy", summary="Change the rules", responses=responses(PolicyOfAll, PolicyChanged))
def put_policy(
    principal: Operators, session: SessionDep, settings: SettingsDep, body: PolicyChange
) -> PolicyView:
    """Make a new version of the policy, for requests that are approved from now on.

    Requests that were approved before keep the rules of their own approval, also when they are retried. For
    operators of the tenant `root`: it concerns everybody's requests. Sending what is in force already makes
    no new version.
    """
    return PolicyService(session, settings).change(principal, body)


@router.get(
    "/policy/versions",
    summary="How the rules changed",
    dependencies=[_OPERATORS],
    responses=responses(),
)
def list_policy_versions(
    session: SessionDep, settings: SettingsDep, limit: Limit = 50, cursor: Cursor = None
) -> PageOf[PolicyVersionView]:
    """List what was set, newest first. Before version 1 the settings were the policy."""
    page = PolicyService(session, settings).history(after=decode_number(cursor), limit=limit)
    return PageOf(
        items=[PolicyVersionView.model_validate(row) for row in page.items],
        next=encode_cursor(page.items[-1].version) if page.more else None,
    )


@router.get("/measurements/lifelong", summary="All requests over time", responses=responses())
def get_lifelong(
    principal: Readers,
    session: SessionDep,
    metric: Annotated[LifelongMetric, Query(description="Of the heat map.")] = "forget_quality",
    requests: Annotated[int, Query(ge=1, le=200)] = 40,
    generations: Annotated[int, Query(ge=1, le=200)] = 40,
) -> LifelongView:
    """Return what was measured again after every publish, and how the subjects' own views score."""
    service = LifelongService(session)
    shown = service.heat_map(principal, metric, requests=requests, generations=generations)
    return LifelongView(
        heat_map=HeatMapView.model_validate(shown),
        curve=[PointView.model_validate(point) for point in service.curve(principal)],
        own_views=OwnViewsView.model_validate(service.own_views(principal)),
    )
