"""`lethe keys`: make, list and revoke API keys."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer
from rich.table import Table

from app.cli.support import JsonOption, console, database, errors, problems_explained

app = typer.Typer(no_args_is_help=True, help="API keys.")


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
        if as_json:
            console.print_json(data={"id": made.id, "secret": made.secret, "scopes": list(made.scopes)})
        else:
            console.print(made.secret, soft_wrap=True)
            errors.print(f"Key {made.id} ({', '.join(made.scopes)}). It is not shown again.")


@app.command("list")
def list_api_keys(as_json: JsonOption = False) -> None:
    """List the API keys (never their secrets)."""
    with problems_explained(), database() as session:
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
