"""Logging in and out, the first page, and the assets."""

from __future__ import annotations

import secrets
from typing import Annotated, cast

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from app.accounts.sessions import end_session, start_session
from app.api.deps import SessionDep, SettingsDep
from app.api.intake import RawBody, read_body
from app.dashboard.rendering import asset_response, render, see_other
from app.dashboard.session import (
    HOME,
    LOGIN,
    Sent,
    Visitor,
    check_origin,
    check_token,
    cookie_name,
    drop_session,
    form_token,
    lifetime,
    local_path,
    read_session,
    secure,
    sent,
    set_session,
    visitor,
)
from app.db.session import SessionFactory
from app.kit.errors import NotFound, Unauthenticated
from app.removal.acting import OPERATORS, READERS
from app.removal.reading import ReadingService
from app.removal.states import WAITING, WORKING, State
from app.settings import Settings

router = APIRouter(include_in_schema=False)
_TRY_SECONDS = 1800


@router.get(LOGIN)
def login_page(request: Request, settings: SettingsDep, next: str = HOME) -> Response:
    """Show the login; whoever is logged in already goes on."""
    try:
        read_session(request)
    except Unauthenticated:
        return _login(request, settings, local_path(next))
    return see_other(local_path(next))


@router.post(LOGIN)
def login(request: Request, settings: SettingsDep, body: Annotated[RawBody, Depends(read_body)]) -> Response:
    """Start a session with an API key."""
    fields = {key: value for key, value in body.fields.items() if isinstance(value, str)}
    check_origin(request)
    attempt = request.cookies.get(_attempt_cookie(request), "")
    check_token(
        form_token(settings, f"login:{attempt}") if attempt else secrets.token_hex(), fields.get("csrf")
    )
    wanted = local_path(fields.get("next", HOME))
    factory = cast("SessionFactory", request.app.state.session_factory)
    try:
        started = start_session(factory, fields.get("key", "").strip(), lifetime(settings))
    except Unauthenticated:
        return _login(request, settings, wanted, wrong=True)
    response = see_other(wanted)
    set_session(request, response, started.session_id)
    response.delete_cookie(_attempt_cookie(request), path=LOGIN)
    return response


@router.post("/dashboard/logout")
def logout(request: Request, form: Annotated[Sent, Depends(sent())]) -> Response:
    """End the session for good."""
    end_session(cast("SessionFactory", request.app.state.session_factory), form.visitor.login)
    response = see_other(LOGIN)
    drop_session(request, response)
    return response


@router.get(HOME)
def home(
    request: Request,
    who: Annotated[Visitor, Depends(visitor())],
    session: SessionDep,
    settings: SettingsDep,
) -> Response:
    """Show what there is to do, and where everything is."""
    reading = ReadingService(session, settings)
    counts = reading.counts(who.principal) if who.has(*READERS) else {}
    newest = reading.listed(who.principal, states=(), after=None, limit=8).items if who.has(*READERS) else []
    return render(
        request,
        "home.html",
        title="Overview",
        counts=counts,
        newest=newest,
        waiting=sum(n for state, n in counts.items() if state in WAITING),
        working=sum(n for state, n in counts.items() if state in WORKING or state is State.QUEUED),
        operator=who.has(*OPERATORS),
    )


@router.get("/dashboard/static/{name}")
def static(name: str, request: Request) -> Response:
    """Return a style sheet, a script or a picture of the dashboard itself."""
    found = asset_response(name, request)
    if found is None:
        raise NotFound("There is no such file.")
    return found


def _login(request: Request, settings: Settings, wanted: str, *, wrong: bool = False) -> Response:
    attempt = secrets.token_urlsafe(18)
    response = render(
        request,
        "login.html",
        code=401 if wrong else 200,
        title="Log in",
        csrf=form_token(settings, f"login:{attempt}"),
        wanted=wanted,
        wrong=wrong,
        hours=settings.session_hours,
    )
    response.set_cookie(
        _attempt_cookie(request),
        attempt,
        max_age=_TRY_SECONDS,
        path=LOGIN,
        httponly=True,
        secure=secure(request),
        samesite="strict",
    )
    return response


def _attempt_cookie(request: Request) -> str:
    return f"{cookie_name(request).replace('__Host-', '__Secure-')}-login"
