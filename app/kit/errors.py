"""Errors that say what to do next. Every one can be answered as an RFC 9457 problem document."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from app.kit.canonical import JsonValue

PROBLEM_TYPE_PREFIX = "urn:lethe:problem:"


class ConfigurationError(Exception):
    """The process cannot start as configured; the message names the variable to set."""


class LetheError(Exception):
    """An error with an HTTP status, a stable problem type, and a hint.

    Args:
        status: HTTP status code.
        type: stable slug such as `request-not-found`; answered as `urn:lethe:problem:<slug>`.
        title: short, the same for every occurrence.
        detail: what happened this time; never personal data.
        hint: what the caller can do about it.
        extra: further members of the problem document.
        headers: further response headers.
    """

    def __init__(
        self,
        status: int,
        type: str,
        title: str,
        detail: str = "",
        hint: str = "",
        *,
        extra: Mapping[str, JsonValue] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail or title)
        self.status = status
        self.type = type
        self.title = title
        self.detail = detail or title
        self.hint = hint
        self.extra = dict(extra or {})
        self.headers = dict(headers or {})

    def problem(self) -> dict[str, JsonValue]:
        """Return the members of the `application/problem+json` document (without `instance`)."""
        return {
            "type": PROBLEM_TYPE_PREFIX + self.type,
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "hint": self.hint,
            **self.extra,
        }


@dataclass(frozen=True, slots=True)
class Example:
    """One occurrence of a problem, for the documentation: what it says when it is raised."""

    detail: str
    hint: str = ""
    extra: Mapping[str, JsonValue] = field(default_factory=dict)


class Problem(LetheError):  # noqa: N818  its subclasses are named after what happened
    """A LetheError whose status, type and title are fixed by its class, for raising and for OpenAPI."""

    STATUS: ClassVar[int] = 500
    TYPE: ClassVar[str] = "internal-error"
    TITLE: ClassVar[str] = "Internal error"
    HINT: ClassVar[str] = ""
    EXAMPLE: ClassVar[Example] = Example(
        "Something went wrong on our side.",
        "Try again; if it stays, report the `X-Request-Id` of this answer.",
    )

    def __init__(
        self,
        detail: str = "",
        hint: str = "",
        *,
        extra: Mapping[str, JsonValue] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(
            self.STATUS, self.TYPE, self.TITLE, detail, hint or self.HINT, extra=extra, headers=headers
        )

    @classmethod
    def when(cls) -> str:
        """Return when it is answered, as a sentence."""
        told = "Something failed that should not." if cls is Problem else cls.__doc__ or ""
        return " ".join(told.split())

    @classmethod
    def occurrence(cls) -> LetheError:
        """Return the example of the documentation as an error."""
        shown = cls.EXAMPLE
        return LetheError(
            cls.STATUS, cls.TYPE, cls.TITLE, shown.detail, shown.hint or cls.HINT, extra=shown.extra
        )


class InvalidInput(Problem):
    """Something in the request cannot be accepted; `errors` lists where and why."""

    STATUS = 422
    TYPE = "invalid-input"
    TITLE = "Invalid input"
    HINT = "Correct the fields listed under `errors` and send the request again."
    EXAMPLE = Example(
        "1 field(s) cannot be accepted.",
        extra={"errors": [{"field": "body.class", "message": "Field required"}]},
    )


class Unauthenticated(Problem):
    """No key, or one that is unknown, revoked or expired."""

    STATUS = 401
    TYPE = "unauthenticated"
    TITLE = "Authentication required"
    HINT = "Send `Authorization: Bearer <API key>`; make a key with `lethe keys create`."
    EXAMPLE = Example("There is no API key in the request.")

    def __init__(self, detail: str = "", hint: str = "") -> None:
        super().__init__(detail, hint, headers={"WWW-Authenticate": 'Bearer realm="lethe"'})


class Forbidden(Problem):
    """The key is good but lacks the scope."""

    STATUS = 403
    TYPE = "forbidden"
    TITLE = "Not allowed with this key"
    EXAMPLE = Example(
        "This key has none of the scopes that are needed here.",
        "Use a key with scope operator.",
        {"needs_one_of": ["operator"]},
    )


class NotFound(Problem):
    """Nothing with this id, or nothing this key may see."""

    STATUS = 404
    TYPE = "not-found"
    TITLE = "Not found"
    HINT = "Check the id; ids of other tenants are answered in the same way."
    EXAMPLE = Example("Not Found", "Check the address; /docs lists every endpoint.")


class Conflict(Problem):
    """The object is not in a state that allows this."""

    STATUS = 409
    TYPE = "conflict"
    TITLE = "Not possible in the current state"
    EXAMPLE = Example(
        "The object has changed since it was read.", "Read it again, and see what is possible now."
    )


class PayloadTooLarge(Problem):
    """The body, or a part of it, is larger than the limit."""

    STATUS = 413
    TYPE = "payload-too-large"
    TITLE = "Request too large"
    EXAMPLE = Example(
        "The body is larger than 67,108,864 bytes.", "Send fewer or smaller pictures, or less text."
    )


class UnsupportedMediaType(Problem):
    """The content type is not one this endpoint reads."""

    STATUS = 415
    TYPE = "unsupported-media-type"
    TITLE = "Unsupported content type"
    EXAMPLE = Example(
        "The body is neither JSON nor a form.",
        "Send `application/json`, or `multipart/form-data` with the pictures as files.",
    )


class BadRequest(Problem):
    """The body cannot be parsed at all."""

    STATUS = 400
    TYPE = "malformed-body"
    TITLE = "Malformed request body"
    EXAMPLE = Example(
        "The body is not JSON.", "Check that the body is what its Content-Type says; /docs shows examples."
    )


class RateLimited(Problem):
    """The key has asked too often; `Retry-After` says when there is room again."""

    STATUS = 429
    TYPE = "rate-limited"
    TITLE = "Too many requests"
    HINT = "Wait for as many seconds as `Retry-After` says."
    EXAMPLE = Example("This key may ask 1200 times in 60 s.", "Ask again in 12 s, and then less often.")


class AddressTooLong(Problem):
    """Path and query are longer than any that this service has."""

    STATUS = 414
    TYPE = "address-too-long"
    TITLE = "Address too long"
    HINT = "Put data into the body, where the endpoint takes one."
    EXAMPLE = Example("The address has 9,120 bytes; the limit is 8,192.")


class HeadersTooLarge(Problem):
    """The headers are larger than any client's need be."""

    STATUS = 431
    TYPE = "headers-too-large"
    TITLE = "Headers too large"
    HINT = "Send the key, the content type, and little else."
    EXAMPLE = Example("The headers have 26,210 bytes; the limit is 24,576.")


class TooSlow(Problem):
    """The body did not come in time; the connection is closed."""

    STATUS = 408
    TYPE = "too-slow"
    TITLE = "Request came too slowly"
    HINT = "Send the request again, over a faster connection or with smaller pictures."
    EXAMPLE = Example("The body did not come within 20 s.")


class ServiceUnavailable(Problem):
    """Something this service depends on is not there at the moment."""

    STATUS = 503
    TYPE = "unavailable"
    TITLE = "Temporarily unavailable"
    HINT = "Try again in a few seconds."
    EXAMPLE = Example("The database did not answer.")
