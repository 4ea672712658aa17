"""What a server may refuse with: one exception for each kind of problem, each with the server's hint.

The class hierarchy is the server's (`app/kit/errors.py`): catch `ConflictError` for any 409, or
`IllegalTransitionError` for one. A kind that a newer server may add arrives as the class of its status.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import httpx

PREFIX = "urn:lethe:problem:"


class ClientError(Exception):
    """Anything this client raises by itself; `hint` says what to do."""

    hint: str = ""


class UnreachableError(ClientError, RuntimeError):
    """No server answers at the URL, or it stopped in the middle of an answer."""

    hint = "Start one with `lethe up`, or set LETHE_URL to the server's address."


class StreamBrokenError(ClientError):
    """The server could not finish an answer that it had begun to stream."""


class ApiError(ClientError, RuntimeError):
    """The server refused.

    Attributes:
        status: HTTP status.
        problem: the whole RFC 9457 document.
        type: its kind without the prefix, such as `request-not-found`; empty if it was no problem document.
        hint: what to do about it.
        retry_after: seconds that the server asks to wait, if it does.
        request_id: under which the server has logged the call, if it says so.
    """

    TYPE: ClassVar[str] = ""

    def __init__(
        self, status: int, problem: Mapping[str, Any], headers: Mapping[str, str] | None = None
    ) -> None:
        self.status = status
        self.problem = dict(problem)
        self.type = str(problem.get("type") or "").removeprefix(PREFIX)
        self.hint = str(problem.get("hint") or "")
        waits = str((headers or {}).get("retry-after") or "")
        self.retry_after = float(waits) if waits.isdecimal() else None
        self.request_id = (headers or {}).get("x-request-id")
        detail = problem.get("detail") or problem.get("title") or "no further detail"
        super().__init__(f"{detail} (HTTP {status})")


class BadRequestError(ApiError):
    """400: the body cannot be parsed."""

    TYPE = "malformed-body"


class UnauthenticatedError(ApiError):
    """401: no key, or one that is unknown, revoked or expired."""

    TYPE = "unauthenticated"


class ForbiddenError(ApiError):
    """403: the key lacks the scope; `problem["needs_one_of"]` names those that have it."""

    TYPE = "forbidden"


class NotFoundError(ApiError):
    """404: nothing with this id, or nothing this key may see."""

    TYPE = "not-found"


class RequestNotFoundError(NotFoundError):
    """No such removal request, or another tenant's."""

    TYPE = "request-not-found"


class GenerationNotFoundError(NotFoundError):
    """There is no such registry generation."""

    TYPE = "generation-not-found"


class WebhookNotFoundError(NotFoundError):
    """No such webhook, or another tenant's."""

    TYPE = "webhook-not-found"


class EvidenceNotFoundError(NotFoundError):
    """No such picture, or another tenant's."""

    TYPE = "evidence-not-found"


class UnknownAttackError(NotFoundError):
    """None of the built-in attacks has this name."""

    TYPE = "unknown-attack"


class NotCoveredError(NotFoundError):
    """No such audit event, or no signed checkpoint covers it."""

    TYPE = "not-covered"


class ModelNotFoundError(NotFoundError):
    """The server serves another model."""

    TYPE = "model-not-found"


class MethodNotAllowedError(ApiError):
    """405: the path exists, the method does not."""

    TYPE = "method-not-allowed"


class TooSlowError(ApiError):
    """408: the request did not arrive in time."""

    TYPE = "too-slow"


class ConflictError(ApiError):
    """409: not possible in the present state."""

    TYPE = "conflict"


class PolicyChangedError(ConflictError):
    """Somebody else has changed the policy meanwhile: `problem["version"]` is the newest."""

    TYPE = "policy-changed"


class IllegalTransitionError(ConflictError):
    """The request's state does not allow this; `problem["possible_in"]` names those that do."""

    TYPE = "illegal-transition"


class StaleLeaseError(ConflictError):
    """Another attempt works on the request now."""

    TYPE = "stale-lease"


class LinkedRequestsStandError(ConflictError):
    """Other requests for the same subject follow this one: `problem["linked"]`."""

    TYPE = "linked-requests-stand"


class EvidencePurgedError(ConflictError):
    """The pictures were deleted by policy; send some again."""

    TYPE = "evidence-purged"


class IdempotencyInFlightError(ConflictError):
    """The first call with this Idempotency-Key has not been answered yet."""

    TYPE = "idempotency-in-flight"


class NotActiveError(ConflictError):
    """There is no certificate before the request is active."""

    TYPE = "not-active"


class ExpertNotLiveError(ConflictError):
    """The request is active, but its expert is not in the newest generation."""

    TYPE = "expert-not-live"


class NotLiveError(ConflictError):
    """The request has no live expert."""

    TYPE = "not-live"


class NotPublishingError(ConflictError):
    """The request is not being published."""

    TYPE = "not-publishing"


class AuditChainBrokenError(ConflictError):
    """The audit trail does not fit together; nothing is signed."""

    TYPE = "audit-chain-broken"


