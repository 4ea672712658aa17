"""Bodies that may come as JSON or as a form with files."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, TypeVar

from fastapi import Depends, Request
from pydantic import BaseModel, ValidationError
from starlette.datastructures import UploadFile

from app.api.described import inline_schema
from app.api.problems import field_errors
from app.kit.errors import BadRequest, InvalidInput, UnsupportedMediaType

_FORMS = ("multipart/form-data", "application/x-www-form-urlencoded")
_REPEATED = frozenset({"aliases"})
_JSON_FIELDS = frozenset({"facts"})
_FILES = "pictures"
_MAX_FIELD_BYTES = 2 * 1024 * 1024
B = TypeVar("B", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class RawBody:
    """The fields of a body, not yet validated, and its files."""

    fields: Mapping[str, object]
    files: list[bytes]

    def validated(self, model: type[B]) -> B:
        """Return the fields as `model`.

        Raises:
            InvalidInput: 422, with `errors` that name the fields; never their content.
        """
        try:
            return model.model_validate(self.fields)
        except ValidationError as error:
            listed = field_errors(error.errors(include_input=False, include_url=False))
            raise InvalidInput(
                f"{len(listed)} field(s) cannot be accepted.", extra={"errors": listed}
            ) from None


async def read_body(request: Request) -> RawBody:
    """Read a JSON object or a form.

    Raises:
        UnsupportedMediaType: 415, neither.
        BadRequest: 400, it cannot be parsed.
        InvalidInput: 422, a field that is given twice, or a file where none is expected.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        return RawBody(_json_object(await request.body(), "The body"), [])
    if kind in _FORMS:
        return await _form(request)
    raise UnsupportedMediaType(
        "The body is neither JSON nor a form.",
        "Send `application/json`, or `multipart/form-data` with the pictures as files.",
    )


Body = Annotated[RawBody, Depends(read_body)]


def _json_object(data: bytes | str, what: str) -> dict[str, object]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"{what} is not valid JSON.", "Send one JSON object in UTF-8.") from error
    if not isinstance(value, dict):
        raise BadRequest(f"{what} is JSON, but not an object.", 'Send an object: `{"name": ...}`.')
    return value


async def _form(request: Request) -> RawBody:
    fields: dict[str, object] = {}
    files: list[bytes] = []
    async with request.form(max_files=1000, max_fields=1000, max_part_size=_MAX_FIELD_BYTES) as form:
        for key, value in form.multi_items():
            if isinstance(value, UploadFile):
                if key != _FILES:
                    raise InvalidInput(
                        "A file came in a field that takes none.", f"Send files in the field `{_FILES}`."
                    )
                content = await value.read()
                if content or value.filename:  # a browser sends an empty part for "no file chosen"
                    files.append(content)
            elif key in _REPEATED or key == _FILES:
                known = fields.setdefault(key, [])
                if isinstance(known, list) and value:
                    known.append(value)
            elif key in fields:
                raise InvalidInput("A field was given twice.", "Give every field but `aliases` once.")
            elif key in _JSON_FIELDS:
                fields[key] = _json_object(value, f"`{key}`") if value else {}
            else:
                fields[key] = value
    return RawBody(fields, files)


def body_schema(model: type[BaseModel]) -> dict[str, object]:
    """Return the OpenAPI description of a body that is `model` as JSON or as a form with files."""
    schema = inline_schema(model)
    form = {**schema, "properties": dict(schema.get("properties", {}))}
    form["properties"][_FILES] = {
        "type": "array",
        "items": {"type": "string", "format": "binary"},
        "description": "Pictures of the subject, as files.",
    }
    return {
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": schema}, "multipart/form-data": {"schema": form}},
        }
    }
