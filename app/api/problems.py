"""RFC 9457 problem documents for every error, and their description in OpenAPI."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field
from sqlalchemy.exc import OperationalError
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match
from starlette.types import Scope

from app.api.context import endpoint_of
from app.api.described import inline_schema
from app.api.envelope import PREFIX, envelope
from app.kit.canonical import JsonValue
from app.kit.errors import (
    AddressTooLong,
    BadRequest,
    Example,
    Forbidden,
    HeadersTooLarge,
    InvalidInput,
    LetheError,
    NotFound,
    PayloadTooLarge,
    Problem,
    RateLimited,
    ServiceUnavailable,
    TooSlow,
    Unauthenticated,
    UnsupportedMediaType,
)
from app.kit.logging import get_logger

MEDIA_TYPE = "application/problem+json"
_log = get_logger("api")


class ProblemDocument(BaseModel):
    """An error, as RFC 9457 has it, with a hint that says what to do."""

    type: str = Field(description="Stable name of the kind of error.")
    title: str
    status: int
    detail: str = Field(description="What happened this time.")
    hint: str = Field(description="What can be done about it.")
    instance: str | None = Field(default=None, description="Path of the request.")


class MethodNotAllowed(Problem):
    """The path exists, the method does not."""

    STATUS = 405
    TYPE = "method-not-allowed"
    TITLE = "Method not allowed"
    HINT = "Use one of the methods in the `Allow` header; /docs lists them."
    EXAMPLE = Example("Method Not Allowed")


_BY_STATUS: Mapping[int, type[Problem]] = {
    400: BadRequest,
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    405: MethodNotAllowed,
    408: TooSlow,
    413: PayloadTooLarge,
    415: UnsupportedMediaType,
    422: InvalidInput,
    429: RateLimited,
    503: ServiceUnavailable,
}
_HINTS = {
    400: "Check that the body is what its Content-Type says; /docs shows examples.",
    404: "Check the address; /docs lists every endpoint.",
    413: "Send less, or scale pictures down.",
}


ErrorPage = Callable[[LetheError, Request], Response]
"""Makes the answer to an error for people in front of a browser."""


def problem_response(error: LetheError, request: Request) -> Response:
    """Return the error as `application/problem+json`; below `/v1/` as OpenAI's clients read it.

    `app.state.error_pages` may name path prefixes below which a page is answered instead.
    """
    pages = cast("Mapping[str, ErrorPage]", getattr(request.app.state, "error_pages", {}))
    for prefix, page in pages.items():
        if request.url.path.startswith(prefix):
            return page(error, request)
    if request.url.path.startswith(PREFIX):
        return JSONResponse(envelope(error), status_code=error.status, headers=error.headers)
    headers = dict(error.headers)
    named = request.scope.get("state", {}).get("request_id")
    if named and error.status == Problem.STATUS:  # answered outside of what adds the header elsewhere
        headers["X-Request-Id"] = named
    return JSONResponse(
        {**error.problem(), "instance": request.url.path},
        status_code=error.status,
        media_type=MEDIA_TYPE,
        headers=headers,
    )


def field_errors(errors: Sequence[Mapping[str, Any]]) -> list[JsonValue]:
    """Return pydantic's errors as `{"field", "message"}`, without the input (it may be personal)."""
    return [
        {
            "field": ".".join(str(part) for part in error["loc"]) or "body",
            "message": str(error["msg"]).removeprefix("Value error, "),
        }
        for error in errors
    ]


def _methods_at(routes: Sequence[BaseRoute], scope: Scope) -> list[str]:
    """Return every method that some endpoint at the path of `scope` has."""
    found: set[str] = set()
    for route in routes:
        inner = getattr(route, "original_router", None)  # how FastAPI keeps what `include_router` was given
        if inner is not None:
            found.update(_methods_at(inner.routes, scope))
        elif route.matches(scope)[0] is not Match.NONE:
            found.update(getattr(route, "methods", None) or ())
    return sorted(found)


def install(app: FastAPI) -> None:
    """Answer every error of `app` with a problem document."""

    async def lethe(request: Request, error: Exception) -> Response:
        return problem_response(cast("LetheError", error), request)

    async def validation(request: Request, error: Exception) -> Response:
        listed = field_errors(cast("RequestValidationError", error).errors())
        return problem_response(
            InvalidInput(f"{len(listed)} field(s) cannot be accepted.", extra={"errors": listed}), request
        )

    async def http(request: Request, error: Exception) -> Response:
        raised = cast("HTTPException", error)
        known = _BY_STATUS.get(raised.status_code)
        title = known.TITLE if known else str(raised.detail)
        hint = _HINTS.get(raised.status_code) or (known.HINT if known else "") or "See /docs."
        headers = dict(raised.headers or {})
        if raised.status_code == MethodNotAllowed.STATUS:  # the router names those of one endpoint alone
            headers["Allow"] = ", ".join(_methods_at(app.routes, request.scope)) or headers.get("Allow", "")
        return problem_response(
            LetheError(
                raised.status_code,
                known.TYPE if known else "http-error",
                title,
                str(raised.detail),
                hint,
                headers=headers,
            ),
            request,
        )

    async def database(request: Request, error: Exception) -> Response:
        _log.error("database not reachable", error=type(error).__name__)
        return problem_response(
            ServiceUnavailable("The database did not answer.", headers={"Retry-After": "2"}), request
        )

    async def unexpected(request: Request, error: Exception) -> Response:
        _log.error(
            "unexpected error",
            endpoint=endpoint_of(request.scope),
            error=type(error).__name__,
            exc_info=error,
        )
        return problem_response(
            Problem(
                "Something went wrong on our side.",
                "Try again; if it stays, report the `X-Request-Id` of this answer.",
            ),
            request,
        )

    app.add_exception_handler(LetheError, lethe)
    app.add_exception_handler(RequestValidationError, validation)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(OperationalError, database)
    app.add_exception_handler(Exception, unexpected)


ALWAYS: tuple[type[Problem], ...] = (
    BadRequest,
    Unauthenticated,
    Forbidden,
    TooSlow,
    PayloadTooLarge,
    AddressTooLong,
    InvalidInput,
    RateLimited,
    HeadersTooLarge,
    Problem,
    ServiceUnavailable,
)
"""What any endpoint may answer."""


def responses(*problems: type[Problem]) -> dict[int | str, dict[str, Any]]:
    """Return the `responses=` of an endpoint that may raise `problems` (and what any endpoint may)."""
    schema = inline_schema(ProblemDocument)
    by_status: dict[int | str, dict[str, Any]] = {}
    for problem in dict.fromkeys((*problems, *ALWAYS)):
        entry = by_status.setdefault(
            problem.STATUS,
            {"description": problem.TITLE, "content": {MEDIA_TYPE: {"schema": schema, "examples": {}}}},
        )
        examples = entry["content"][MEDIA_TYPE]["examples"]
        name = problem.TYPE if problem.TYPE not in examples else f"{problem.TYPE}-{len(examples) + 1}"
        examples[name] = {
            "summary": problem.TITLE,
            "description": problem.when(),
            "value": problem.occurrence().problem(),
        }
    return by_status
