"""What goes over the wire about webhooks."""

from __future__ import annotations

from datetime import datetime
from typing import Self

from pydantic import BaseModel, ConfigDict, Field

from app.db.webhook_models import Webhook, WebhookAttempt
from app.kit.names import PLAIN_TEXT


class NewWebhook(BaseModel):
    """Where to send."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"example": {"url": "https://example.org/lethe"}}
    )

    url: str = Field(max_length=2000, description="https; reachable from the Internet.")
    description: str = Field(
        default="", max_length=200, pattern=PLAIN_TEXT, description="What it is for. No control characters."
    )


class WebhookView(BaseModel):
    """A webhook. `secret` only in the answer that made it."""

    id: str
    tenant_id: str
    url: str
    description: str
    enabled: bool
    disabled_because: str | None = Field(
        description="`failing`: a message failed eight times in 28 hours; `gone`: the receiver answered 410."
    )
    waiting: int = Field(description="Messages that have not arrived yet.")
    created_at: datetime
    last_delivered_at: datetime | None
    secret: str | None = Field(
        default=None, description="Signs the messages; shown this once, and stored encrypted."
    )

    @classmethod
    def of(cls, webhook: Webhook, waiting: int, secret: str | None = None) -> Self:
        """Return the wire form of a webhook."""
        return cls(
            id=webhook.id,
            tenant_id=webhook.tenant_id,
            url=webhook.url,
            description=webhook.description,
            enabled=webhook.disabled_at is None,
            disabled_because=webhook.disabled_because,
            waiting=waiting,
            created_at=webhook.created_at,
            last_delivered_at=webhook.last_delivered_at,
            secret=secret,
        )


class DeliveryView(BaseModel):
    """One attempt at delivering one message."""

    id: str
    message_id: str = Field(description="The `webhook-id` it was sent with.")
    type: str
    request_id: str | None
    attempt: int
    delivered: bool
    status: int | None = Field(description="What the receiver answered; null if it came to none.")
    error: str | None = Field(
        description="`status` (other than 2xx), `timeout`, `no_connection`, `tls`, `name_not_resolved`, "
        "`address_not_allowed`, `protocol` or `secret_unreadable`."
    )
    milliseconds: int
    at: datetime

    @classmethod
    def of(cls, attempt: WebhookAttempt) -> Self:
        """Return the wire form of an attempt."""
        return cls(
            id=attempt.id,
            message_id=attempt.message_id,
            type=attempt.type,
            request_id=attempt.request_id,
            attempt=attempt.attempt,
            delivered=attempt.error is None,
            status=attempt.status,
            error=attempt.error,
            milliseconds=attempt.milliseconds,
            at=attempt.created_at,
        )
