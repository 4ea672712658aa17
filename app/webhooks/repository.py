"""SQL of webhooks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from sqlalchemy import bindparam, delete, exists, func, or_, select, update
from sqlalchemy.orm import aliased

from app.db.models import Tenant
from app.db.repository import Page, Repository
from app.db.webhook_models import Webhook, WebhookAttempt, WebhookMessage

_EACH = 2
"""So many messages of one webhook are taken at a time, so that a slow receiver leaves room for the others."""


_WEBHOOKS, _TENANTS = Webhook.__table__, Tenant.__table__
_TO_BE_TOLD = (
    select(_WEBHOOKS.c.id)
    .join(_TENANTS, _TENANTS.c.id == _WEBHOOKS.c.tenant_id)
    .where(or_(_WEBHOOKS.c.tenant_id == bindparam("tenant_id"), _TENANTS.c.name == bindparam("root")))
    .order_by(_WEBHOOKS.c.id)
)


class WebhookRepository(Repository[Webhook]):
    """Webhooks of a tenant (None: of all)."""

    model = Webhook

    def get(self, webhook_id: str, tenant_id: str | None, *, lock: bool = False) -> Webhook | None:
        """Return one."""
        statement = select(Webhook).where(Webhook.id == webhook_id)
        if tenant_id is not None:
            statement = statement.where(Webhook.tenant_id == tenant_id)
        # Not `FOR UPDATE`: that would make every change of state wait that writes a message for it.
        return self.first(statement.with_for_update(key_share=True) if lock else statement)

    def listed(self, tenant_id: str | None, *, after: str | None, limit: int) -> Page[Webhook]:
        """Return one page, newest first."""
        statement = select(Webhook)
        if tenant_id is not None:
            statement = statement.where(Webhook.tenant_id == tenant_id)
        return self.page(statement, Webhook.id, after=after, limit=limit)

    def count(self, tenant_id: str) -> int:
        """Return how many a tenant has."""
        return self.session.execute(
            select(func.count()).select_from(Webhook).where(Webhook.tenant_id == tenant_id)
        ).scalar_one()

    def to_be_told(self, tenant_id: str, root: str) -> Sequence[str]:
        """Return the ids of the tenant's webhooks, and of those of the tenant `root`, which sees all."""
        return self.session.scalars(_TO_BE_TOLD, {"tenant_id": tenant_id, "root": root}).all()

    def waiting(self, webhook_ids: Sequence[str]) -> Mapping[str, int]:
        """Return how many messages wait for each of these that has any."""
        rows = self.session.execute(
            select(WebhookMessage.webhook_id, func.count())
            .where(WebhookMessage.webhook_id.in_(webhook_ids), WebhookMessage.delivered_at.is_(None))
            .group_by(WebhookMessage.webhook_id)
        )
        return {row[0]: row[1] for row in rows}

    def remove(self, webhook_id: str) -> None:
        """Delete it, with its messages and its delivery log."""
        self.session.execute(delete(Webhook).where(Webhook.id == webhook_id))

    def restart(self, webhook_id: str) -> None:
        """Let everything that waits be tried at once, with all its tries again."""
        self.session.execute(
            update(WebhookMessage)
            .where(WebhookMessage.webhook_id == webhook_id, WebhookMessage.delivered_at.is_(None))
            .values(tries=0, next_at=func.clock_timestamp())
            .execution_options(synchronize_session=False)
        )


class MessageRepository(Repository[WebhookMessage]):
    """Messages and attempts at delivering them."""

    model = WebhookMessage

    def take(self, limit: int, lease: timedelta) -> Sequence[tuple[WebhookMessage, Webhook]]:
        """Take messages that may be sent now: nobody else gets them before `lease` has passed.

        Of each request only the oldest that its webhook has not got yet, so that they arrive in order; of
        each webhook a few, the longest due first; none of a disabled one.
        """
        earlier = aliased(WebhookMessage)
        due = (
            select(
                WebhookMessage.seq,
                func.row_number()
                .over(partition_by=WebhookMessage.webhook_id, order_by=WebhookMessage.next_at)
                .label("rank"),
            )
            .join(Webhook, Webhook.id == WebhookMessage.webhook_id)
            .where(
                WebhookMessage.delivered_at.is_(None),
                WebhookMessage.next_at <= func.clock_timestamp(),
                Webhook.disabled_at.is_(None),
                ~exists().where(
                    earlier.webhook_id == WebhookMessage.webhook_id,
                    earlier.request_id == WebhookMessage.request_id,
                    earlier.delivered_at.is_(None),
                    earlier.seq < WebhookMessage.seq,
                ),
            )
            .subquery()
        )
        statement = (
            select(WebhookMessage, Webhook)
            .join(Webhook, Webhook.id == WebhookMessage.webhook_id)
            .where(
                WebhookMessage.seq.in_(select(due.c.seq).where(due.c.rank <= _EACH)),
                WebhookMessage.delivered_at.is_(None),
                WebhookMessage.next_at <= func.clock_timestamp(),  # again: somebody may have just taken it
            )
            .order_by(WebhookMessage.next_at)
            .limit(limit)
            .with_for_update(of=WebhookMessage, skip_locked=True)
        )
        found = [(message, webhook) for message, webhook in self.session.execute(statement)]
        for message, _ in found:
            message.tries += 1
            message.next_at = func.clock_timestamp() + lease
        self.session.flush()
        return found

    def delivered(self, seq: int) -> None:
        """Note that the receiver has taken it."""
        self.session.execute(
            update(WebhookMessage)
            .where(WebhookMessage.seq == seq, WebhookMessage.delivered_at.is_(None))
            .values(delivered_at=func.clock_timestamp())
            .execution_options(synchronize_session=False)
        )

    def postpone(self, seq: int, tries: int, by: timedelta) -> None:
        """Let the message be tried again later, unless somebody else has taken it since."""
        self.session.execute(
            update(WebhookMessage)
            .where(WebhookMessage.seq == seq, WebhookMessage.tries == tries)
            .values(next_at=func.clock_timestamp() + by)
            .execution_options(synchronize_session=False)
        )

    def log(self, attempt: WebhookAttempt) -> None:
        """Add to the delivery log."""
        self.session.add(attempt)
        self.session.flush()

    def attempts(self, webhook_id: str, *, after: str | None, limit: int) -> Page[WebhookAttempt]:
        """Return one page of a webhook's delivery log, newest first."""
        statement = select(WebhookAttempt).where(WebhookAttempt.webhook_id == webhook_id)
        if after is not None:
            statement = statement.where(WebhookAttempt.id < after)
        rows = self.session.scalars(statement.order_by(WebhookAttempt.id.desc()).limit(limit + 1)).all()
        return Page(rows[:limit], len(rows) > limit)

    def forget(self, before: datetime) -> int:
        """Delete messages and attempts from before a time, delivered or not; return how many messages."""
        self.session.execute(delete(WebhookAttempt).where(WebhookAttempt.created_at < before))
        gone = self.session.execute(
            delete(WebhookMessage).where(WebhookMessage.created_at < before).returning(WebhookMessage.seq)
        )
        return len(gone.all())
