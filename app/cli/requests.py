"""`lethe submit`, `lethe status`, `lethe requests`, `lethe report`: a server over HTTP."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, cast, get_args

import typer
from rich.table import Table
from rich.text import Text

from app.cli.support import (
    Exit,
    JsonOption,
    client_for,
    console,
    errors,
    give_up,
    print_table,
    problems_explained,
    show,
)  # fmt: skip
from app.client.types import State as StateName

if TYPE_CHECKING:
    from app.client import Client
    from app.client.types import Accepted, Request, Status

app = typer.Typer()
State = StrEnum("State", {name: name for name in get_args(StateName)})  # type: ignore[misc]  # from the API


@app.command()
def submit(
    name: Annotated[str | None, typer.Option(help="What the subject is called.")] = None,
    klass: Annotated[str, typer.Option("--class", help="MLUBench class, such as Personage.")] = "Personage",
    picture: Annotated[
        list[Path] | None, typer.Option(exists=True, dir_okay=False, help="Repeatable.")
    ] = None,
    alias: Annotated[list[str] | None, typer.Option(help="Another name; repeatable.")] = None,
    note: Annotated[str, typer.Option(help="For the reviewer.")] = "",
    ground: Annotated[
        str, typer.Option(help="Why: gdpr_art_17, gdpr_art_21, ccpa_1798_105, copyright, contract, ...")
    ] = "gdpr_art_17",
    follow: Annotated[bool, typer.Option("--follow", help="Wait until it is active.")] = False,
    as_json: JsonOption = False,
) -> None:
    """File a removal request.

    With --follow: status 0 if it ends `active`, 10 if it waits for a person, 1 if it ends otherwise.
    """
    with problems_explained(), client_for("owner") as client:
        pictures = [(path.name, path.read_bytes()) for path in picture or []]
        filed = client.submit(
            name=name, klass=klass, pictures=pictures, aliases=alias or [], note=note, legal_ground=ground
        )
        if not follow:
            show_request(filed, as_json)
            return
        if not as_json:
            errors.print(f"Filed {filed['id']}.", markup=False)
        _end_with(_follow(client, filed["id"], quiet=as_json), as_json)


@app.command()
def status(
    request_id: str,
    watch: Annotated[bool, typer.Option("--watch", help="Until it is final or waits for a person.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show where a removal request is.

    With --watch: status 0 if it ends `active`, 10 if it waits for a person, 1 if it ends otherwise.
    """
    with problems_explained(), client_for("owner") as client:
        if watch:
            _end_with(_follow(client, request_id, quiet=as_json), as_json)
        show_request(client.status(request_id), as_json)


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


@app.command("requests")
def list_requests(
    state: Annotated[list[State] | None, typer.Option(help="Only these states; repeatable.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """List the removal requests this key may see, newest first."""
    with problems_explained(), client_for("owner") as client:
        items: list[Request] = []
        cursor: str | None = None
        while len(items) < limit:
            wanted = [str(one.value) for one in state or ()]
            page = client.requests(
                state=cast("list[StateName]", wanted) or None,
                cursor=cursor,
                limit=min(200, limit - len(items)),
            )
            items += page["items"]
            cursor = page["next"]
            if cursor is None:
                break
    rows = [
        {
            "request": r["id"],
            "state": r["state"],
            "%": r["percent"],
            "class": r["class"],
            "ground": r["legal_ground"],
            "follows": r["linked_to"],
            "filed": r["created_at"],
        }
        for r in items
    ]
    show(items, as_json, rows, "No requests. File one: lethe submit --name ... --picture ...")


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


def _end_with(found: Status, as_json: bool) -> NoReturn:
    """Show where a request has come to, and end with the status that says how that went."""
    show_request(found, as_json)
    if found["state"] == "active":
        raise typer.Exit(Exit.DONE)
    raise typer.Exit(Exit.WAITS if found["waiting"] else Exit.NEGATIVE)


def _follow(client: Client, request_id: str, *, quiet: bool) -> Status:
    """Wait for a request, with a progress bar on a terminal, and return its last status."""
    from rich.progress import Progress

    found = client.status(request_id)
    with Progress(console=errors, disable=quiet or not sys.stderr.isatty()) as progress:
        task = progress.add_task(request_id, total=100)
        for found in client.follow(request_id):
            progress.update(task, completed=float(found["percent"]), description=found["state"])
    return found


def show_request(answer: Status | Accepted, as_json: bool) -> None:
    """Print where a request is: JSON in full, or what a person wants to know, and the scores as a table."""
    found: Mapping[str, Any] = answer
    if as_json:
        console.print_json(data=answer)
        return
    about = Table(box=None, show_header=False)
    fields = "id state stage percent message hint reason linked_to protection protected_at expected_by"
    for field in fields.split():
        if found.get(field) not in (None, ""):
            about.add_row(field.replace("_", " "), str(found[field]))
    print_table(about)
    if found.get("scores"):
        scores = Table("metric", "value", "95 % interval", "n", "threshold", "")
        for s in found["scores"]:
            interval = f"{s['low']:.3f} to {s['high']:.3f}" if s["low"] is not None else ""
            verdict = {True: "passed", False: "failed", None: s["reason"] or ""}[s["passed"]]
            value, threshold = (f"{x:.4g}" if x is not None else "" for x in (s["value"], s["threshold"]))
            scores.add_row(s["metric"], value, interval, str(s["n"]), threshold, verdict)
        print_table(scores)
