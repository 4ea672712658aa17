"""Errors as OpenAI's clients read them, for the routes below `/v1/`: the same errors in another envelope."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, Field

from app.api.described import inline_schema
from app.kit.canonical import JsonValue
from app.kit.errors import LetheError, Problem

PREFIX = "/v1/"
_CODES: Mapping[str, str] = {
    "unauthenticated": "invalid_api_key",
    "forbidden": "insufficient_permissions",
    "conversation-too-long": "context_length_exceeded",
}
"""Codes that clients look for; every other error has the name of its problem type, with underscores."""


class ErrorBody(BaseModel):
    """What went wrong."""

    message: str = Field(description="What happened, and what can be done about it.")
    type: str = Field(
        description="`invalid_request_error`, `authentication_error`, `permission_error` or `server_error`."
    )
    param: str | None = Field(description="The parameter it is about.")
    code: str = Field(description="Stable name of the kind of error.")


class ErrorEnvelope(BaseModel):
    """An error in OpenAI's form."""

    error: ErrorBody


def envelope(error: LetheError) -> dict[str, JsonValue]:
    """Return `error` in OpenAI's form: `{"error": {"message", "type", "param", "code"}}`."""
    fields = [entry for entry in _listed(error.extra.get("errors")) if isinstance(entry, Mapping)]
    param = error.extra.get("param") or next((entry.get("field") for entry in fields), None)
    told = [f"{entry.get('field')}: {entry.get('message')}." for entry in fields]
    # `errors` is a member of the problem document alone; here the fields are in the message.
    hint = "Correct them and send the request again." if told else error.hint
    return {
        "error": {
            "message": " ".join(filter(None, [error.detail, *told, hint])),
            "type": _type_of(error.status),
            "param": param,
            "code": _CODES.get(error.type, error.type.replace("-", "_")),
        }
    }


def envelope_responses(*problems: type[Problem]) -> dict[int | str, dict[str, Any]]:
    """Return the `responses=` of a `/v1/` endpoint that may raise `problems`."""
    by_status: dict[int | str, dict[str, Any]] = {}
    for problem in dict.fromkeys(problems):
        entry = by_status.setdefault(
            problem.STATUS,
            {
                "description": problem.TITLE,
                "content": {"application/json": {"schema": inline_schema(ErrorEnvelope), "examples": {}}},
            },
        )
        entry["content"]["application/json"]["examples"][problem.TYPE] = {
            "summary": problem.TITLE,
            "description": problem.when(),
            "value": envelope(problem.occurrence()),
        }
    return by_status


def _listed(value: JsonValue) -> Sequence[JsonValue]:
    return value if isinstance(value, Sequence) and not isinstance(value, str) else ()


def _type_of(status: int) -> str:
    if status == 401:
        return "authentication_error"
    if status == 403:
        return "permission_error"
    return "server_error" if status >= 500 else "invalid_request_error"
