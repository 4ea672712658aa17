"""`lethe up`, `lethe demo`, `lethe migrate`."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from app.cli.support import JsonOption, console, database_explained, problems_explained, use_running_stack

if TYPE_CHECKING:
    from app.embedded.supervisor import Stack

app = typer.Typer()

PortOption = Annotated[int | None, typer.Option(help="Port of the API (default: 8000, or a free one).")]


@app.command()
def up(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1", port: PortOption = None
) -> None:
    """Run the embedded stack: Postgres, Valkey, API and worker, until Ctrl-C."""
    with problems_explained(), _stack(host, port) as stack:
        _introduce(stack)
        _serve(stack)


@app.command()
def demo(
    leave: Annotated[
        bool, typer.Option("--exit", help="Stop afterwards; status 0 only if it worked.")
    ] = False,
    entity: Annotated[
        str | None, typer.Option(help="Whom to forget, by name (default: a telling one).")
    ] = None,
    port: PortOption = None,
) -> None:
    """Start the embedded stack, have one entity forgotten, and show what changed and what did not."""
    start = time.monotonic()
    os.environ["LETHE_MODEL"] = "demo"  # the questions are about the demo world
    with problems_explained(), _stack("127.0.0.1", port) as stack:
        from app.embedded.demo.run import demonstrate

        console.print(f"Ready after {time.monotonic() - start:.1f} s at {stack.url}")
        outcome = demonstrate(
            stack.url,
            owner_key=stack.keys["owner"],
            chat_key=stack.keys["chat"],
            console=console,
            name=entity,
            watch=stack.watch,
        )
        console.print(f"From start to table: {time.monotonic() - start:.1f} s.")
        if leave:
            raise typer.Exit(0 if outcome.succeeded else 1)
        _introduce(stack, f"Who is {outcome.subject.name}?")
        _serve(stack)


@app.command()
def migrate(as_json: JsonOption = False) -> None:
    """Bring the database that LETHE_DATABASE_URL names to the newest schema."""
    with problems_explained():
        use_running_stack()
        from app.embedded.migrate import migrate as upgrade
        from app.settings import get_settings

        with database_explained():
            upgrade(get_settings().database_url)
        if as_json:
            console.print_json(data={"migrated": True})
        else:
            console.print("The database has the newest schema.")


@contextmanager
def _stack(host: str, port: int | None) -> Iterator[Stack]:
    """The embedded stack, ended by Ctrl-C and by SIGTERM alike."""
    from app.embedded.home import Home
    from app.embedded.supervisor import Stack

    def interrupt(_: int, __: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        with Stack(
            Home.from_environment(), host=host, port=port, report=lambda line: console.print(line)
        ) as stack:
            yield stack
    finally:
        signal.signal(signal.SIGTERM, previous)


def _introduce(stack: Stack, question: str = "What is 3 plus 4?") -> None:
    """Where everything is, and a line to try."""
    body = json.dumps({"messages": [{"role": "user", "content": question}]})
    console.print(
        f"\nLethe answers at [bold]{stack.url}[/] (every endpoint: {stack.url}/docs)", soft_wrap=True
    )
    console.print(f"Keys: {stack.home.root / 'keys.json'}   Logs: {stack.home.logs}")
    console.print("Try:")
    command = (
        f"curl -s {stack.url}/chat -H 'Authorization: Bearer {stack.keys['chat']}'"
        f" -H 'Content-Type: application/json' -d '{body}'"
    )
    console.print(command, markup=False, soft_wrap=True)
    console.print("Ctrl-C stops everything.")


def _serve(stack: Stack) -> None:
    """Watch the stack until Ctrl-C, which is the ordinary end."""
    try:
        while True:
            stack.watch()
            time.sleep(0.5)
    except KeyboardInterrupt:
        console.print("\nStopping (work in progress is resumed at the next start) ...")
