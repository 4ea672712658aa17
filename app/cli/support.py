"""What the commands share: output, errors that say what to do, and whom to talk to."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from app.client import Client

console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]


@contextmanager
def problems_explained() -> Iterator[None]:
    """Turn what can go wrong into a message that says what to do, and exit status 1."""
    from app.client import ApiError, UnreachableError
    from app.embedded.demo.run import DemoError
    from app.embedded.process import StackError
    from app.kit.errors import ConfigurationError, LetheError

    try:
        yield
    except (StackError, DemoError, ApiError, UnreachableError, LetheError) as error:
        give_up(str(error), error.hint)
    except ConfigurationError as error:
        give_up(str(error))
    except KeyboardInterrupt:
        errors.print("\nStopped.")
        raise typer.Exit(130) from None


def give_up(message: str, hint: str = "") -> NoReturn:
    """Print what went wrong and what to do about it, and end with status 1."""
    errors.print(f"lethe: {message}", style="red", markup=False, soft_wrap=True)
    if hint:
        errors.print(hint, markup=False, soft_wrap=True)
    raise typer.Exit(1)


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
    engine = create_engine_from(get_settings(), pool_size=1)
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
        give_up(f"no database: {error.orig}", "Set LETHE_DATABASE_URL, or start a stack: lethe up")
    except ProgrammingError as error:
        give_up(f"the database lacks our tables: {error.orig}", "Bring it up to date: lethe migrate")


def client_for(key: str) -> Client:
    """A client for LETHE_URL and LETHE_API_KEY, or for the stack that runs here with its own key."""
    from app.client import Client
    from app.embedded.home import Home

    home = Home.from_environment()
    running = home.running()
    url = os.environ.get("LETHE_URL") or (running.url if running else "http://127.0.0.1:8000")
    chosen = os.environ.get("LETHE_API_KEY") or (home.keys().get(key) if running else None)
    if chosen is None:
        give_up(
            "no API key", f"Set LETHE_API_KEY (and LETHE_URL, now {url}), or start a stack here: lethe up"
        )
    return Client(url, chosen)
