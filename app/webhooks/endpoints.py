"""HTTP for webhooks."""

from typing import Annotated, cast

from fastapi import APIRouter, Depends, Path, Request, Response

from app.accounts.principal import Principal
from app.api.deps import SessionDep, SettingsDep, require
from app.api.pagination import Cursor, Limit, PageOf, decode_cursor, encode_cursor
from app.api.problems import responses
from app.api.routes import CommittingRoute
from app.db.session import SessionFactory
from app.webhooks.delivery import Deliverer
from app.webhooks.errors import TooManyWebhooks, WebhookNotFound, WebhookUrlRefused
from app.webhooks.schemas import DeliveryView, NewWebhook, WebhookView
from app.webhooks.service import WebhookService

router = APIRouter(tags=["webhooks"], route_class=CommittingRoute)
Owners = Annotated[Principal, Depends(require("owner", "operator"))]
WebhookId = Annotated[str, Path(description="Id of a webhook: `whk_...`")]


@router.post(
    "/webhooks",
    status_code=201,
    summary="Register a webhook",
    responses=responses(WebhookUrlRefused, TooManyWebhooks),
)
def create_webhook(
    body: NewWebhook, principal: Owners, session: SessionDep, settings: SettingsDep, response: Response
) -> WebhookView:
    """Have every change of state of this tenant's requests (root: of all) sent to an address.

    Each comes as a signed POST (Standard Webhooks: `webhook-id`, `webhook-timestamp`, `webhook-signature`)
    with `{"type": "request.state_changed", "timestamp": ..., "data": {"request_id", "event", "from",
    "state", ...}}`: ids, states and codes, nobody's name. Answer 2xx within 15 seconds; else it is tried
    seven times more, over 28 hours, and then the webhook is disabled. Messages about one request come in
    order, at least once.
    """
    webhook, secret = WebhookService(session, settings).create(principal, body.url, body.description)
    response.headers["Location"] = f"/webhooks/{webhook.id}"
    return WebhookView.of(webhook, 0, secret)


@router.get("/webhooks", summary="List webhooks", responses=responses())
def list_webhooks(
    principal: Owners, session: SessionDep, settings: SettingsDep, limit: Limit = 50, cursor: Cursor = None
) -> PageOf[WebhookView]:
    """List the webhooks this key may see, newest first."""
    service = WebhookService(session, settings)
    page = service.listed(principal.sees, after=decode_cursor(cursor), limit=limit)
    waiting = service.waiting(page.items)
    return PageOf(
        items=[WebhookView.of(webhook, waiting.get(webhook.id, 0)) for webhook in page.items],
        next=encode_cursor(page.items[-1].id) if page.more else None,
    )


@router.get("/webhooks/{webhook_id}", summary="One webhook", responses=responses(WebhookNotFound))
def get_webhook(
    webhook_id: WebhookId, principal: Owners, session: SessionDep, settings: SettingsDep
) -> WebhookView:
    """Return one webhook."""
    service = WebhookService(session, settings)
    webhook = service.get(webhook_id, principal.sees)
    return WebhookView.of(webhook, service.waiting([webhook]).get(webhook.id, 0))


@router.delete(
    "/webhooks/{webhook_id}",
    status_code=204,
    summary="Delete a webhook",
    response_class=Response,
    responses=responses(WebhookNotFound),
)
def delete_webhook(
    webhook_id: WebhookId, principal: Owners, session: SessionDep, settings: SettingsDep
) -> None:
    """Send nothing there any more; what waits is forgotten."""
    WebhookService(session, settings).delete(principal, webhook_id)


@router.post(
    "/webhooks/{webhook_id}/enable", summary="Enable a webhook", responses=responses(WebhookNotFound)
)
def enable_webhook(
    webhook_id: WebhookId, principal: Owners, session: SessionDep, settings: SettingsDep
) -> WebhookView:
    """Deliver again, beginning with what waits, with all its tries anew."""
    service = WebhookService(session, settings)
    webhook = service.enable(principal, webhook_id)
    return WebhookView.of(webhook, service.waiting([webhook]).get(webhook.id, 0))


@router.post(
    "/webhooks/{webhook_id}/rotate",
    summary="Give a webhook a new secret",
    responses=responses(WebhookNotFound),
)
def rotate_webhook(
    webhook_id: WebhookId, principal: Owners, session: SessionDep, settings: SettingsDep
) -> WebhookView:
    """Make a new secret, shown this once. For a day messages carry signatures by both."""
    service = WebhookService(session, settings)
    webhook, secret = service.rotate(principal, webhook_id)
    return WebhookView.of(webhook, service.waiting([webhook]).get(webhook.id, 0), secret)


@router.post(
    "/webhooks/{webhook_id}/test", summary="Send a test message", responses=responses(WebhookNotFound)
)
def test_webhook(
    webhook_id: WebhookId, principal: Owners, request: Request, settings: SettingsDep
) -> DeliveryView:
    """Send a message of type `webhook.test` now, once, and return how that went."""
    factory = cast("SessionFactory", request.app.state.session_factory)
    with factory.begin() as session:  # no transaction stays open while it is sent
        webhook = WebhookService(session, settings).get(webhook_id, principal.sees)
    return DeliveryView.of(Deliverer(factory, settings).test(webhook))


@router.get(
    "/webhooks/{webhook_id}/deliveries", summary="The delivery log", responses=responses(WebhookNotFound)
)
def list_deliveries(
    webhook_id: WebhookId,
    principal: Owners,
    session: SessionDep,
    settings: SettingsDep,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> PageOf[DeliveryView]:
    """List the attempts at delivering, newest first; they are kept as long as messages are (30 days)."""
    page = WebhookService(session, settings).attempts(
        webhook_id, principal.sees, after=decode_cursor(cursor), limit=limit
    )
    return PageOf(
        items=[DeliveryView.of(attempt) for attempt in page.items],
        next=encode_cursor(page.items[-1].id) if page.more else None,
    )
