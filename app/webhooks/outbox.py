"""What webhooks are told, written in the transaction of what they are told of."""

from __future__ import annotations

import json
from collections.abc import Sequence

from sqlalchemy.orm import Session

from app.accounts.service import ROOT_TENANT
from app.db.webhook_models import WebhookMessage
from app.kit.clock import rfc3339, utcnow
from app.kit.ids import new_id
from app.webhooks.repository import MessageRepository, WebhookRepository

STATE_CHANGED = "request.state_changed"


class WebhookOutbox:
    """Messages within the caller's transaction: they are there exactly if the change is.

    Whom to tell is asked once for each tenant: several changes in one transaction happen at once.
    """

    def __init__(self, session: Session) -> None:
        self._webhooks = WebhookRepository(session)
        self._messages = MessageRepository(session)
        self._told: dict[str, Sequence[str]] = {}

    def state_changed(
        self,
        request_id: str,
        tenant_id: str,
        *,
        event: str,
        before: str | None,
        state: str,
        final: bool,
        waiting: bool,
        reason_code: str | None,
    ) -> None:
        """Tell the tenant's webhooks, and root's, that a request is in another state.

        Ids, states and codes alone: whom the request is about, and words that people wrote, stay here. The
        caller holds the request's lock, so messages about one request are numbered in the order of the
        changes.

        Args:
            request_id: which request.
            tenant_id: whose it is.
            event: what happened.
            before: the state it was in; None when it was filed.
            state: the state it is in.
            final: whether that needs no further work.
            waiting: whether it waits for a person.
            reason_code: stable code, if there is one.
        """
        told = self._told.get(tenant_id)
        if told is None:
            told = self._told[tenant_id] = self._webhooks.to_be_told(tenant_id, ROOT_TENANT)
        if not told:
            return
        body = json.dumps(
            {
                "type": STATE_CHANGED,
                "timestamp": rfc3339(utcnow()),
                "data": {
                    "request_id": request_id,
                    "tenant_id": tenant_id,
                    "event": event,
                    "from": before,
                    "state": state,
                    "final": final,
                    "waiting": waiting,
                    "reason_code": reason_code,
                    "status": f"/requests/{request_id}/status",
                },
            }
        )
        for webhook_id in told:
            self._messages.add(
                WebhookMessage(
                    id=new_id("whm"),
                    webhook_id=webhook_id,
                    request_id=request_id,
                    type=STATE_CHANGED,
                    body=body,
                )
            )
