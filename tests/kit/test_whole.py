"""Whole numbers are those of JSON Schema."""

from typing import Any

import pytest
from pydantic import BaseModel, Field, ValidationError

from app.kit.whole import WholeNumber


class Counted(BaseModel):
    n: WholeNumber = Field(default=0, ge=0, le=10)
    maybe: WholeNumber | None = None


@pytest.mark.parametrize(("sent", "n"), [("3", 3), ("3.0", 3), ("1e1", 10), ("0.0", 0)])
def test_integers(sent: str, n: int) -> None:
    found = Counted.model_validate_json(f'{{"n": {sent}, "maybe": {sent}}}')
    assert (found.n, found.maybe) == (n, n)
    assert type(found.n) is int


@pytest.mark.parametrize("sent", ["3.5", '"3"', "true", "11", "11.0", "-1.0", "1e400", "null", "[3]"])
def test_everything_else(sent: str) -> None:
    with pytest.raises(ValidationError):
        Counted.model_validate_json(f'{{"n": {sent}}}')


def test_described_as_an_integer() -> None:
    schema: dict[str, Any] = Counted.model_json_schema()["properties"]["n"]
    assert schema == {"default": 0, "maximum": 10, "minimum": 0, "title": "N", "type": "integer"}
