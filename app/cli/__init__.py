"""The `lethe` command."""

from app.cli.application import app, main

__all__ = ["app", "main"]
