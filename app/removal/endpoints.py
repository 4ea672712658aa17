"""HTTP for removal requests."""

import json
from collections.abc import Sequence
from typing import Annotated, Any, cast

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from sqlalchemy import Engine
from sqlalchemy.orm import Session
from sse_starlette import EventSourceResponse
from starlette.concurrency import run_in_threadpool

from app.accounts.principal import Principal
from app.api.deps import SessionDep, SettingsDep, require
from app.api.described import links_by_id
from app.api.intake import Body, body_schema
from app.api.negotiation import Format, preferred
from app.api.pagination import Cursor, Limit, PageOf, decode_cursor, encode_cursor
from app.api.problems import responses
from app.api.routes import CommittingRoute, at_most
from app.api.sse import Sent, event_stream, last_event_id
from app.db.session import SessionFactory
from app.kit.errors import BadRequest, InvalidInput, UnsupportedMediaType
from app.kit.pictures import PictureInvalid, PictureTooLarge, PictureTooManyPixels
from app.removal.acting import OPERATORS, OWNERS, READERS, ActingService, Action
from app.removal.certificates import CertificateService
from app.removal.errors import (
    EvidenceGone,
    ExpertNotLive,
    IdempotencyInFlight,
    IdempotencyKeyReused,
    IllegalTransition,
    InvalidText,
    LinkedRequestsStand,
    NothingToGoBy,
    NotMeasuredYet,
    RequestNotFound,
    TextTooLong,
    TooManyPictures,
    UnknownClass,
)
from app.removal.filing import FilingService, read_pictures
from app.removal.reading import ReadingService, event_json, request_view
from app.removal.report import ReportService
from app.removal.report_page import CONTENT_SECURITY_POLICY, page
from app.removal.review_endpoints import router as review_router
from app.removal.schemas import (
    Accepted,
    Denial,
    FailuresView,
    FailureView,
    MorePictures,
    Reason,
    RequestView,
    StatusView,
    Submission,
)
from app.removal.states import State
from app.removal.status import read_status
from app.settings import Settings

router = APIRouter(tags=["removal"], route_class=CommittingRoute)
router.include_router(review_router)

Readers = Annotated[Principal, Depends(require(*READERS))]
Owners = Annotated[Principal, Depends(require(*OWNERS))]
Operators = Annotated[Principal, Depends(require(*OPERATORS))]
RequestId = Annotated[str, Path(description="Id of a removal request: `req_...`")]
_MAX_KEY = 255
_FILED: dict[int | str, dict[str, Any]] = {
    202: {
        "description": "Filed.",
        "links": links_by_id(
            "request_id",
            request="get_request",
            status="get_status",
            events="follow_events",
            report="get_report",
            failures="get_failures",
            certificate="get_certificate",
            evidence="add_evidence",
            approve="approve",
            reject="reject",
            cancel="cancel",
            retry="retry",
            revoke="revoke",
        ),
    }
}


async def _idempotency_key(
    value: Annotated[
        str | None,
        Header(alias="Idempotency-Key", description="Makes repeating the request safe; 1 to 255 characters."),
    ] = None,
) -> str | None:
    if value is None:
        return None
    key = value.strip().removeprefix('"').removesuffix('"')
    if not 1 <= len(key) <= _MAX_KEY or not key.isascii() or not key.isprintable():
        raise InvalidInput(
            "The Idempotency-Key is empty, too long, or not plain ASCII.",
            "Send 1 to 255 printable ASCII characters, such as a UUID.",
        )
    return key


@router.post(
    "/unlearn-requests",
    status_code=202,
    response_model=Accepted,
    summary="File a removal request",
    openapi_extra=body_schema(Submission),
    responses=_FILED | responses(
        BadRequest, UnsupportedMediaType, UnknownClass, NothingToGoBy, InvalidText, TextTooLong,
        TooManyPictures, PictureInvalid, PictureTooLarge, PictureTooManyPixels, IdempotencyKeyReused,
        IdempotencyInFlight,
    ),
)  # fmt: skip
@at_most(4)
def file_request(
    principal: Owners,
    body: Body,
    session: SessionDep,
    settings: SettingsDep,
    response: Response,
    idempotency_key: Annotated[str | None, Depends(_idempotency_key)],
) -> object:
    """File a request for a subject to be forgotten: a name, pictures, or both, and its class.

    It is accepted even if the model may not know the subject; that is found out and reported. A second
    request for the same subject is accepted too, linked to the first, and follows its state.

    Names and pictures are encrypted at rest. Pictures are deleted some days (`LETHE_EVIDENCE_RETENTION_DAYS`,
    7 by default) after the request is active, rejected, cancelled or revoked; the report says when.
    """
    submission = body.validated(Submission)
    filed = FilingService(session, settings).file(principal, submission, body.files, idempotency_key)
    response.headers["Location"] = filed.location
    return filed.body


