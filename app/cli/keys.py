"""`lethe keys`: make, list, rotate and revoke API keys; rotate the keys that encrypt and sign."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from app.cli import keys_rotation
from app.cli.support import JsonOption, console, database, errors, print_table, problems_explained

if TYPE_CHECKING:
    from app.accounts.service import NewKey

app = typer.Typer(no_args_is_help=True, help="API keys, and the keys that encrypt and sign.")
app.add_typer(keys_rotation.app)


@app.command("create")
def create_api_key(
    scope: Annotated[list[str], typer.Option(help="owner, operator, auditor, chat or metrics; repeatable.")],
    tenant: Annotated[str, typer.Option(help="Whose key it is; `root` sees all tenants.")] = "root",
    name: Annotated[str, typer.Option(help="What it is for.")] = "",
    days: Annotated[int | None, typer.Option(min=1, help="Valid for so long (default: no end).")] = None,
    as_json: JsonOption = False,
) -> None:
    """Make an API key. It is printed this once and stored nowhere."""
    with problems_explained(), database() as session:
        from app.accounts.service import create_key

        made = create_key(
            session, tenant=tenant, scopes=scope, name=name, expires_in=timedelta(days=days) if days else None
        )
        session.commit()
        _show(made, as_json=as_json)


@app.command("list")
def list_api_keys(as_json: JsonOption = False) -> None:
    """List the API keys (never their secrets)."""
    with problems_explained(), database() as session:
        from app.accounts.repository import KeyRepository
        from app.accounts.service import state_of
        from app.kit.clock import utcnow

        now = utcnow()
        rows = [
            {
                "id": key.id,
                "tenant": tenant,
                "name": key.name,
                "prefix": key.prefix,
                "scopes": ",".join(key.scopes),
                "state": state_of(key, now),
                "expires": _moment(key.expires_at),
                "last_used": _moment(key.last_used_at),
            }
            for key, tenant in KeyRepository(session).listed()
        ]
        if as_json:
            console.print_json(data=rows)
            return
        table = Table(*(rows[0] if rows else ["no keys yet: lethe keys create --scope owner"]))
        for row in rows:
            table.add_row(*row.values())
        print_table(table)


@app.command("revoke")
def revoke_api_key(key_id: str, as_json: JsonOption = False) -> None:
    """Make an API key invalid at once."""
    with problems_explained(), database() as session:
        from app.accounts.service import revoke_key

        revoke_key(session, key_id)
        session.commit()
        if as_json:
            console.print_json(data={"revoked": key_id})
        else:
            console.print(f"Revoked {key_id}.")


@app.command("rotate")
def rotate_api_key(
    key_id: str,
    overlap_hours: Annotated[
        float, typer.Option(min=0, help="The old one stays valid for so long (default: not at all).")
    ] = 0,
    as_json: JsonOption = False,
) -> None:
    """Make a key like this one, in its place. It is printed this once and stored nowhere."""
    with problems_explained(), database() as session:
        from app.accounts.service import rotate_key

        made = rotate_key(session, key_id, overlap=timedelta(hours=overlap_hours))
        session.commit()
        _show(made, as_json=as_json)


def _show(made: NewKey, *, as_json: bool) -> None:
    if as_json:
        console.print_json(data={"id": made.id, "secret": made.secret, "scopes": list(made.scopes)})
    else:
        console.print(made.secret, soft_wrap=True)
        errors.print(f"Key {made.id} ({', '.join(made.scopes)}). It is not shown again.")


def _moment(when: datetime | None) -> str:
    return when.isoformat(timespec="seconds") if when is not None else "never"
