"""Pages from templates: what every page has, its security policy, and errors as pages."""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from importlib.resources import files
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from app.dashboard import charts
from app.dashboard.session import NotLoggedIn, Visitor, drop_session, login_address
from app.kit.canonical import JsonValue
from app.kit.clock import utcnow
from app.kit.errors import LetheError

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""Nothing inline, nothing from anywhere else; `blob:` for pictures that were chosen and not sent yet."""

MEDIA_TYPES: Mapping[str, str] = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
FRAGMENT_HEADER = "x-lethe-fragment"
_YEAR = 31_536_000


@cache
def asset(name: str) -> tuple[bytes, str] | None:
    """Return an asset's bytes and their short hash; None if there is no such asset."""
    stem, _, kind = name.rpartition(".")
    if kind not in MEDIA_TYPES or not stem.isalnum():
        return None
    found = files("app.dashboard") / "static" / name
    if not found.is_file():
        return None
    content = found.read_bytes()
    return content, hashlib.sha256(content).hexdigest()[:12]


def asset_address(name: str) -> str:
    """Return the address of an asset, which changes with its content."""
    found = asset(name)
    if found is None:
        raise LookupError(f"there is no asset {name}")
    return f"/dashboard/static/{name}?v={found[1]}"


@cache
def _packed(name: str) -> bytes:
    """Return an asset compressed; packed once for a process, as small as it gets."""
    found = asset(name)
    return b"" if found is None else gzip.compress(found[0], 9, mtime=0)


def asset_response(name: str, request: Request) -> Response | None:
    """Return an asset, to be kept by browsers for a year; None if there is none of this name.

    Compressed for whoever takes gzip. Pages never are: they carry a session's token and names beside what the
    address says, and their length would tell of it (BREACH).
    """
    found = asset(name)
    if found is None:
        return None
    packed = takes_gzip(request.headers.get("accept-encoding", ""))
    tag = f'"{found[1]}{"-gzip" if packed else ""}"'
    headers = {
        "Cache-Control": f"public, max-age={_YEAR}, immutable",
        "ETag": tag,
        "Vary": "Accept-Encoding",
    }
    if tag in (one.strip() for one in request.headers.get("if-none-match", "").split(",")):
        return Response(status_code=304, headers=headers)
    if packed:
        headers["Content-Encoding"] = "gzip"
    kind = MEDIA_TYPES[name.rpartition(".")[2]]
    content = _packed(name) if packed else found[0]
    return Response(content, media_type=f"{kind}; charset=utf-8", headers=headers)


def takes_gzip(accepted: str) -> bool:
    """Tell whether an `Accept-Encoding` header allows gzip (RFC 9110, section 12.5.3)."""
    for one in accepted.lower().split(","):
        coding, _, weight = one.partition(";")
        if coding.strip() in ("gzip", "x-gzip"):
            return not re.fullmatch(r"\s*q=0(\.0*)?\s*", weight)
    return False


def render(
    request: Request,
    template: str,
    *,
    code: int = 200,
    title: str = "",
    fragment: bool = False,
    **values: Any,
) -> HTMLResponse:
    """Return a page (or, if the browser's script asked for a fragment, that part of it alone)."""
    who: Visitor | None = getattr(request.state, "visitor", None)
    part = fragment or request.headers.get(FRAGMENT_HEADER) is not None
    html = (
        _environment()
        .get_template(template)
        .render(title=title, who=who, here=request.url.path, fragment=part, now=utcnow(), **values)
    )
    headers = {
        "Content-Security-Policy": CONTENT_SECURITY_POLICY,
        "Cache-Control": "no-store",
        "Referrer-Policy": "same-origin",  # with `no-referrer` browsers do not say which site sent a form
        "Vary": f"Cookie, {FRAGMENT_HEADER}",
    }
    return HTMLResponse(html, status_code=code, headers=headers)


def see_other(address: str) -> RedirectResponse:
    """Return the way to another page after a form was taken (303)."""
    return RedirectResponse(address, status_code=303, headers={"Cache-Control": "no-store"})


def error_page(error: LetheError, request: Request) -> Response:
    """Answer an error for people; a page that needs a login leads there, and so does a form."""
    if isinstance(error, NotLoggedIn):
        if request.headers.get(FRAGMENT_HEADER) is None:
            target = login_address(request) if request.method == "GET" else "/dashboard/login"
            response: Response = see_other(target)
        else:
            response = render(request, "error.html", code=401, title=error.title, error=error, listed=[])
        drop_session(request, response)
        return response
    response = render(
        request, "error.html", code=error.status, title=error.title, error=error, listed=_listed(error)
    )
    for name, value in error.headers.items():
        if name.lower() != "www-authenticate":
            response.headers[name] = value
    return response


def _listed(error: LetheError) -> list[str]:
    found = error.extra.get("errors")
    rows: list[JsonValue] = list(found) if isinstance(found, list) else []
    return [f"{row.get('field')}: {row.get('message')}" for row in rows if isinstance(row, Mapping)]


@cache
def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("app.dashboard"),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals["asset"] = asset_address
    made.globals["charts"] = charts
    made.filters["words"] = words
    made.filters["moment"] = moment
    made.filters["figure"] = figure
    made.filters["seconds"] = seconds
    made.filters["share"] = share
    made.filters["short"] = short
    return made


def words(name: str | None) -> str:
    """Return an identifier in words: "needs_evidence" as "needs evidence"."""
    return "" if name is None else name.replace("_", " ")


def moment(at: datetime | None) -> str:
    """Return a time to the second, UTC."""
    return "" if at is None else f"{at:%Y-%m-%d %H:%M:%S}"


def figure(value: float | None) -> str:
    """Return a figure with up to four decimals."""
    return "–" if value is None else f"{value:.4f}".rstrip("0").rstrip(".")


def share(value: float | None) -> str:
    """Return a share as a percentage."""
    return "–" if value is None else f"{100 * value:.1f} %"


def seconds(value: float | None) -> str:
    """Return a duration in words."""
    if value is None:
        return ""
    if value < 1:
        return f"{value:.2f} s"
    if value < 90:
        return f"{value:.0f} s"
    return f"{value / 60:.0f} min" if value < 5400 else f"{value / 3600:.1f} h"


def short(text: str | None, length: int = 16) -> str:
    """Return the beginning of an id or hash."""
    return "" if text is None else text if len(text) <= length else text[:length] + "…"
