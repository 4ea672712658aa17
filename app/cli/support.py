"""What the commands share: output, errors that say what to do, and whom to talk to."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import IntEnum
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from app.client import ApiError, Client
    from app.kit.errors import LetheError

_UNCUT = 1000
console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]


class Exit(IntEnum):
    """Exit statuses, the same for every command; `lethe --help` lists them."""

    DONE = 0
    NEGATIVE = 1
    USAGE = 2
    UNREACHABLE = 3
    NOT_ALLOWED = 4
    NOT_FOUND = 5
    CONFLICT = 6
    REFUSED = 7
    SERVER = 8
    WAITS = 10
    INTERRUPTED = 130


EXIT_HELP = """\
Exit statuses: 0 done; 1 the answer is no (findings, a log that is not intact, a request that did not become
active), or a local file or setting is wrong; 2 wrong usage; 3 no server or database answers; 4 the API key is
missing or not allowed to; 5 there is no such thing; 6 not possible in its present state; 7 the input was
refused; 8 the server failed or is busy; 10 the request waits for a person; 130 interrupted.
"""


def status_of(http: int) -> Exit:
    """Return the exit status for an HTTP status that is no success."""
    by_status = {401: Exit.NOT_ALLOWED, 403: Exit.NOT_ALLOWED, 404: Exit.NOT_FOUND, 409: Exit.CONFLICT}
    busy = http >= 500 or http == 429
    return by_status.get(http, Exit.SERVER if busy else Exit.REFUSED)


@contextmanager
def problems_explained() -> Iterator[None]:
    """Turn what can go wrong into a message that says what to do, and an exit status."""
    from app.client import ApiError, ClientError, UnreachableError
    from app.embedded.demo.run import DemoError
    from app.embedded.process import StackError
    from app.kit.errors import ConfigurationError, LetheError

    try:
        yield
    except UnreachableError as error:
        give_up(str(error), error.hint, Exit.UNREACHABLE)
    except (ApiError, LetheError) as error:
        give_up(str(error), _with_fields(error), status_of(error.status))
    except ClientError as error:
        give_up(str(error), error.hint, Exit.SERVER)
    except (StackError, DemoError) as error:
        give_up(str(error), error.hint)
    except ConfigurationError as error:
        give_up(str(error))
    except KeyboardInterrupt:
        errors.print("\nStopped.")
        raise typer.Exit(Exit.INTERRUPTED) from None


def _with_fields(error: ApiError | LetheError) -> str:
    """Return the hint, after the fields that were refused if the problem lists them."""
    problem: Mapping[str, object] = error.problem if isinstance(error.problem, dict) else error.extra
    listed = problem.get("errors")
    rows = [row for row in listed if isinstance(row, dict)] if isinstance(listed, list) else []
    return "\n".join([*(f"  {row.get('field')}: {row.get('message')}" for row in rows), error.hint])


def give_up(message: str, hint: str = "", status: Exit = Exit.NEGATIVE) -> NoReturn:
    """Print what went wrong and what to do about it, and end with this status."""
    errors.print(f"lethe: {message}", style="red", markup=False, soft_wrap=True)
    if hint:
        errors.print(hint, markup=False, soft_wrap=True)
    raise typer.Exit(status)


def show(found: object, as_json: bool, rows: Sequence[Mapping[str, object]], empty: str) -> None:
    """Print JSON in full, or `rows` as a table; `empty` if there are none."""
    if as_json:
        console.print_json(data=found)
        return
    if not rows:
        console.print(empty, markup=False)
        return
    table = Table(*rows[0])
    for row in rows:
        table.add_row(*(Text("" if value is None else str(value)) for value in row.values()))
    print_table(table)


def print_table(table: Table) -> None:
    """Print a table, as wide as it is where no terminal cuts it: an id in a file or a pipe stays whole."""
    (console if console.is_terminal else Console(highlight=False, width=_UNCUT)).print(table)


def use_running_stack() -> None:
    """Let a command work on the stack that runs here, unless the environment names another."""
    from app.embedded.home import Home

    running = Home.from_environment().running()
    if running is not None and "LETHE_DATABASE_URL" not in os.environ:
        os.environ.update(running.environment)


@contextmanager
def database() -> Iterator[Session]:
    """A session on the database of LETHE_DATABASE_URL, or of the stack that runs here."""
    from app.db.session import create_engine_from, session_factory
    from app.settings import get_settings

    use_running_stack()
    engine = create_engine_from(get_settings(), connections=2)
    try:
        with database_explained(), session_factory(engine)() as session:
            yield session
    finally:
        engine.dispose()


@contextmanager
def database_explained() -> Iterator[None]:
    """Say what to do about a database that is not there or has no tables."""
    from sqlalchemy.exc import OperationalError, ProgrammingError

    try:
        yield
    except OperationalError as error:
        give_up(
            f"no database: {error.orig}",
            "Set LETHE_DATABASE_URL, or start a stack: lethe up",
            Exit.UNREACHABLE,
        )
    except ProgrammingError as error:
        give_up(f"the database lacks our tables: {error.orig}", "Bring it up to date: lethe migrate")


def where_and_as_whom(key: str) -> tuple[str, str]:
    """Return URL and API key: LETHE_URL and LETHE_API_KEY, or the stack that runs here and its own key."""
    from app.embedded.home import Home

    home = Home.from_environment()
    running = home.running()
    url = os.environ.get("LETHE_URL") or (running.url if running else "http://127.0.0.1:8000")
    chosen = os.environ.get("LETHE_API_KEY") or (home.keys().get(key) if running else None)
    if chosen is None:
        give_up(
            "no API key",
            f"Set LETHE_API_KEY (and LETHE_URL, now {url}), or start a stack here: lethe up",
            Exit.NOT_ALLOWED,
        )
    return url, chosen


def client_for(key: str) -> Client:
    """Return a client for whatever `where_and_as_whom` finds."""
    from app.client import Client

    return Client(*where_and_as_whom(key))
