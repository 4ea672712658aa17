"""`lethe rollback`: make the registry serve an earlier generation's experts again."""

from __future__ import annotations

from typing import Annotated

import typer

from app.cli.support import JsonOption, console, database, problems_explained

app = typer.Typer()


@app.command()
def rollback(
    generation: Annotated[
        int | None, typer.Argument(min=0, help="Which one; by default the newest, which is put right.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a new registry generation with the experts of an earlier one, as far as today's requests allow.

    Experts of requests that have ended never come back; whoever is active keeps an expert.
    """
    with problems_explained(), database() as session:
        from app.registry.service import RegistryService
        from app.settings import get_settings

        registry = RegistryService(session, get_settings())
        wanted = registry.newest() if generation is None else generation
        number = registry.rollback(wanted, actor="system:cli")
        experts, interims = len(registry.live_experts()), len(registry.live_interims())
        session.commit()
        if as_json:
            made = {"generation": number, "restored": wanted, "experts": experts, "interim": interims}
            console.print_json(data=made)
            return
        console.print(
            f"Generation {number} has {experts} expert(s) as in generation {wanted}, "
            f"and refuses {interims} subject(s) without one.",
            markup=False,
        )
