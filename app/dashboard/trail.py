"""Pages for auditors: the events, the chain's state, checkpoints, export."""

from __future__ import annotations

from typing import Annotated, Any, cast

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import Response, StreamingResponse
from sqlalchemy.orm import Session

from app.accounts.service import Scope
from app.api.deps import SessionDep, SettingsDep
from app.api.intake import RawBody
from app.api.pagination import Cursor, decode_number, encode_cursor
from app.audit.checkpoints import CheckpointService
from app.audit.endpoints import AUDITORS
from app.audit.export import AuditExport
from app.audit.repository import AuditRepository
from app.audit.schemas import ChainView, Kept
from app.dashboard.rendering import render, see_other
from app.dashboard.session import Sent, Visitor, sent, visitor
from app.db.session import SessionFactory
from app.kit.clock import utcnow
from app.settings import Settings

router = APIRouter(include_in_schema=False)
_SCOPES: tuple[Scope, ...] = AUDITORS
Auditors = Annotated[Visitor, Depends(visitor(*_SCOPES))]
_FORM = Depends(sent(*_SCOPES))
AuditorsForm = Annotated[Sent, _FORM]
Number = Annotated[int, Path(ge=1, le=2**63 - 1)]
PAGE = 50


@router.get("/dashboard/audit")
def events(
    request: Request,
    who: Auditors,
    session: SessionDep,
    settings: SettingsDep,
    about: Annotated[str, Query(max_length=64)] = "",
    kind: Annotated[str, Query(max_length=64)] = "",
    cursor: Cursor = None,
) -> Response:
    """Show events, newest first, and the checkpoints."""
    found = _found(session, settings, who, about.strip(), kind.strip(), decode_number(cursor))
    return render(request, "audit.html", title="Audit", report=None, **found)


def _found(
    session: Session, settings: Settings, who: Visitor, about: str, kind: str, after: int | None
) -> dict[str, Any]:
    page = AuditRepository(session).visible(
        who.principal.sees,
        after=after,
        limit=PAGE,
        subject_id=about.replace("\0", "") or None,
        kind=kind.replace("\0", "") or None,
        newest_first=True,
    )
    return {
        "events": page.items,
        "next": encode_cursor(page.items[-1].seq) if page.more else None,
        "about": about,
        "kind": kind,
        "checkpoints": CheckpointService(session, settings).listed(after=None, limit=5).items,
    }


@router.post("/dashboard/audit/verify")
def verify(request: Request, form: AuditorsForm, session: SessionDep, settings: SettingsDep) -> Response:
    """Recompute the chain, hold it against every checkpoint (kept ones too), and show what was found."""
    kept = RawBody({"checkpoints": form.text("checkpoints").split()}, []).validated(Kept)
    report = CheckpointService(session, settings).verify(kept.checkpoints)
    found = _found(session, settings, form.visitor, "", "", None)
    return render(request, "audit.html", title="Audit", report=ChainView.of(report, utcnow()), **found)


@router.post("/dashboard/audit/checkpoint", dependencies=[_FORM])
def checkpoint(session: SessionDep, settings: SettingsDep) -> Response:
    """Sign for everything there is now."""
    CheckpointService(session, settings).issue()
    return see_other("/dashboard/audit#checkpoints")


@router.get("/dashboard/audit/events/{seq}")
def event(
    request: Request,
    seq: Number,
    who: Auditors,
    session: SessionDep,
    settings: SettingsDep,
) -> Response:
    """Show one event and the proof that it is in the log."""
    proof = CheckpointService(session, settings).prove(seq, who.principal.sees)
    return render(request, "event.html", title=f"Event {seq}", proof=proof)


@router.get("/dashboard/audit/export")
def export(request: Request, who: Auditors, settings: SettingsDep) -> Response:
    """Download the log as `lethe audit verify` reads it."""
    factory = cast("SessionFactory", request.app.state.session_factory)
    principal = who.principal
    made = AuditExport(
        factory, settings, actor=principal.key_id, home_tenant=principal.tenant_id, tenant_id=principal.sees
    )
    headers = {
        "Content-Disposition": f'attachment; filename="audit-{made.size}.jsonl"',
        "Cache-Control": "no-store",
    }
    return StreamingResponse(made.lines(), media_type="application/jsonl", headers=headers)