class TooManyWebhooksError(ConflictError):
    """The tenant has as many webhooks as it may have."""

    TYPE = "too-many-webhooks"


class PayloadTooLargeError(ApiError):
    """413: the body is larger than the limit."""

    TYPE = "payload-too-large"


class PictureTooLargeError(PayloadTooLargeError):
    """A picture's file is larger than the limit."""

    TYPE = "picture-too-large"


class AddressTooLongError(ApiError):
    """414: the address is longer than the limit."""

    TYPE = "address-too-long"


class UnsupportedMediaTypeError(ApiError):
    """415: neither JSON nor a form."""

    TYPE = "unsupported-media-type"


class InvalidInputError(ApiError):
    """422: something cannot be accepted; `problem["errors"]` lists the fields."""

    TYPE = "invalid-input"


class UnknownClassError(InvalidInputError):
    """The class is none of MLUBench's nine."""

    TYPE = "unknown-class"


class NothingToGoByError(InvalidInputError):
    """Neither a name nor a picture."""

    TYPE = "no-name-and-no-picture"


class TooManyPicturesError(InvalidInputError):
    """More pictures than the limit."""

    TYPE = "too-many-pictures"


class PictureInvalidError(InvalidInputError):
    """A picture cannot be decoded, is animated, or is no picture."""

    TYPE = "picture-invalid"


class PictureTooManyPixelsError(PictureInvalidError):
    """A picture has more pixels than the limit."""

    TYPE = "picture-too-many-pixels"


class InvalidTextError(InvalidInputError):
    """A text cannot be a name, a note or a fact."""

    TYPE = "invalid-text"


class TextTooLongError(InvalidInputError):
    """A text is longer than the limit."""

    TYPE = "text-too-long"


class IdempotencyKeyReusedError(InvalidInputError):
    """The Idempotency-Key was used for another body."""

    TYPE = "idempotency-key-reused"


class InvalidConversationError(InvalidInputError):
    """The messages cannot be answered as they are."""

    TYPE = "invalid-conversation"


class AttackNotPossibleError(InvalidInputError):
    """The attack needs a name or a picture that the request has not."""

    TYPE = "attack-not-possible"


class ConversationTooLongError(InvalidInputError):
    """The conversation does not fit the model's context."""

    TYPE = "conversation-too-long"


class WebhookUrlRefusedError(InvalidInputError):
    """Messages cannot be sent to this address."""

    TYPE = "webhook-url-refused"


class UnsupportedParameterError(InvalidInputError):
    """A parameter of OpenAI's API that this service cannot honour."""

    TYPE = "unsupported-parameter"


class HeadersTooLargeError(ApiError):
    """431: the headers are larger than the limit."""

    TYPE = "headers-too-large"


class RateLimitedError(ApiError):
    """429: the key has asked too often; see `retry_after`."""

    TYPE = "rate-limited"


class ServerError(ApiError):
    """500 and above: the fault is the server's."""

    TYPE = "internal-error"


class UnavailableError(ServerError):
    """503: something the service depends on is not there at the moment."""

    TYPE = "unavailable"


class NotReadyError(UnavailableError):
    """The process cannot do its work yet; `problem["checks"]` says why."""

    TYPE = "not-ready"


class EngineUnavailableError(UnavailableError):
    """No server of the model can be asked, or none has the expert that must answer."""

    TYPE = "engine-unavailable"


class EngineBusyError(UnavailableError):
    """Too many conversations wait already."""

    TYPE = "engine-busy"


class AnswerTimeoutError(ServerError):
    """504: the answer was not complete in time."""

    TYPE = "answer-timeout"


_BY_STATUS: Mapping[int, type[ApiError]] = {
    400: BadRequestError,
    401: UnauthenticatedError,
    403: ForbiddenError,
    404: NotFoundError,
    405: MethodNotAllowedError,
    408: TooSlowError,
    409: ConflictError,
    413: PayloadTooLargeError,
    414: AddressTooLongError,
    415: UnsupportedMediaTypeError,
    422: InvalidInputError,
    429: RateLimitedError,
    431: HeadersTooLargeError,
    503: UnavailableError,
}


def kinds() -> dict[str, type[ApiError]]:
    """Return every kind of problem that has an exception of its own, by its type."""

    def below(base: type[ApiError]) -> Iterator[type[ApiError]]:
        for kind in base.__subclasses__():
            yield kind
            yield from below(kind)

    return {kind.TYPE: kind for kind in below(ApiError)}


_KINDS = kinds()


def refusal(response: httpx.Response) -> ApiError:
    """Return the exception for an answer that is no success, its body read."""
    try:
        found = response.json()
    except ValueError:
        found = {"title": response.text[:200]}
    problem = found if isinstance(found, dict) else {}
    by_status = _BY_STATUS.get(response.status_code, ServerError if response.is_server_error else ApiError)
    kind = _KINDS.get(str(problem.get("type") or "").removeprefix(PREFIX), by_status)
    return kind(response.status_code, problem, response.headers)
