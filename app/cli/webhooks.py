"""`lethe webhooks`: where this tenant is told of changes of state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.support import Exit, JsonOption, client_for, console, errors, problems_explained, show

if TYPE_CHECKING:
    from app.client.types import Webhook

app = typer.Typer(no_args_is_help=True, help="Webhooks: be told of every change of state.")


@app.command("create")
def create_webhook(
    url: str,
    description: Annotated[str, typer.Option(help="What it is for.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Register a webhook. Its secret is printed this once; check signatures with it."""
    with problems_explained(), client_for("owner") as client:
        _show_secret(client.create_webhook(url, description=description), as_json)


@app.command("list")
def list_webhooks(as_json: JsonOption = False) -> None:
    """List the webhooks this key may see."""
    with problems_explained(), client_for("owner") as client:
        found = client.webhooks(limit=200)
    rows = [
        {
            "webhook": w["id"],
            "url": w["url"],
            "state": "enabled" if w["enabled"] else f"disabled: {w['disabled_because']}",
            "waiting": w["waiting"],
            "last delivered": w["last_delivered_at"],
        }
        for w in found["items"]
    ]
    show(found, as_json, rows, "No webhooks. Make one: lethe webhooks create https://...")


@app.command("delete")
def delete_webhook(webhook_id: str, as_json: JsonOption = False) -> None:
    """Send nothing there any more, and forget what waits."""
    with problems_explained(), client_for("owner") as client:
        client.delete_webhook(webhook_id)
    if as_json:
        console.print_json(data={"deleted": webhook_id})
    else:
        console.print(f"Deleted {webhook_id}.")


@app.command("enable")
def enable_webhook(webhook_id: str, as_json: JsonOption = False) -> None:
    """Deliver again, beginning with what waits."""
    with problems_explained(), client_for("owner") as client:
        found = client.enable_webhook(webhook_id)
    if as_json:
        console.print_json(data=found)
    else:
        console.print(f"Enabled {webhook_id}; {found['waiting']} message(s) wait.")


@app.command("rotate")
def rotate_webhook(webhook_id: str, as_json: JsonOption = False) -> None:
    """Make a new secret, printed this once; messages carry signatures by both for a day."""
    with problems_explained(), client_for("owner") as client:
        _show_secret(client.rotate_webhook(webhook_id), as_json)


@app.command("test")
def send_test_message(webhook_id: str, as_json: JsonOption = False) -> None:
    """Send a test message now. Status 1 if the receiver did not take it."""
    with problems_explained(), client_for("owner") as client:
        found = client.test_webhook(webhook_id)
    if as_json:
        console.print_json(data=found)
    else:
        outcome = "Delivered" if found["delivered"] else f"NOT delivered ({found['error']})"
        status = f", answered {found['status']}" if found["status"] is not None else ""
        console.print(f"{outcome}{status}, {found['milliseconds']} ms.", markup=False)
    raise typer.Exit(Exit.DONE if found["delivered"] else Exit.NEGATIVE)


@app.command("log")
def delivery_log(
    webhook_id: str,
    limit: Annotated[int, typer.Option(min=1, max=200, help="How many at most.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """Show the attempts at delivering, newest first."""
    with problems_explained(), client_for("owner") as client:
        found = client.deliveries(webhook_id, limit=limit)
    rows = [
        {
            "at": d["at"],
            "request": d["request_id"],
            "attempt": d["attempt"],
            "answered": d["status"],
            "error": d["error"],
            "ms": d["milliseconds"],
        }
        for d in found["items"]
    ]
    show(found, as_json, rows, "Nothing has been sent yet.")


def _show_secret(made: Webhook, as_json: bool) -> None:
    if as_json:
        console.print_json(data=made)
        return
    console.print(str(made.get("secret")), markup=False, soft_wrap=True)
    errors.print(f"Secret of {made['id']} for {made['url']}. It is not shown again.", markup=False)