@router.get("/requests", summary="List removal requests", responses=responses())
def list_requests(
    principal: Readers,
    session: SessionDep,
    settings: SettingsDep,
    state: Annotated[list[State] | None, Query(description="Only these states.")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> PageOf[RequestView]:
    """List the requests this key may see, newest first, without their subjects."""
    page = ReadingService(session, settings).listed(
        principal, states=state or (), after=decode_cursor(cursor), limit=limit
    )
    return PageOf(
        items=[request_view(request) for request in page.items],
        next=encode_cursor(page.items[-1].id) if page.more else None,
    )


@router.get(
    "/requests/{request_id}",
    summary="One removal request",
    responses=responses(RequestNotFound, EvidenceGone),
)
def get_request(
    request_id: RequestId,
    principal: Readers,
    session: SessionDep,
    settings: SettingsDep,
    subject: Annotated[bool, Query(description="Decrypt the subject too; this is audited.")] = False,
) -> RequestView:
    """Return one request."""
    return ReadingService(session, settings).view(principal, request_id, with_subject=subject)


@router.get(
    "/requests/{request_id}/status", summary="Where a request is", responses=responses(RequestNotFound)
)
async def get_status(request_id: RequestId, principal: Readers, request: Request) -> StatusView:
    """Return state, stage, percent, time of every transition, and scores once they exist."""
    reading = cast("Engine", request.app.state.reading_engine)

    def read() -> StatusView:
        with reading.connect() as connection:
            return read_status(connection, principal, request_id)

    return await run_in_threadpool(read)


@router.get(
    "/requests/{request_id}/events",
    summary="Follow a request",
    response_class=Response,
    responses={
        200: {"description": "Server-sent events.", "content": {"text/event-stream": {}}},
        204: {"description": "Nothing will come after `Last-Event-ID`."},
        **responses(RequestNotFound),
    },
)
def follow_events(
    request: Request,
    request_id: RequestId,
    principal: Readers,
    settings: SettingsDep,
    last: Annotated[str, Header(alias="Last-Event-ID", json_schema_extra={"pattern": "^[0-9]{0,18}$"})] = "",
) -> Response:
    """Stream what happens to a request: `state`, `progress` and other events, until it is final."""
    factory = cast("SessionFactory", request.app.state.session_factory)

    def fetch(after: int) -> tuple[Sequence[Sent], bool]:
        with factory.begin() as session:
            found, final = ReadingService(session, settings).events(principal, request_id, after=after)
            return [Sent(e.seq, e.kind, json.dumps(event_json(e))) for e in found], final and not found

    after = last_event_id(last)
    found, ended = fetch(after)
    if ended and not found and after:
        return Response(status_code=204)
    stream: EventSourceResponse = event_stream(fetch, after)
    return stream


@router.post(
    "/requests/{request_id}/approve",
    summary="Approve a request",
    responses=responses(RequestNotFound, IllegalTransition),
)
def approve(
    request_id: RequestId,
    principal: Operators,
    session: SessionDep,
    settings: SettingsDep,
    body: Reason | None = None,
) -> StatusView:
    """Approve: the policy is snapshot onto the request, and the work is queued."""
    return _acted(session, settings, principal, request_id, Action.APPROVE, body)


@router.post(
    "/requests/{request_id}/reject",
    summary="Reject a request",
    responses=responses(RequestNotFound, IllegalTransition),
)
def reject(
    request_id: RequestId, principal: Operators, session: SessionDep, settings: SettingsDep, body: Denial
) -> StatusView:
    """Reject, with a reason code."""
    return _acted(session, settings, principal, request_id, Action.REJECT, body)


@router.post(
    "/requests/{request_id}/cancel",
    summary="Cancel a request",
    responses=responses(RequestNotFound, IllegalTransition, LinkedRequestsStand),
)
def cancel(
    request_id: RequestId,
    principal: Owners,
    session: SessionDep,
    settings: SettingsDep,
    body: Reason | None = None,
) -> StatusView:
    """Cancel a request that is not active yet; while it is worked on, at the worker's next step."""
    return _acted(session, settings, principal, request_id, Action.CANCEL, body)


@router.post(
    "/requests/{request_id}/retry",
    summary="Try a request again",
    responses=responses(RequestNotFound, IllegalTransition, EvidenceGone),
)
def retry(
    request_id: RequestId,
    principal: Operators,
    session: SessionDep,
    settings: SettingsDep,
    body: Reason | None = None,
) -> StatusView:
    """Queue a request again that needed attention."""
    return _acted(session, settings, principal, request_id, Action.RETRY, body)


@router.post(
    "/requests/{request_id}/revoke",
    summary="Withdraw an active or failed request",
    responses=responses(RequestNotFound, IllegalTransition, LinkedRequestsStand),
)
def revoke(
    request_id: RequestId,
    principal: Owners,
    session: SessionDep,
    settings: SettingsDep,
    body: Reason | None = None,
) -> StatusView:
    """End the protection, by an expert or without one: the model answers about the subject as before."""
    return _acted(session, settings, principal, request_id, Action.REVOKE, body)


@router.post(
    "/requests/{request_id}/evidence",
    summary="Add pictures",
    openapi_extra=body_schema(MorePictures),
    responses=responses(
        RequestNotFound, IllegalTransition, BadRequest, UnsupportedMediaType, TooManyPictures, PictureInvalid,
        PictureTooLarge, PictureTooManyPixels,
    ),
)  # fmt: skip
def add_evidence(
    request_id: RequestId, principal: Owners, body: Body, session: SessionDep, settings: SettingsDep
) -> StatusView:
    """Add pictures; a request that waited for them goes back into the queue."""
    ReadingService(session, settings).view(principal, request_id)
    pictures = read_pictures([*body.files, *body.validated(MorePictures).pictures], settings)
    if not pictures:
        raise PictureInvalid("There is no picture in the request.")
    ActingService(session, settings).add_pictures(principal, request_id, pictures)
    return ReadingService(session, settings).status(principal, request_id)


@router.get(
    "/requests/{request_id}/report",
    summary="What was measured",
    response_class=Response,
    responses={
        200: {
            "description": "The report, as JSON or as a page.",
            "content": {"application/json": {"schema": {"type": "object"}}, "text/html": {}},
        },
        **responses(RequestNotFound),
    },
)
def get_report(
    request_id: RequestId,
    principal: Readers,
    session: SessionDep,
    settings: SettingsDep,
    form: Annotated[Format | None, Query(alias="format", description="Instead of `Accept`.")] = None,
    subject: Annotated[
        bool, Query(description="With the subject and some questions and answers; this is audited.")
    ] = False,
    accept: Annotated[str | None, Header(include_in_schema=False)] = None,
) -> Response:
    """Return what was asked, what was measured with n and intervals, what it means, and what to exclude."""
    report = ReportService(session, settings).report(principal, request_id, with_subject=subject)
    headers = {"Vary": "Accept", "Cache-Control": "no-store"}
    if (form or preferred(accept)) == "html":
        headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
        return HTMLResponse(page(report), headers=headers)
    return JSONResponse(report, headers=headers)


@router.get(
    "/requests/{request_id}/failures",
    summary="What went wrong in the last verification",
    responses=responses(RequestNotFound),
)
def get_failures(
    request_id: RequestId, principal: Operators, session: SessionDep, settings: SettingsDep
) -> FailuresView:
    """Return the prompts behind figures that fell short, decrypted; this is audited.

    They are kept until the request is active or has ended.
    """
    found, hidden = ReportService(session, settings).failures(principal, request_id)
    return FailuresView(items=[FailureView.model_validate(row) for row in found], hidden=hidden)


@router.get(
    "/requests/{request_id}/certificate",
    summary="Signed certificate",
    response_class=Response,
    responses={
        200: {"description": "A compact JWS (Ed25519).", "content": {"application/jose": {}}},
        **responses(RequestNotFound, NotMeasuredYet, ExpertNotLive),
    },
)
def get_certificate(
    request_id: RequestId, principal: Readers, session: SessionDep, settings: SettingsDep
) -> Response:
    """Return a signed statement of what was measured; check it with the keys at /.well-known/jwks.json."""
    token = CertificateService(session, settings).issue(principal, request_id)
    return Response(token, media_type="application/jose")


def _acted(
    session: Session,
    settings: Settings,
    principal: Principal,
    request_id: str,
    action: Action,
    body: Reason | None,
) -> StatusView:
    reason = body.reason if body is not None else None
    code = body.reason_code if isinstance(body, Denial) else "other"
    ActingService(session, settings).act(principal, request_id, action, reason=reason, reason_code=code)
    return ReadingService(session, settings).status(principal, request_id)
