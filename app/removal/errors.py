"""What can go wrong with a removal request."""

from app.kit.errors import Conflict, Example, Forbidden, InvalidInput, NotFound
from app.removal.records import CLASSES


class RequestNotFound(NotFound):
    """No such request, or another tenant's."""

    TYPE = "request-not-found"
    TITLE = "No such removal request"
    HINT = "Check the id; `GET /requests` lists the requests this key may see."
    EXAMPLE = Example("There is no removal request with this id.")


class EvidenceNotFound(NotFound):
    """The request has no such picture."""

    TYPE = "evidence-not-found"
    TITLE = "No such picture"
    HINT = "`GET /requests/{id}/evidence` lists the request's pictures."
    EXAMPLE = Example("The request has no such picture.")


class IllegalTransition(Conflict):
    """The request's state does not allow this."""

    TYPE = "illegal-transition"
    TITLE = "Not possible in the request's current state"
    EXAMPLE = Example(
        "`approve` is not possible while the request is `active`.",
        "It is possible in: in_review.",
        {"state": "active", "possible_in": ["in_review"]},
    )


class StaleLease(Conflict):
    """The fencing token is not the current one: somebody else works on the request now."""

    TYPE = "stale-lease"
    TITLE = "The lease was lost"
    HINT = "Stop working on this request; another attempt has taken over."
    EXAMPLE = Example("Token 4 is not the current one for req_01a20a91610c7527afee37a6345c8f6a.")


class LinkedRequestsStand(Conflict):
    """Other requests for the same subject follow this one."""

    TYPE = "linked-requests-stand"
    TITLE = "Other requests depend on this one"
    EXAMPLE = Example(
        "1 other request(s) for the same subject follow this one.",
        "Cancel or revoke those under `linked` first.",
        {"linked": ["req_01a20a91610c7527afee37a6345c8f6a"]},
    )


class EvidenceGone(Conflict):
    """The subject or its pictures were purged."""

    TYPE = "evidence-purged"
    TITLE = "The evidence was purged"
    HINT = (
        "If the request waits for a person, send pictures again with `POST /requests/{id}/evidence`; "
        "else file a new request."
    )
    EXAMPLE = Example("The picture was purged.")


class TooManyPictures(InvalidInput):
    """More pictures than the limit."""

    TYPE = "too-many-pictures"
    TITLE = "Too many pictures"
    EXAMPLE = Example(
        "There are 20 pictures; the limit is 16.", "Send fewer; a handful of different views is plenty."
    )


class UnknownClass(InvalidInput):
    """The class is none of the known ones."""

    TYPE = "unknown-class"
    TITLE = "Unknown class of subject"
    EXAMPLE = Example(
        "The class is none of the known ones.",
        f"Use one of: {', '.join(CLASSES)} (in any case).",
        {"classes": list(CLASSES)},
    )


class NothingToGoBy(InvalidInput):
    """Neither a name nor a picture."""

    TYPE = "no-name-and-no-picture"
    TITLE = "Neither a name nor a picture"
    HINT = "Send `name`, at least one picture, or both; a gate needs something to recognise the subject by."
    EXAMPLE = Example("There is neither a name nor a picture of the subject.")


class IdempotencyKeyReused(InvalidInput):
    """The same key came with another body."""

    TYPE = "idempotency-key-reused"
    TITLE = "Idempotency-Key was used for another request"
    HINT = "Use a fresh key for each request; repeat a key only with the very same body."
    EXAMPLE = Example("This key came with other content before.")


class IdempotencyInFlight(Conflict):
    """The first request with this key has not been answered yet."""

    TYPE = "idempotency-in-flight"
    TITLE = "A request with this Idempotency-Key is in flight"
    HINT = "Wait for its answer, then repeat: it will be the same."
    EXAMPLE = Example("Another request with this key is being handled.")


class InvalidText(InvalidInput):
    """A text field holds something that cannot be a name, a note or a fact."""

    TYPE = "invalid-text"
    TITLE = "Text cannot be used"
    EXAMPLE = Example(
        "`name` has no letter and no digit.",
        "Write the name as people write it, in any script; leave it out if there is none.",
        {"field": "name"},
    )


class TextTooLong(InvalidInput):
    """A text field, or all of them together, is longer than the limit."""

    TYPE = "text-too-long"
    TITLE = "Text too long"
    EXAMPLE = Example(
        "`name` has 240 characters; the limit is 200.",
        "Shorten it; further names go into `aliases`, remarks into `note`.",
        {"field": "name"},
    )


class NotMeasuredYet(Conflict):
    """There is nothing to certify yet."""

    TYPE = "not-active"
    TITLE = "The request is not active"
    HINT = "Ask again once `GET /requests/{id}/status` says `active`."
    EXAMPLE = Example("The request is `training`.")


class ExpertNotLive(Conflict):
    """The request is active, but the newest generation lacks its expert: changed past the service."""

    TYPE = "expert-not-live"
    TITLE = "The request's expert is not live"
    HINT = "Ask the operator: `lethe doctor` says what to do."
    EXAMPLE = Example("The newest registry generation has no expert of this request.")


class PolicyOfAll(Forbidden):
    """The policy concerns every tenant's requests, and the key is one tenant's."""

    HINT = "Use an operator's key of the tenant `root`."
    EXAMPLE = Example("The policy concerns the requests of every tenant.")


class PolicyChanged(Conflict):
    """Somebody else has changed the policy since the version that the change is based on."""

    TYPE = "policy-changed"
    TITLE = "The policy has changed meanwhile"
    HINT = (
        "Read `GET /policy` again, see whether the change is still wanted, and send it with that `version`."
    )
    EXAMPLE = Example("The policy is at version 4, the change is based on version 3.", extra={"version": 4})
