"""`lethe experts`: what is live, where, and since when."""

from __future__ import annotations

from typing import Annotated

import typer

from app.cli.support import Exit, JsonOption, client_for, console, problems_explained, show

app = typer.Typer()

LimitOption = Annotated[int, typer.Option(min=1, max=200, help="How many at most.")]


@app.command()
def experts(limit: LimitOption = 50, as_json: JsonOption = False) -> None:
    """Show the newest generation: replicas and experts (operators).

    Status 1 if not every replica serves it.
    """
    with problems_explained(), client_for("operator") as client:
        found = client.experts(limit=limit)
    if not as_json:
        served = "served by every replica" if found["acknowledged"] else "NOT served by every replica"
        console.print(
            f"Generation {found['generation']}, {served}; {found['interim']} refused without an expert.",
            soft_wrap=True,
        )
        replicas = [
            {"replica": r["name"], "generation": r["generation"], "error": r["error"]}
            for r in found["replicas"]
        ]
        show(None, False, replicas, "No replica is alive.")
    rows = [
        {
            "expert": expert["id"],
            "version": expert["version"],
            "request": expert["request_id"],
            "kB": expert["bytes"] // 1000,
            "since": expert["created_at"],
        }
        for expert in found["items"]
    ]
    show(found, as_json, rows, "No expert is live.")
    raise typer.Exit(Exit.DONE if found["acknowledged"] else Exit.NEGATIVE)


@app.command()
def generations(limit: LimitOption = 20, as_json: JsonOption = False) -> None:
    """Show the registry's history, newest first (operators)."""
    with problems_explained(), client_for("operator") as client:
        found = client.generations(limit=limit)
    rows = [
        {
            "generation": g["number"],
            "cause": g["cause"],
            "back to": g["restored_from"],
            "request": g["request_id"],
            "at": g["created_at"],
        }
        for g in found["items"]
    ]
    show(found, as_json, rows, "Nothing has been published yet.")
