"""All commands in one application."""

from __future__ import annotations

import typer

from app.cli import audit, certificate, demo_model, doctor, erase, keys, requests, rollback, stack

app = typer.Typer(
    name="lethe", no_args_is_help=True, help="An unlearning service for deployed multimodal LLMs."
)
app.add_typer(stack.app)
app.add_typer(requests.app)
app.add_typer(erase.app)
app.add_typer(rollback.app)
app.add_typer(doctor.app)
app.add_typer(keys.app, name="keys")
app.add_typer(audit.app, name="audit")
app.add_typer(certificate.app, name="certificate")
app.add_typer(demo_model.app, name="demo-model")


def main() -> None:
    """Entry point of the `lethe` command."""
    app()
