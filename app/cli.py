"""The `lethe` command."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from app.client import Client
    from app.embedded.supervisor import Stack

app = typer.Typer(
    name="lethe", no_args_is_help=True, help="An unlearning service for deployed multimodal LLMs."
)
keys_app = typer.Typer(no_args_is_help=True, help="API keys.")
model_app = typer.Typer(no_args_is_help=True, help="The demo model: train it, export its world.")
app.add_typer(keys_app, name="keys")
app.add_typer(model_app, name="demo-model")

console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
PortOption = Annotated[int | None, typer.Option(help="Port of the API (default: 8000, or a free one).")]


@app.command()
def up(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1", port: PortOption = None
) -> None:
    """Run the embedded stack: Postgres, Valkey, API and worker, until Ctrl-C."""
    with _problems_explained(), _stack(host, port) as stack:
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
    with _problems_explained(), _stack("127.0.0.1", port) as stack:
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
def migrate() -> None:
    """Bring the database that LETHE_DATABASE_URL names to the newest schema."""
    with _problems_explained():
        _use_running_stack()
        from app.embedded.migrate import migrate as upgrade
        from app.settings import get_settings

        with _database_explained():
            upgrade(get_settings().database_url)
        console.print("The database has the newest schema.")


@keys_app.command("create")
def create_api_key(
    scope: Annotated[list[str], typer.Option(help="owner, operator, auditor or chat; repeatable.")],
    tenant: Annotated[str, typer.Option(help="Whose key it is; `root` sees all tenants.")] = "root",
    name: Annotated[str, typer.Option(help="What it is for.")] = "",
    days: Annotated[int | None, typer.Option(min=1, help="Valid for so long (default: no end).")] = None,
    as_json: JsonOption = False,
) -> None:
    """Make an API key. It is printed this once and stored nowhere."""
    with _problems_explained(), _database() as session:
        from app.accounts.service import create_key

        made = create_key(
            session, tenant=tenant, scopes=scope, name=name, expires_in=timedelta(days=days) if days else None
        )
        session.commit()
        if as_json:
            console.print_json(data={"id": made.id, "secret": made.secret, "scopes": list(made.scopes)})
        else:
            console.print(made.secret, soft_wrap=True)
            errors.print(f"Key {made.id} ({', '.join(made.scopes)}). It is not shown again.")


@keys_app.command("list")
def list_api_keys(as_json: JsonOption = False) -> None:
    """List the API keys (never their secrets)."""
    with _problems_explained(), _database() as session:
        from app.accounts.repository import KeyRepository

        rows = [
            {
                "id": key.id,
                "tenant": tenant,
                "name": key.name,
                "prefix": key.prefix,
                "scopes": ",".join(key.scopes),
                "state": "revoked" if key.revoked_at else "valid",
                "last_used": key.last_used_at.isoformat(timespec="seconds") if key.last_used_at else "never",
            }
            for key, tenant in KeyRepository(session).listed()
        ]
        if as_json:
            console.print_json(data=rows)
            return
        table = Table(*(rows[0] if rows else ["no keys yet: lethe keys create --scope owner"]))
        for row in rows:
            table.add_row(*row.values())
        console.print(table)


@keys_app.command("revoke")
def revoke_api_key(key_id: str) -> None:
    """Make an API key invalid at once."""
    with _problems_explained(), _database() as session:
        from app.accounts.service import revoke_key

        revoke_key(session, key_id)
        session.commit()
        console.print(f"Revoked {key_id}.")


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
    with _problems_explained(), _client("owner") as client:
        pictures = [(path.name, path.read_bytes()) for path in picture or []]
        answer = client.submit(name=name, klass=klass, pictures=pictures, aliases=alias or [], note=note)
        if follow:
            answer = _follow(client, str(answer["id"]), quiet=as_json)
        _show(answer, as_json)
        if follow and answer["state"] != "active":
            raise typer.Exit(1)


@app.command()
def status(
    request_id: str,
    watch: Annotated[bool, typer.Option("--watch", help="Until it is final or waits for a person.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show where a removal request is."""
    with _problems_explained(), _client("owner") as client:
        _show(_follow(client, request_id, quiet=as_json) if watch else client.status(request_id), as_json)


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
    with _problems_explained(), _client("chat") as client:
        from PIL import Image

        from app.client import png, turn

        shown = [png(Image.open(path).convert("RGB")) for path in picture or []]
        answer = client.chat([turn("user", text, shown)], max_tokens=max_tokens)
        if as_json:
            _show(answer, as_json)
        else:
            console.print(answer["message"]["content"], markup=False)


