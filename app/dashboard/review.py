"""Pages for operators: queue, evidence beside what the model says, failures, registry."""

from __future__ import annotations

from typing import Annotated, Any, cast

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from app.accounts.principal import Principal
from app.api.deps import SessionDep, SettingsDep
from app.api.intake import RawBody
from app.api.pagination import Cursor, decode_cursor, encode_cursor
from app.dashboard.engine import engine_of, interview
from app.dashboard.rendering import render, see_other
from app.dashboard.session import Sent, Visitor, sent, visitor
from app.db.session import SessionFactory
from app.registry.endpoints import Rollback
from app.registry.service import RegistryService, roll_back
from app.removal.acting import OPERATORS, possible
from app.removal.errors import EvidenceGone
from app.removal.reading import ReadingService
from app.removal.report import ReportService
from app.removal.states import WAITING, WORKING, State
from app.settings import Settings

router = APIRouter(include_in_schema=False)
Operators = Annotated[Visitor, Depends(visitor(*OPERATORS))]
OperatorsForm = Annotated[Sent, Depends(sent(*OPERATORS))]
SHOWN = 25


@router.get("/dashboard/queue")
def queue(request: Request, who: Operators, session: SessionDep, settings: SettingsDep) -> Response:
    """Show what waits for a person, and what is being worked on."""
    reading = ReadingService(session, settings)

    def some(*states: State) -> Any:
        return reading.listed(who.principal, states=states, after=None, limit=SHOWN)

    return render(
        request,
        "queue.html",
        title="Queue",
        waiting=[(state, some(state)) for state in sorted(WAITING)],
        working=some(State.APPROVED, State.QUEUED, *WORKING),
        counts=reading.counts(who.principal),
    )


@router.get("/dashboard/requests/{request_id}/review")
def review(
    request: Request, request_id: str, who: Operators, session: SessionDep, settings: SettingsDep
) -> Response:
    """Show the subject and the pictures of a request; reading them is audited."""
    return render(
        request,
        "review.html",
        title="Review",
        answers=None,
        **_case(session, settings, who.principal, request_id),
    )


@router.post("/dashboard/requests/{request_id}/review")
async def ask_about(
    request: Request, request_id: str, form: OperatorsForm, settings: SettingsDep
) -> Response:
    """Ask the model about every picture and the name, and show its answers beside them."""
    factory = cast("SessionFactory", request.app.state.session_factory)
    principal = form.visitor.principal

    def opened() -> tuple[dict[str, Any], list[tuple[str, bytes]]]:
        with factory.begin() as session:
            case = _case(session, settings, principal, request_id)
            reading = ReadingService(session, settings)
            kept = [row for row in case["evidence"] if row.purged_at is None]
            return case, [(row.id, reading.picture(principal, request_id, row.id)) for row in kept]

    await run_in_threadpool(_theirs, factory, settings, principal, request_id)
    engine = engine_of(request)
    case, pictures = await run_in_threadpool(opened)
    answers = await interview(engine, factory, settings, principal, case["view"], pictures)
    return render(request, "review.html", title="Review", answers=answers, **case)


def _theirs(factory: SessionFactory, settings: Settings, principal: Principal, request_id: str) -> None:
    """Raise `RequestNotFound` unless the key may see the request."""
    with factory.begin() as session:
        ReadingService(session, settings).view(principal, request_id)


def _case(session: Session, settings: Settings, principal: Principal, request_id: str) -> dict[str, Any]:
    reading = ReadingService(session, settings)
    try:
        view = reading.view(principal, request_id, with_subject=True)
    except EvidenceGone:
        view = reading.view(principal, request_id)
    return {
        "view": view,
        "evidence": reading.evidence(principal, request_id),
        "actions": possible(principal, State(view.state), linked=view.linked_to is not None),
    }


@router.get("/dashboard/requests/{request_id}/pictures/{evidence_id}")
def picture(
    request_id: str, evidence_id: str, who: Operators, session: SessionDep, settings: SettingsDep
) -> Response:
    """Return one picture of the evidence; the access is audited."""
    content = ReadingService(session, settings).picture(who.principal, request_id, evidence_id)
    return Response(content, media_type="image/png", headers={"Cache-Control": "no-store"})


@router.get("/dashboard/requests/{request_id}/failures")
def failures(
    request: Request, request_id: str, who: Operators, session: SessionDep, settings: SettingsDep
) -> Response:
    """Show the prompts behind figures that fell short."""
    found, hidden = ReportService(session, settings).failures(who.principal, request_id)
    return render(
        request,
        "failures.html",
        title="What fell short",
        request_id=request_id,
        found=found[:SHOWN],
        more=max(0, len(found) - SHOWN),
        hidden=hidden,
    )


@router.get("/dashboard/registry")
def registry(
    request: Request, who: Operators, session: SessionDep, settings: SettingsDep, cursor: Cursor = None
) -> Response:
    """Show replicas and what each serves, the generations, and the live experts."""
    service = RegistryService(session, settings)
    newest = service.newest()
    experts = service.listed(who.principal.sees, after=decode_cursor(cursor), limit=SHOWN)
    return render(
        request,
        "registry.html",
        title="Registry",
        newest=newest,
        acknowledged=service.acknowledged(newest),
        replicas=service.live_replicas(),
        experts=experts.items,
        next=encode_cursor(experts.items[-1].id) if experts.more else None,
        interims=service.listed_interims(who.principal.sees, after=None, limit=SHOWN),
        history=service.history(who.principal.sees, after=None, limit=SHOWN).items,
        root=who.principal.root,
    )


@router.post("/dashboard/registry/rollback")
def rollback(form: OperatorsForm, session: SessionDep, settings: SettingsDep) -> Response:
    """Serve an earlier generation's experts again, as far as today's requests allow it."""
    given = form.text("generation")
    number = int(given) if given.isascii() and given.isdecimal() else given
    wanted = RawBody({"generation": number}, []).validated(Rollback)
    roll_back(RegistryService(session, settings), form.visitor.principal, wanted.generation)
    return see_other("/dashboard/registry")
