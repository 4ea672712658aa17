"""What tenants do with their webhooks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta

from sqlalchemy.orm import Session

from app.accounts.principal import Principal
from app.audit.service import AuditService
from app.db.repository import Page, lock_ledger, lock_named
from app.db.webhook_models import Webhook, WebhookAttempt
from app.kit.clock import utcnow
from app.kit.crypto import EvidenceCipher
from app.kit.ids import is_id, new_id
from app.settings import Settings
from app.webhooks.addresses import checked_url
from app.webhooks.errors import TooManyWebhooks, WebhookNotFound
from app.webhooks.repository import MessageRepository, WebhookRepository
from app.webhooks.signing import new_secret

MAX_WEBHOOKS = 10
"""Of one tenant."""

OVERLAP = timedelta(hours=24)
"""How long the secret before signs too after a rotation."""


def seal(cipher: EvidenceCipher, webhook_id: str, secret: str) -> bytes:
    """Return a webhook's secret encrypted, bound to the webhook."""
    return cipher.encrypt(secret.encode(), secret_aad(webhook_id))


def secrets_of(cipher: EvidenceCipher, webhook: Webhook) -> list[str]:
    """Return the secrets that sign now, the newest first.

    Raises:
        DecryptionError: the key that encrypted one is not configured.
    """
    sealed = [webhook.secret_sealed]
    if webhook.previous_sealed is not None and (webhook.previous_until or utcnow()) > utcnow():
        sealed.append(webhook.previous_sealed)
    return [cipher.decrypt(one, secret_aad(webhook.id)).decode() for one in sealed]


def secret_aad(webhook_id: str) -> bytes:
    """Return what the ciphertext of a webhook's secrets is bound to."""
    return f"webhook:{webhook_id}".encode()


class WebhookService:
    """One transaction's view of webhooks. It never commits."""

    def __init__(self, session: Session, settings: Settings) -> None:
        self._session = session
        self._settings = settings
        self._webhooks = WebhookRepository(session)
        self._messages = MessageRepository(session)
        self._audit = AuditService(session)

    def create(self, principal: Principal, url: str, description: str) -> tuple[Webhook, str]:
        """Register a webhook; return it and its secret, which is shown this once.

        Raises:
            WebhookUrlRefused: it cannot be sent to.
            TooManyWebhooks: the tenant has ten already.
        """
        checked_url(url, private_allowed=self._settings.webhook_private_addresses)
        lock_named(self._session, f"webhooks:{principal.tenant_id}")
        if self._webhooks.count(principal.tenant_id) >= MAX_WEBHOOKS:
            raise TooManyWebhooks(f"A tenant can have {MAX_WEBHOOKS}.")
        webhook_id, secret = new_id("whk"), new_secret()
        webhook = self._webhooks.add(
            Webhook(
                id=webhook_id,
                tenant_id=principal.tenant_id,
                created_by=principal.key_id,
                url=url,
                description=description,
                secret_sealed=seal(self._settings.evidence_cipher(), webhook_id, secret),
            )
        )
        self._record("created", webhook, principal.key_id)
        return webhook, secret

    def get(self, webhook_id: str, tenant_id: str | None, *, lock: bool = False) -> Webhook:
        """Return a webhook that `tenant_id` (None: anybody) may see.

        Raises:
            WebhookNotFound: no such webhook, or another tenant's.
        """
        if lock:  # first the ledger, then the row: what is done with it is audited
            lock_ledger(self._session)
        found = self._webhooks.get(webhook_id, tenant_id, lock=lock) if is_id(webhook_id, "whk") else None
        if found is None:
            raise WebhookNotFound("There is no webhook with this id.")
        return found

    def listed(self, tenant_id: str | None, *, after: str | None, limit: int) -> Page[Webhook]:
        """Return one page of a tenant's webhooks (None: of all), newest first."""
        return self._webhooks.listed(tenant_id, after=after, limit=limit)

    def waiting(self, webhooks: Sequence[Webhook]) -> Mapping[str, int]:
        """Return how many messages wait for each of these that has any."""
        return self._webhooks.waiting([webhook.id for webhook in webhooks])

    def attempts(
        self, webhook_id: str, tenant_id: str | None, *, after: str | None, limit: int
    ) -> Page[WebhookAttempt]:
        """Return one page of a webhook's delivery log, newest first; raises `WebhookNotFound`."""
        return self._messages.attempts(self.get(webhook_id, tenant_id).id, after=after, limit=limit)

    def delete(self, principal: Principal, webhook_id: str) -> None:
        """Delete a webhook and what waits for it; raises `WebhookNotFound`."""
        webhook = self.get(webhook_id, principal.sees, lock=True)
        self._record("deleted", webhook, principal.key_id)
        self._webhooks.remove(webhook.id)

    def enable(self, principal: Principal, webhook_id: str) -> Webhook:
        """Deliver again, first what waits, with all its tries; raises `WebhookNotFound`."""
        webhook = self.get(webhook_id, principal.sees, lock=True)
        if webhook.disabled_at is not None:
            webhook.disabled_at = webhook.disabled_because = None
            self._record("enabled", webhook, principal.key_id)
        self._webhooks.restart(webhook.id)
        return webhook

    def rotate(self, principal: Principal, webhook_id: str) -> tuple[Webhook, str]:
        """Give it a new secret, and let the old one sign too for a day; raises `WebhookNotFound`."""
        webhook = self.get(webhook_id, principal.sees, lock=True)
        secret = new_secret()
        webhook.previous_sealed, webhook.previous_until = webhook.secret_sealed, utcnow() + OVERLAP
        webhook.secret_sealed = seal(self._settings.evidence_cipher(), webhook.id, secret)
        self._record("rotated", webhook, principal.key_id)
        return webhook, secret

    def disable(self, webhook_id: str, because: str) -> bool:
        """Send nothing there until somebody enables it; False if that was so already, or it is gone."""
        lock_ledger(self._session)
        webhook = self._webhooks.get(webhook_id, None, lock=True)
        if webhook is None or webhook.disabled_at is not None:
            return False
        webhook.disabled_at, webhook.disabled_because = utcnow(), because
        self._record("disabled", webhook, "system:webhooks", because=because)
        return True

    def _record(self, what: str, webhook: Webhook, actor: str, **payload: str) -> None:
        self._audit.append(
            f"webhook.{what}",
            actor=actor,
            subject_id=webhook.id,
            tenant_id=webhook.tenant_id,
            payload=payload,
        )