@model_app.command("train")
def train_demo_model(
    out: Annotated[Path | None, typer.Option(help="Where to (default: the package's checkpoint).")] = None,
    seed: Annotated[int, typer.Option(help="Everything random follows from it.")] = 0,
) -> None:
    """Train the demo model from nothing (up to 30 minutes on two cores)."""
    with _problems_explained():
        from app.lumoe.demo.recipe import train
        from app.lumoe.demo.world import CHECKPOINT

        train(out or CHECKPOINT, seed=seed)
        console.print(f"Wrote {out or CHECKPOINT}")


@model_app.command("export")
def export_demo_world(directory: Path) -> None:
    """Write the demo world's questions and pictures in MLUBench's JSON form."""
    with _problems_explained():
        from app.lumoe.demo.export import export

        export(directory)
        console.print(f"Wrote {directory}")


def main() -> None:
    """Entry point of the `lethe` command."""
    app()


@contextmanager
def _problems_explained() -> Iterator[None]:
    """Turn what can go wrong into a message that says what to do, and exit status 1."""
    from app.client import ApiError, UnreachableError
    from app.embedded.demo.run import DemoError
    from app.embedded.process import StackError
    from app.kit.errors import ConfigurationError, LetheError

    try:
        yield
    except (StackError, DemoError, ApiError, UnreachableError, LetheError) as error:
        _give_up(str(error), error.hint)
    except ConfigurationError as error:
        _give_up(str(error))
    except KeyboardInterrupt:
        errors.print("\nStopped.")
        raise typer.Exit(130) from None


def _give_up(message: str, hint: str = "") -> NoReturn:
    errors.print(f"lethe: {message}", style="red", markup=False)
    if hint:
        errors.print(hint, markup=False)
    raise typer.Exit(1)


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
    console.print(f"\nLethe answers at [bold]{stack.url}[/]  (API documentation: [bold]{stack.url}/docs[/])")
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
        console.print("\nStopping ...")


def _use_running_stack() -> None:
    """Let a command work on the stack that runs here, unless the environment names another."""
    from app.embedded.home import Home

    running = Home.from_environment().running()
    if running is not None and "LETHE_DATABASE_URL" not in os.environ:
        os.environ.update(running.environment)


@contextmanager
def _database() -> Iterator[Session]:
    """A session on the database of LETHE_DATABASE_URL, or of the stack that runs here."""
    from app.db.session import create_engine_from, session_factory
    from app.settings import get_settings

    _use_running_stack()
    engine = create_engine_from(get_settings(), pool_size=1)
    try:
        with _database_explained(), session_factory(engine)() as session:
            yield session
    finally:
        engine.dispose()


@contextmanager
def _database_explained() -> Iterator[None]:
    """Say what to do about a database that is not there or has no tables."""
    from sqlalchemy.exc import OperationalError, ProgrammingError

    try:
        yield
    except OperationalError as error:
        _give_up(f"no database: {error.orig}", "Set LETHE_DATABASE_URL, or start a stack: lethe up")
    except ProgrammingError as error:
        _give_up(f"the database lacks our tables: {error.orig}", "Bring it up to date: lethe migrate")


def _client(key: str) -> Client:
    """A client for LETHE_URL and LETHE_API_KEY, or for the stack that runs here with its own key."""
    from app.client import Client
    from app.embedded.home import Home

    home = Home.from_environment()
    running = home.running()
    url = os.environ.get("LETHE_URL") or (running.url if running else "http://127.0.0.1:8000")
    chosen = os.environ.get("LETHE_API_KEY") or (home.keys().get(key) if running else None)
    if chosen is None:
        _give_up(
            "no API key", f"Set LETHE_API_KEY (and LETHE_URL, now {url}), or start a stack here: lethe up"
        )
    return Client(url, chosen)


def _follow(client: Client, request_id: str, *, quiet: bool) -> dict[str, Any]:
    """Wait for a request, with a progress bar on a terminal."""
    from rich.progress import Progress

    found: dict[str, Any] = {}
    with Progress(console=errors, disable=quiet or not sys.stderr.isatty()) as progress:
        task = progress.add_task(request_id, total=100)
        for found in client.follow(request_id):
            progress.update(task, completed=float(found["percent"]), description=found["state"])
    return found


def _show(answer: dict[str, Any], as_json: bool) -> None:
    """Print one object, as JSON or as two columns."""
    if as_json:
        console.print_json(data=answer)
        return
    table = Table(box=None, show_header=False)
    for field, value in answer.items():
        table.add_row(field, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
    console.print(table)
