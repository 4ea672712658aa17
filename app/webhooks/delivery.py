"""From the outbox to the receivers: signed, in order, again after a failure, and one day no longer."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta

from app.db.repository import lock_ledger
from app.db.session import SessionFactory
from app.db.webhook_models import Webhook, WebhookAttempt
from app.kit.clock import rfc3339, utcnow
from app.kit.crypto import DecryptionError
from app.kit.ids import new_id
from app.kit.logging import get_logger
from app.settings import Settings
from app.webhooks.repository import MessageRepository, WebhookRepository
from app.webhooks.sending import Sent, send
from app.webhooks.service import WebhookService, secrets_of
from app.webhooks.signing import signed_headers

_log = get_logger("webhooks")

BACKOFF = (5.0, 300.0, 1800.0, 7200.0, 18000.0, 36000.0, 36000.0)
"""Seconds after each failed attempt until the next, as Standard Webhooks recommends; some 28 hours in all."""

LEASE = timedelta(seconds=60)
"""How long whoever has taken a message has it for himself; longer than sending may take."""

_BATCH = 16
_GONE = 410
TEST = "webhook.test"


@dataclass(frozen=True, slots=True)
class Parcel:
    """One message on its way: everything that sending needs, read before and held without a transaction."""

    seq: int
    message_id: str
    request_id: str | None
    type: str
    body: bytes
    attempt: int
    webhook_id: str
    url: str
    secrets: tuple[str, ...]


class Deliverer:
    """Sends what waits. Any number may run, in any number of processes.

    No transaction is open while something is sent. A process that dies meanwhile has its messages sent again
    by another, with the same `webhook-id`.

    Args:
        session_factory: where the truth is.
        settings: whether private addresses are allowed, how long messages are kept.
        post: how a message is sent, see `send`.
        backoff: seconds after each failed attempt; one more failure disables the webhook.
        threads: how many are sent at once.
    """

    def __init__(
        self,
        session_factory: SessionFactory,
        settings: Settings,
        *,
        post: Callable[..., Sent] = send,
        backoff: Sequence[float] = BACKOFF,
        threads: int = 4,
    ) -> None:
        self._sessions = session_factory
        self._settings = settings
        self._post = post
        self._backoff = backoff
        self._threads = threads

    def run_once(self) -> int:
        """Send what may be sent now, and return how many messages were tried."""
        with self._sessions.begin() as session:
            taken = MessageRepository(session).take(_BATCH, LEASE)
            parcels = [
                Parcel(
                    m.seq, m.id, m.request_id, m.type, m.body.encode(), m.tries, w.id, w.url, self._secrets(w)
                )
                for m, w in taken
            ]
        if len(parcels) == 1:
            self._deliver(parcels[0])
        elif parcels:
            with ThreadPoolExecutor(self._threads, thread_name_prefix="webhook") as pool:
                list(pool.map(self._deliver, parcels))
        return len(parcels)

    def test(self, webhook: Webhook) -> WebhookAttempt:
        """Send a test message now, whatever waits, and return its entry in the delivery log."""
        message_id = new_id("whm")
        told = {"type": TEST, "timestamp": rfc3339(utcnow()), "data": {"webhook_id": webhook.id}}
        body = json.dumps(told).encode()
        parcel = Parcel(0, message_id, None, TEST, body, 1, webhook.id, webhook.url, self._secrets(webhook))
        return self._log(parcel, self._send(parcel))

    def forget(self) -> int:
        """Delete messages and log entries that are older than the retention; return how many messages."""
        before = utcnow() - timedelta(days=self._settings.webhook_retention_days)
        with self._sessions.begin() as session:
            return MessageRepository(session).forget(before)

    def _secrets(self, webhook: Webhook) -> tuple[str, ...]:
        try:
            return tuple(secrets_of(self._settings.evidence_cipher(), webhook))
        except DecryptionError as error:
            _log.error("a webhook's secret cannot be read", webhook=webhook.id, error=str(error))
            return ()

    def _send(self, parcel: Parcel) -> Sent:
        if not parcel.secrets:
            return Sent(None, "secret_unreadable", 0)
        now = int(utcnow().timestamp())
        headers = signed_headers(parcel.secrets, parcel.message_id, now, parcel.body)
        return self._post(
            parcel.url, headers, parcel.body, private_allowed=self._settings.webhook_private_addresses
        )

    def _log(self, parcel: Parcel, sent: Sent) -> WebhookAttempt:
        attempt = WebhookAttempt(
            id=new_id("wha"),
            webhook_id=parcel.webhook_id,
            message_id=parcel.message_id,
            request_id=parcel.request_id,
            type=parcel.type,
            attempt=parcel.attempt,
            status=sent.status,
            error=sent.error,
            milliseconds=sent.milliseconds,
            created_at=utcnow(),
        )
        with self._sessions.begin() as session:
            if WebhookRepository(session).get(parcel.webhook_id, None, lock=True) is not None:
                MessageRepository(session).log(attempt)
        return attempt

    def _deliver(self, parcel: Parcel) -> None:
        sent = self._send(parcel)
        self._log(parcel, sent)
        with self._sessions.begin() as session:
            if not sent.delivered:
                lock_ledger(session)  # before the row's, as everywhere: it may be disabled, which is audited
            webhook = WebhookRepository(session).get(parcel.webhook_id, None, lock=True)
            if webhook is None:  # deleted meanwhile, and the message with it
                return
            messages = MessageRepository(session)
            if sent.delivered:
                messages.delivered(parcel.seq)
                webhook.last_delivered_at = utcnow()
                return
            last = parcel.attempt > len(self._backoff) or sent.status == _GONE
            wait = 0.0 if last else self._backoff[parcel.attempt - 1] * random.uniform(1.0, 1.2)  # noqa: S311
            messages.postpone(parcel.seq, parcel.attempt, timedelta(seconds=wait))
            if last:
                WebhookService(session, self._settings).disable(
                    parcel.webhook_id, "gone" if sent.status == _GONE else "failing"
                )
        _log.warning(
            "webhook not delivered",
            webhook=parcel.webhook_id,
            attempt=parcel.attempt,
            status=sent.status,
            error=sent.error,
        )
