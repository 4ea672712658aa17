"""Who is in front of the browser: a signed session cookie, and proof that a form is ours.

The cookie holds the session's id under a signature, nothing else: not the key, not who it belongs to. What it
is worth is looked up with every request, so that it ends with the session, or with the key.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import cast
from urllib.parse import quote, urlsplit

from fastapi import Depends, Request
from fastapi.responses import Response
from itsdangerous import BadSignature, URLSafeTimedSerializer

from app.accounts.principal import Principal
from app.accounts.service import Scope
from app.accounts.sessions import LoggedIn, find_session
from app.api.deps import admitted
from app.api.intake import RawBody, read_body
from app.db.session import SessionFactory
from app.kit.crypto import derive_key, keyed_token
from app.kit.errors import Example, Forbidden, Unauthenticated
from app.settings import Settings

HOME = "/dashboard"
LOGIN = "/dashboard/login"
_PURPOSE = "lethe/browser-session/v1"
_FIELD = "csrf"


class NotOurForm(Forbidden):
    """The form was not sent from a page of this session."""

    TYPE = "not-our-form"
    TITLE = "The form is not from this session"
    HINT = "Go back, load the page again, and send the form once more."
    EXAMPLE = Example("The form was sent by another site.")


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who is logged in, and the token that every form of this session carries."""

    login: LoggedIn
    csrf: str

    @property
    def principal(self) -> Principal:
        """The key's principal: what the API would see."""
        return self.login.principal

    def has(self, *scopes: Scope) -> bool:
        """Tell whether the key has one of these scopes."""
        return not self.principal.scopes.isdisjoint(scopes)


class NotLoggedIn(Unauthenticated):
    """There is no session, or it is over: the answer to a page leads to the login."""

    EXAMPLE = Example("Nobody is logged in.", "Log in at /dashboard/login with an API key.")


def _secret(settings: Settings) -> bytes:
    return derive_key(settings.secret_key.get_secret_value(), _PURPOSE)


def _serializer(settings: Settings) -> URLSafeTimedSerializer:
    return URLSafeTimedSerializer(_secret(settings), salt="session")


def secure(request: Request) -> bool:
    """Tell whether cookies are for TLS alone: always in production, else if this request came over it."""
    return _settings(request).env == "production" or request.url.scheme == "https"


def cookie_name(request: Request) -> str:
    """Return the cookie's name: with TLS one that no other host and no path can set (RFC 6265bis)."""
    return "__Host-lethe" if secure(request) else "lethe"


def set_session(request: Request, response: Response, session_id: str) -> None:
    """Hand out a session's cookie."""
    settings = _settings(request)
    response.set_cookie(
        cookie_name(request),
        _serializer(settings).dumps(session_id),
        max_age=int(lifetime(settings).total_seconds()),
        path="/",
        httponly=True,
        secure=secure(request),
        samesite="lax",
    )


def drop_session(request: Request, response: Response) -> None:
    """Have the browser forget the cookie."""
    response.delete_cookie(
        cookie_name(request), path="/", httponly=True, secure=secure(request), samesite="lax"
    )


def lifetime(settings: Settings) -> timedelta:
    """Return how long a session lasts at most."""
    return timedelta(hours=settings.session_hours)


def read_session(request: Request) -> LoggedIn:
    """Return the session of the request's cookie.

    Raises:
        NotLoggedIn: 401, no cookie, a forged or expired one, or its session or key is over.
    """
    cookie = request.cookies.get(cookie_name(request))
    if not cookie:
        raise NotLoggedIn("Nobody is logged in.")
    settings = _settings(request)
    try:
        session_id = _serializer(settings).loads(cookie, max_age=int(lifetime(settings).total_seconds()))
        return find_session(_factory(request), str(session_id))
    except (BadSignature, Unauthenticated) as error:
        raise NotLoggedIn("The session is over.") from error


def visitor(*scopes: Scope) -> Callable[..., Visitor]:
    """Return a dependency that lets in sessions whose key has one of `scopes`; as `app.api.deps.require`.

    Raises (when called):
        NotLoggedIn: 401, there is no live session; for a page, the way to the login.
        RateLimited: 429, the key has asked too often.
        Forbidden: 403, the key has none of the scopes.
    """

    def logged_in(request: Request) -> Visitor:
        login = read_session(request)
        found = Visitor(login, form_token(_settings(request), login.session_id))
        request.state.visitor = found
        if scopes:
            admitted(request, login.principal, scopes)
        return found

    logged_in.scopes = scopes  # type: ignore[attr-defined]  # read by the authorisation tests
    return logged_in


@dataclass(frozen=True, slots=True)
class Sent:
    """A form that a visitor sent from one of our pages."""

    visitor: Visitor
    fields: dict[str, object]
    files: list[bytes]

    def text(self, name: str) -> str:
        """Return a field's text without surrounding space; empty if there is no such field."""
        value = self.fields.get(name, "")
        return value.strip() if isinstance(value, str) else ""


def sent(*scopes: Scope) -> Callable[..., Sent]:
    """Return a dependency that lets in forms of sessions with one of `scopes`, and reads them.

    Raises (when called), besides what `visitor` and `read_body` do:
        NotOurForm: 403, another site sent it, or its token is not that of the session.
    """
    lets_in, body_of = Depends(visitor(*scopes)), Depends(read_body)

    def form(request: Request, who: Visitor = lets_in, body: RawBody = body_of) -> Sent:
        fields = dict(body.fields)
        check_origin(request)
        check_token(who.csrf, fields.pop(_FIELD, None))
        return Sent(who, fields, body.files)

    form.scopes = scopes  # type: ignore[attr-defined]  # read by the authorisation tests
    return form


def form_token(settings: Settings, session_id: str) -> str:
    """Return the token of a session's forms: what another site cannot know."""
    return keyed_token(_secret(settings), "form", session_id)


def check_token(expected: str, given: object) -> None:
    """Raise `NotOurForm` unless the form has the token."""
    if not isinstance(given, str) or not secrets.compare_digest(expected.encode(), given.encode()):
        raise NotOurForm("The form has no valid token.")


def check_origin(request: Request) -> None:
    """Raise `NotOurForm` if the browser says that another site sent the form."""
    site = request.headers.get("sec-fetch-site")
    if site is not None and site not in ("same-origin", "none"):
        raise NotOurForm("The form was sent by another site.")
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
        raise NotOurForm("The form was sent by another site.")


def login_address(request: Request) -> str:
    """Return where to log in to come back here."""
    here = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    return LOGIN if here == HOME else f"{LOGIN}?next={quote(here, safe='/')}"


def local_path(text: str) -> str:
    """Return `text` if it is a page of the dashboard, else the dashboard's first page: never another site."""
    inside = text == HOME or text.startswith(f"{HOME}/")
    return text if inside and not any(c in text for c in "\\\r\n") and "//" not in text else HOME


def _settings(request: Request) -> Settings:
    return cast("Settings", request.app.state.settings)


def _factory(request: Request) -> SessionFactory:
    return cast("SessionFactory", request.app.state.session_factory)
