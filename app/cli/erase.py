"""`lethe erase`: the right to be forgotten, applied to our own records."""

from __future__ import annotations

import typer

from app.cli.support import JsonOption, console, database, give_up, problems_explained

app = typer.Typer()


@app.command()
def erase(request_id: str, as_json: JsonOption = False) -> None:
    """Erase whom a withdrawn, rejected or cancelled request was about: database, expert and work files.

    The audit chain stays valid; what was under its hashes then means nothing.
    """
    with problems_explained(), database() as session:
        from app.registry.store import StoreError
        from app.removal.erasure import ErasureService, erase_files
        from app.settings import get_settings

        ErasureService(session).erase(request_id, actor="system:cli")
        session.commit()
        try:
            files = erase_files(get_settings(), request_id)
        except OSError as error:
            give_up(
                f"erased in the database, but {error.filename} could not be deleted: {error.strerror}",
                "Run the command again as a user who may write to LETHE_EXPERTS_DIR.",
            )
        except StoreError as error:
            give_up(
                f"erased in the database, but its files were not deleted: {error}", "Run the command again."
            )
        if as_json:
            console.print_json(data={"erased": request_id, "files": list(files)})
            return
        console.print(f"Erased {request_id}; files: {', '.join(files) or 'none'}.", markup=False)
