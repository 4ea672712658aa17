"""`lethe submit`, `lethe status`, `lethe chat`: a server over HTTP."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.support import JsonOption, client_for, console, errors, problems_explained, show

if TYPE_CHECKING:
    from app.client import Client

app = typer.Typer()


@app.command()
def submit(
    name: Annotated[str | None, typer.Option(help="What the subject is called.")] = None,
    klass: Annotated[str, typer.Option("--class", help="MLUBench class, such as Personage.")] = "Personage",
    picture: Annotated[
        list[Path] | None, typer.Option(exists=True, dir_okay=False, help="Repeatable.")
    ] = None,
    alias: Annotated[list[str] | None, typer.Option(help="Another name; repeatable.")] = None,
    note: Annotated[str, typer.Option(help="For the reviewer.")] = "",
    follow: Annotated[bool, typer.Option("--follow", help="Wait until it is active.")] = False,
    as_json: JsonOption = False,
) -> None:
    """File a removal request."""
    with problems_explained(), client_for("owner") as client:
        pictures = [(path.name, path.read_bytes()) for path in picture or []]
        answer = client.submit(name=name, klass=klass, pictures=pictures, aliases=alias or [], note=note)
        if follow:
            answer = _follow(client, str(answer["id"]), quiet=as_json)
        show(answer, as_json)
        if follow and answer["state"] != "active":
            raise typer.Exit(1)


@app.command()
def status(
    request_id: str,
    watch: Annotated[bool, typer.Option("--watch", help="Until it is final or waits for a person.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show where a removal request is."""
    with problems_explained(), client_for("owner") as client:
        show(_follow(client, request_id, quiet=as_json) if watch else client.status(request_id), as_json)


@app.command()
def chat(
    text: str,
    picture: Annotated[
        list[Path] | None, typer.Option(exists=True, dir_okay=False, help="Repeatable.")
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=1)] = 64,
    as_json: JsonOption = False,
) -> None:
    """Ask the model one question."""
    with problems_explained(), client_for("chat") as client:
        from PIL import Image

        from app.client import png, turn

        shown = [png(Image.open(path).convert("RGB")) for path in picture or []]
        answer = client.chat([turn("user", text, shown)], max_tokens=max_tokens)
        if as_json:
            show(answer, as_json)
        else:
            console.print(answer["message"]["content"], markup=False)


def _follow(client: Client, request_id: str, *, quiet: bool) -> dict[str, Any]:
    """Wait for a request, with a progress bar on a terminal."""
    from rich.progress import Progress

    found: dict[str, Any] = {}
    with Progress(console=errors, disable=quiet or not sys.stderr.isatty()) as progress:
        task = progress.add_task(request_id, total=100)
        for found in client.follow(request_id):
            progress.update(task, completed=float(found["percent"]), description=found["state"])
    return found
