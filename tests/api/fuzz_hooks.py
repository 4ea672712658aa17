"""What schemathesis cannot know by itself about forms; loaded by it (`SCHEMATHESIS_HOOKS`).

A form holds texts and files. Where a schema says `string`, a form's `false` or `0.5` is the text "false" or
"0.5", as valid as any. Schemathesis sees that only in forms without files and without repeated fields; here
in all. A text where a file belongs stays as wrong as it is.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from typing import Any

import jsonschema_rs
import schemathesis

FORM = "multipart/form-data"


@schemathesis.hook
def filter_case(context: schemathesis.HookContext, case: schemathesis.Case[Any]) -> bool:
    """Leave out bodies that were made to be wrong, and are right once they are sent."""
    if case.media_type != FORM or not isinstance(case.body, dict):
        return True
    meta = case.meta
    if meta is None or not meta.generation.mode.is_negative or len(meta.components) != 1:
        return True
    schema = case.operation.definition.raw["requestBody"]["content"][FORM]["schema"]
    return not valid_as_sent(schema, case.body)


def valid_as_sent(schema: Mapping[str, Any], body: Mapping[str, Any]) -> bool:
    """Tell whether a form with these fields is one that the schema describes."""
    properties: Mapping[str, Any] = schema.get("properties", {})
    sent = {name: value for name, value in body.items() if value != []}  # an empty list sends nothing
    if not set(schema.get("required", ())) <= sent.keys():
        return False
    if schema.get("additionalProperties") is False and not sent.keys() <= properties.keys():
        return False
    return all(_field_valid(properties[name], sent[name]) for name in sent.keys() & properties.keys())


def _field_valid(schema: Mapping[str, Any], value: Any) -> bool:
    values = value if isinstance(value, list) else [value]
    if _takes_files(schema):
        return all(isinstance(one, bytes) for one in values)
    if any(isinstance(one, bytes) for one in values):
        return False
    texts = [one if isinstance(one, str) else json.dumps(one, default=str) for one in values]
    readings: list[Any] = [texts]
    if len(texts) == 1:
        readings.append(texts[0])
        with contextlib.suppress(ValueError):
            readings.append(json.loads(texts[0]))
    validator = jsonschema_rs.validator_for(dict(schema))
    return any(validator.is_valid(reading) for reading in readings)


def _takes_files(schema: Mapping[str, Any]) -> bool:
    inner = schema.get("items", schema)
    return isinstance(inner, Mapping) and inner.get("format") == "binary"
