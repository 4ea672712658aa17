"""All commands in one application."""

from __future__ import annotations

import typer

from app.cli import (
    audit,
    bench,
    certificate,
    chat,
    demo_model,
    doctor,
    erase,
    experts,
    keys,
    policy,
    requests,
    review,
    rollback,
    stack,
    webhooks,
)
from app.cli.support import EXIT_HELP

app = typer.Typer(
    name="lethe",
    no_args_is_help=True,
    help="An unlearning service for deployed multimodal LLMs.\n\nCommands talk to LETHE_URL with "
    "LETHE_API_KEY, or to the stack that runs here (`lethe up`).",
    epilog=EXIT_HELP,
)
app.add_typer(stack.app)
app.add_typer(requests.app)
app.add_typer(review.app)
app.add_typer(chat.app)
app.add_typer(experts.app)
app.add_typer(bench.app)
app.add_typer(erase.app)
app.add_typer(rollback.app)
app.add_typer(doctor.app)
app.add_typer(keys.app, name="keys")
app.add_typer(audit.app, name="audit")
app.add_typer(certificate.app, name="certificate")
app.add_typer(webhooks.app, name="webhooks")
app.add_typer(policy.app, name="policy")
app.add_typer(demo_model.app, name="demo-model")


def main() -> None:
    """Entry point of the `lethe` command."""
    app()
