"""`lethe submit`, `lethe status`, `lethe report`, `lethe chat`: a server over HTTP."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from app.cli.support import JsonOption, client_for, console, errors, give_up, problems_explained

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
        _show_request(answer, as_json)
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
        found = _follow(client, request_id, quiet=as_json) if watch else client.status(request_id)
        _show_request(found, as_json)


@app.command()
def report(
    request_id: str,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Write it to this file: a page if it ends in .html, else JSON."),
    ] = None,
    subject: Annotated[
        bool, typer.Option("--subject", help="With the subject and some questions and answers; audited.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show or save the report of a removal request: what was measured, and what is not claimed."""
    with problems_explained(), client_for("owner") as client:
        if out is not None and out.suffix.lower() in (".html", ".htm"):
            _write(out, client.report_page(request_id, subject=subject))
            return
        found = client.report(request_id, subject=subject)
        if out is not None:
            _write(out, json.dumps(found, indent=1, ensure_ascii=False) + "\n")
        elif as_json:
            console.print_json(data=found)
        else:
            _show_report(found)


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
            console.print_json(data=answer)
        else:
            console.print(answer["message"]["content"], markup=False)


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        give_up(f"cannot write {path}: {error.strerror}", "Choose another file with --out.")
    errors.print(f"written to {path}", markup=False)


def _show_report(found: dict[str, Any]) -> None:
    """Print findings and what is not claimed; everything else is in the page and in the JSON."""
    request = found["request"]
    console.print(f"{request['id']}: {request['state']}", markup=False)
    findings = Table("finding", "")
    for finding in found["findings"]:
        verdict = {True: "met", False: "NOT met", None: ""}[finding["met"]]
        findings.add_row(Text(f"{finding['title']}: {finding['statement']}"), verdict)
    console.print(findings if found["findings"] else "Nothing has been measured yet.")
    console.print("Not claimed:", markup=False)
    for claim in found["not_claimed"]:
        console.print(f"- {claim}", markup=False)


def _follow(client: Client, request_id: str, *, quiet: bool) -> dict[str, Any]:
    """Wait for a request, with a progress bar on a terminal."""
    from rich.progress import Progress

    found: dict[str, Any] = {}
    with Progress(console=errors, disable=quiet or not sys.stderr.isatty()) as progress:
        task = progress.add_task(request_id, total=100)
        for found in client.follow(request_id):
            progress.update(task, completed=float(found["percent"]), description=found["state"])
    return found


def _show_request(found: dict[str, Any], as_json: bool) -> None:
    """Print where a request is: JSON in full, or what a person wants to know, and the scores as a table."""
    if as_json:
        console.print_json(data=found)
        return
    about = Table(box=None, show_header=False)
    fields = "id state stage percent message hint reason linked_to protection protected_at expected_by"
    for field in fields.split():
        if found.get(field) not in (None, ""):
            about.add_row(field.replace("_", " "), str(found[field]))
    console.print(about)
    if found.get("scores"):
        scores = Table("metric", "value", "95 % interval", "n", "threshold", "")
        for s in found["scores"]:
            interval = f"{s['low']:.3f} to {s['high']:.3f}" if s["low"] is not None else ""
            verdict = {True: "passed", False: "failed", None: s["reason"] or ""}[s["passed"]]
            value, threshold = (f"{x:.4g}" if x is not None else "" for x in (s["value"], s["threshold"]))
            scores.add_row(s["metric"], value, interval, str(s["n"]), threshold, verdict)
        console.print(scores)
