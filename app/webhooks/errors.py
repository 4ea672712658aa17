"""What can go wrong with webhooks."""

from app.kit.errors import Conflict, Example, InvalidInput, NotFound


class WebhookNotFound(NotFound):
    """No such webhook, or another tenant's."""

    TYPE = "webhook-not-found"
    TITLE = "No such webhook"
    HINT = "Check the id; `GET /webhooks` lists those of this key's tenant."
    EXAMPLE = Example("There is no webhook with this id.")


class TooManyWebhooks(Conflict):
    """The tenant has as many as it may have."""

    TYPE = "too-many-webhooks"
    TITLE = "Too many webhooks"
    HINT = "Delete one first: `DELETE /webhooks/{id}`."
    EXAMPLE = Example("A tenant can have 10.")


class WebhookUrlRefused(InvalidInput):
    """The address cannot be one that this service sends to."""

    TYPE = "webhook-url-refused"
    TITLE = "The address cannot be used"
    EXAMPLE = Example("It is no URL.", "Send one such as https://example.org/lethe.")
