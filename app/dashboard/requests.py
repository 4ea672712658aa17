"""Pages about removal requests: the list, filing one, following it, and what may be done with it."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import HTMLResponse, Response
from sqlalchemy.orm import Session

from app.api.deps import SessionDep, SettingsDep
from app.api.intake import RawBody
from app.api.pagination import Cursor, decode_cursor, encode_cursor
from app.dashboard.rendering import render, see_other
from app.dashboard.session import Sent, Visitor, sent, visitor
from app.kit.errors import LetheError
from app.kit.pictures import PictureInvalid
from app.removal.acting import MAY, OWNERS, READERS, ActingService, Action, possible, takes_pictures
from app.removal.certificates import CertificateService
from app.removal.filing import FilingService, read_pictures
from app.removal.reading import ReadingService
from app.removal.records import CLASSES
from app.removal.report import ReportService
from app.removal.report_page import CONTENT_SECURITY_POLICY, page
from app.removal.retention import retention_words
from app.removal.schemas import Denial, Reason, Submission
from app.removal.states import FINAL, WORKING, State
from app.settings import Settings

router = APIRouter(include_in_schema=False)
Readers = Annotated[Visitor, Depends(visitor(*READERS))]
_OWNERS = Depends(visitor(*OWNERS))
OwnersForm = Annotated[Sent, Depends(sent(*OWNERS))]
PAGE = 50
LOG = 200

GROUNDS = {
    "gdpr_art_17": "GDPR Art. 17, erasure",
    "gdpr_art_21": "GDPR Art. 21, objection",
    "ccpa_1798_105": "CCPA § 1798.105, deletion",
    "copyright": "Copyright",
    "trademark": "Trademark",
    "contract": "Contract",
    "court_order": "Court order",
    "other": "Other",
}


@router.get("/dashboard/requests")
def list_requests(
    request: Request,
    who: Readers,
    session: SessionDep,
    settings: SettingsDep,
    state: Annotated[list[State] | None, Query()] = None,
    cursor: Cursor = None,
) -> Response:
    """List requests, newest first."""
    reading = ReadingService(session, settings)
    found = reading.listed(who.principal, states=state or (), after=decode_cursor(cursor), limit=PAGE)
    return render(
        request,
        "requests.html",
        title="Requests",
        found=found.items,
        next=encode_cursor(found.items[-1].id) if found.more else None,
        states=[s.value for s in state or ()],
        counts=reading.counts(who.principal),
    )


@router.get("/dashboard/requests/new", dependencies=[_OWNERS])
def new_request(request: Request, settings: SettingsDep) -> Response:
    """Show the form for a new request, and what becomes of what is sent with it."""
    return _form(request, settings, {}, None)


@router.post("/dashboard/requests")
def file_request(request: Request, form: OwnersForm, session: SessionDep, settings: SettingsDep) -> Response:
    """File a request; sent twice, the form files one."""
    fields: dict[str, object] = {
        "name": form.text("name") or None,
        "aliases": form.text("alias_lines").splitlines(),
        "class": form.text("class"),
        "legal_ground": form.text("legal_ground") or "other",
        "requester": form.text("requester"),
        "note": form.text("note"),
    }
    try:
        fields["facts"] = dict(_fact(line) for line in form.text("fact_lines").splitlines() if line.strip())
        submission = RawBody(fields, []).validated(Submission)
        filed = FilingService(session, settings).file(
            form.visitor.principal, submission, form.files, form.text("once") or None
        )
    except LetheError as error:
        if error.status not in (413, 422):
            raise
        return _form(request, settings, dict(form.fields), error)
    return see_other(f"/dashboard/requests/{filed.body['id']}")


def _fact(line: str) -> tuple[str, str]:
    key, _, value = line.partition(":")
    return key.strip(), value.strip()


def _form(
    request: Request, settings: Settings, fields: dict[str, object], error: LetheError | None
) -> Response:
    return render(
        request,
        "new.html",
        code=error.status if error is not None else 200,
        title="New request",
        classes=CLASSES,
        grounds=GROUNDS,
        fields=fields,
        error=error,
        once=secrets.token_hex(16),
        settings=settings,
    )


@router.get("/dashboard/requests/{request_id}")
def show_request(
    request: Request, request_id: str, who: Readers, session: SessionDep, settings: SettingsDep
) -> Response:
    """Show where a request is, live; what was measured; what may be done."""
    return render(request, "request.html", title="Request", **_seen(session, settings, who, request_id))


@router.get("/dashboard/requests/{request_id}/live")
def live(
    request: Request, request_id: str, who: Readers, session: SessionDep, settings: SettingsDep
) -> Response:
    """Return the part of the page that changes while a request is worked on."""
    found = _seen(session, settings, who, request_id)
    return render(request, "request.html", title="Request", fragment=True, **found)


def _seen(session: Session, settings: Settings, who: Visitor, request_id: str) -> dict[str, Any]:
    reading = ReadingService(session, settings)
    view, status = reading.view(who.principal, request_id), reading.status(who.principal, request_id)
    state = State(status.state)
    evidence = reading.evidence(who.principal, request_id)
    kept = [row for row in evidence if row.purged_at is None]
    purged = [row.purged_at for row in evidence if row.purged_at]
    linked = status.linked_to is not None
    return {
        "view": view,
        "status": status,
        "log": reading.log(who.principal, request_id, limit=LOG),
        "actions": possible(who.principal, state, linked=linked),
        "more_pictures": takes_pictures(who.principal, state, linked=linked),
        "following": state not in FINAL and not status.waiting,
        "working": state in WORKING,
        "kept": retention_words(
            state, len(kept), max(purged, default=None), settings.evidence_retention_days
        ),
        "grounds": GROUNDS,
    }


def _action(action: Action) -> Callable[..., Response]:
    lets_in = Depends(sent(*MAY[action]))

    def act(request_id: str, session: SessionDep, settings: SettingsDep, form: Sent = lets_in) -> Response:
        fields: dict[str, object] = {"reason": form.text("reason") or None}
        code = "other"
        if action is Action.REJECT:
            denial = RawBody(fields | {"reason_code": form.text("reason_code")}, []).validated(Denial)
            reason, code = denial.reason, denial.reason_code
        else:
            reason = RawBody(fields, []).validated(Reason).reason
        ActingService(session, settings).act(
            form.visitor.principal, request_id, action, reason=reason, reason_code=code
        )
        return see_other(f"/dashboard/requests/{request_id}")

    return act


for _one in Action:
    router.post(f"/dashboard/requests/{{request_id}}/{_one}")(_action(_one))


@router.post("/dashboard/requests/{request_id}/evidence")
def add_pictures(request_id: str, form: OwnersForm, session: SessionDep, settings: SettingsDep) -> Response:
    """Send further pictures for a request that waits for them."""
    ReadingService(session, settings).view(form.visitor.principal, request_id)
    pictures = read_pictures(form.files, settings)
    if not pictures:
        raise PictureInvalid("No picture was chosen.", "Choose at least one picture, then send it.")
    ActingService(session, settings).add_pictures(form.visitor.principal, request_id, pictures)
    return see_other(f"/dashboard/requests/{request_id}")


@router.get("/dashboard/requests/{request_id}/report")
def report(
    request_id: str, who: Readers, session: SessionDep, settings: SettingsDep, subject: bool = False
) -> Response:
    """Show the report as the API gives it: a page by itself, to be printed or kept."""
    found = ReportService(session, settings).report(who.principal, request_id, with_subject=subject)
    headers = {"Content-Security-Policy": CONTENT_SECURITY_POLICY, "Cache-Control": "no-store"}
    return HTMLResponse(page(found), headers=headers)


@router.get("/dashboard/requests/{request_id}/certificate")
def certificate(request_id: str, who: Readers, session: SessionDep, settings: SettingsDep) -> Response:
    """Download the certificate."""
    token = CertificateService(session, settings).issue(who.principal, request_id)
    headers = {
        "Content-Disposition": f'attachment; filename="certificate-{request_id}.jws"',
        "Cache-Control": "no-store",
    }
    return Response(token, media_type="application/jose", headers=headers)
