"""Cursor pagination: opaque cursors, newest first unless an endpoint says otherwise."""

import base64
import binascii
from typing import Annotated, Generic, TypeVar

from fastapi import Query
from pydantic import BaseModel, Field

from app.kit.errors import InvalidInput

T = TypeVar("T")

Limit = Annotated[int, Query(ge=1, le=200, description="How many at most.")]
Cursor = Annotated[str | None, Query(max_length=200, description="`next` of the page before.")]


class PageOf(BaseModel, Generic[T]):
    """One page; `next` is the cursor of the following one, null on the last."""

    items: list[T]
    next: str | None = Field(default=None)


def encode_cursor(key: str | int) -> str:
    """Return an opaque cursor for the last row of a page."""
    return base64.urlsafe_b64encode(str(key).encode()).decode().rstrip("=")


def decode_cursor(cursor: str | None) -> str | None:
    """Return the key in a cursor.

    Raises:
        InvalidInput: not a cursor of ours.
    """
    if cursor is None:
        return None
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        key = raw.decode("ascii")
    except (binascii.Error, ValueError) as error:
        raise _invalid() from error
    if not key.replace("_", "").isalnum():
        raise _invalid()
    return key


def decode_number(cursor: str | None) -> int | None:
    """Return the number in a cursor; see `decode_cursor`."""
    key = decode_cursor(cursor)
    if key is None:
        return None
    if not key.isdecimal() or len(key) > 18:
        raise _invalid()
    return int(key)


def _invalid() -> InvalidInput:
    return InvalidInput(
        "The cursor is not one of this service's.", "Pass `next` of the page before, unchanged."
    )
