"""Whole numbers as JSON Schema counts them: `integer` is 3 and 3.0, and neither `"3"` nor `true`."""

from typing import Annotated

from pydantic import BeforeValidator, Strict


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


WholeNumber = Annotated[int, Strict(), BeforeValidator(_whole)]
"""An `int` in a body. Bounds may be added with `Field`."""
