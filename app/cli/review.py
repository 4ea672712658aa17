"""`lethe approve`, `reject`, `retry`, `cancel`, `revoke`, `withdraw`: what people decide about a request."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, cast, get_args

import typer

from app.cli.support import JsonOption, client_for, problems_explained
from app.client.types import Denial

app = typer.Typer()

ReasonOption = Annotated[str | None, typer.Option(help="Why, in words; the owner sees it.")]
DenialReason = StrEnum("DenialReason", {code: code for code in get_args(Denial)})  # type: ignore[misc]  # from the API


@app.command()
def approve(request_id: str, reason: ReasonOption = None, as_json: JsonOption = False) -> None:
    """Approve a request: the subject is refused from now on, and the work begins (operators)."""
    from app.cli.requests import show_request

    with problems_explained(), client_for("operator") as client:
        show_request(client.approve(request_id, reason=reason), as_json)


@app.command()
def reject(
    request_id: str,
    code: Annotated[DenialReason, typer.Option(help="Why, in the Data Rights Protocol's words.")],
    reason: ReasonOption = None,
    as_json: JsonOption = False,
) -> None:
    """Reject a request (operators)."""
    from app.cli.requests import show_request

    with problems_explained(), client_for("operator") as client:
        show_request(client.reject(request_id, cast("Denial", code.value), reason=reason), as_json)


@app.command()
def retry(request_id: str, reason: ReasonOption = None, as_json: JsonOption = False) -> None:
    """Queue a request again that needed attention (operators)."""
    from app.cli.requests import show_request

    with problems_explained(), client_for("operator") as client:
        show_request(client.retry(request_id, reason=reason), as_json)


@app.command()
def cancel(request_id: str, reason: ReasonOption = None, as_json: JsonOption = False) -> None:
    """Cancel a request that is not active yet."""
    from app.cli.requests import show_request

    with problems_explained(), client_for("owner") as client:
        show_request(client.cancel(request_id, reason=reason), as_json)


@app.command()
def revoke(request_id: str, reason: ReasonOption = None, as_json: JsonOption = False) -> None:
    """End the protection of an active or failed request: the model answers about the subject as before."""
    from app.cli.requests import show_request

    with problems_explained(), client_for("owner") as client:
        show_request(client.revoke(request_id, reason=reason), as_json)


@app.command()
def withdraw(request_id: str, reason: ReasonOption = None, as_json: JsonOption = False) -> None:
    """Take a request back, however far it is: cancelled, or revoked if it is active or failed."""
    from app.cli.requests import show_request

    with problems_explained(), client_for("owner") as client:
        show_request(client.withdraw(request_id, reason=reason), as_json)
