"""Tables of webhooks: where tenants are told, what waits to be told, and how telling went."""

from datetime import datetime

from sqlalchemy import DateTime, ForeignKey, Identity, Index, String, func, text
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import Base, Id, Long, Moment, Sealed, Words


def _now() -> Mapped[datetime]:
    return mapped_column(DateTime(timezone=True), server_default=func.clock_timestamp())


class Webhook(Base):
    """Where a tenant is told of changes of state. Its secrets are encrypted, bound to the row."""

    __tablename__ = "webhooks"

    id: Mapped[Id] = mapped_column(primary_key=True)
    tenant_id: Mapped[Id] = mapped_column(ForeignKey("tenants.id"), index=True)
    created_by: Mapped[Id] = mapped_column(ForeignKey("api_keys.id"))
    url: Mapped[Words]
    description: Mapped[Words] = mapped_column(server_default="")
    secret_sealed: Mapped[Sealed]
    previous_sealed: Mapped[Sealed | None]
    previous_until: Mapped[Moment | None]
    disabled_at: Mapped[Moment | None]
    disabled_because: Mapped[str | None] = mapped_column(String(32))
    last_delivered_at: Mapped[Moment | None]
    created_at: Mapped[datetime] = _now()


class WebhookMessage(Base):
    """A message for one webhook, written with the change it tells of; a request's leave in `seq` order.

    `next_at`: when it may be sent (again); while it is being sent, when somebody else may take it over.
    """

    __tablename__ = "webhook_messages"
    __table_args__ = (
        Index(
            "ix_webhook_messages_waiting",
            "webhook_id",
            "request_id",
            "seq",
            postgresql_where=text("delivered_at IS NULL"),
        ),
        Index("ix_webhook_messages_due", "next_at", postgresql_where=text("delivered_at IS NULL")),
        Index("ix_webhook_messages_created_at", "created_at"),
    )

    seq: Mapped[Long] = mapped_column(Identity(always=True), primary_key=True)
    id: Mapped[Id] = mapped_column(unique=True)
    webhook_id: Mapped[Id] = mapped_column(ForeignKey("webhooks.id", ondelete="CASCADE"))
    request_id: Mapped[Id] = mapped_column(ForeignKey("removal_requests.id"))
    type: Mapped[str] = mapped_column(String(64))
    body: Mapped[Words]
    tries: Mapped[int] = mapped_column(server_default="0")
    next_at: Mapped[datetime] = _now()
    delivered_at: Mapped[Moment | None]
    created_at: Mapped[datetime] = _now()


class WebhookAttempt(Base):
    """One attempt at delivering one message: the delivery log. `error` is a code, never what was answered."""

    __tablename__ = "webhook_attempts"
    __table_args__ = (
        Index("ix_webhook_attempts_webhook_id_id", "webhook_id", "id"),
        Index("ix_webhook_attempts_created_at", "created_at"),
    )

    id: Mapped[Id] = mapped_column(primary_key=True)
    webhook_id: Mapped[Id] = mapped_column(ForeignKey("webhooks.id", ondelete="CASCADE"))
    message_id: Mapped[Id]
    request_id: Mapped[Id | None]
    type: Mapped[str] = mapped_column(String(64))
    attempt: Mapped[int]
    status: Mapped[int | None]
    error: Mapped[str | None] = mapped_column(String(32))
    milliseconds: Mapped[int]
    created_at: Mapped[datetime] = _now()
