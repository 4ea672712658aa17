"""Canonical JSON (RFC 8785) and hashes over it."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import TypeAlias, cast

import rfc8785

JsonValue: TypeAlias = "bool | int | float | str | Sequence[JsonValue] | Mapping[str, JsonValue] | None"
"""Anything JSON can say. Parameters take this; `Mapping` keeps a plain `dict[str, int]` acceptable."""


def canonical_json(value: JsonValue) -> bytes:
    """Return the RFC 8785 form of `value`: one byte string per meaning.

    Raises:
        ValueError: the value has no canonical form (NaN, infinity, an integer beyond 2**53).
    """
    try:
        return rfc8785.dumps(cast("dict[str, object]", value))  # type: ignore[arg-type]  # its own alias is invariant
    except rfc8785.CanonicalizationError as error:
        raise ValueError(f"not representable as canonical JSON: {error}") from error


def sha256_hex(data: bytes) -> str:
    """Return the SHA-256 of `data` in lower-case hex (64 characters)."""
    return hashlib.sha256(data).hexdigest()


def json_sha256(value: JsonValue) -> str:
    """Return the SHA-256 over the canonical JSON of `value`."""
    return sha256_hex(canonical_json(value))
