"""OpenAPI for what FastAPI does not see: error bodies, bodies read by hand, links between operations."""

from collections.abc import Mapping
from typing import Any, cast

from pydantic import BaseModel


def inline_schema(model: type[BaseModel]) -> dict[str, Any]:
    """Return a model's JSON schema without references, so that it is whole wherever it is put."""
    schema = model.model_json_schema(by_alias=True)
    definitions = schema.pop("$defs", {})
    return cast("dict[str, Any]", _resolved(schema, definitions))


def _resolved(node: object, definitions: Mapping[str, object]) -> object:
    if isinstance(node, Mapping):
        reference = node.get("$ref")
        if isinstance(reference, str):
            return _resolved(definitions[reference.rpartition("/")[2]], definitions)
        without = {key: value for key, value in node.items() if key != "discriminator"}  # it names references
        return {key: _resolved(value, definitions) for key, value in without.items()}
    if isinstance(node, list):
        return [_resolved(item, definitions) for item in node]
    return node


def links_by_id(parameter: str, **operations: str) -> dict[str, Any]:
    """Return the OpenAPI links of an answer whose `id` is the path parameter of other operations."""
    return {
        name: {"operationId": operation, "parameters": {parameter: "$response.body#/id"}}
        for name, operation in operations.items()
    }
