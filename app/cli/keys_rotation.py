"""`lethe keys rotate-evidence` and `rotate-signing`: new keys for what is encrypted and what is signed."""

from __future__ import annotations

import base64
import json
import secrets
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.support import (
    JsonOption,
    console,
    database_explained,
    errors,
    give_up,
    problems_explained,
    use_running_stack,
)

if TYPE_CHECKING:
    from app.db.session import SessionFactory
    from app.settings import Settings

app = typer.Typer()


@app.command("rotate-evidence")
def rotate_evidence(
    new: Annotated[
        bool, typer.Option("--new", help="Only draw a new key, and print what to set; changes nothing.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Encrypt everything that is encrypted again, under LETHE_EVIDENCE_KEY.

    First set a new key, with the old one among LETHE_EVIDENCE_KEYS_PREVIOUS (`--new` prints both), and
    restart API and workers. Then run this; if it is ended, run it again. Status 1 if something stays unread.
    """
    with problems_explained(), database_explained():
        use_running_stack()
        from app.settings import get_settings

        settings = get_settings()
        if new:
            previous = [settings.evidence_key, *settings.evidence_keys_previous]
            _print_settings(
                {
                    "LETHE_EVIDENCE_KEY": _draw(),
                    "LETHE_EVIDENCE_KEYS_PREVIOUS": json.dumps([key.get_secret_value() for key in previous]),
                },
                as_json=as_json,
            )
            errors.print(
                "Set both, restart API and workers, then: lethe keys rotate-evidence", soft_wrap=True
            )
            return
        from app.registry.store import StoreUnavailableError

        try:
            report = _rekey(settings)
        except StoreUnavailableError as error:
            give_up(str(error), "What was encrypted again stays so; run this again for the rest.")
    if as_json:
        console.print_json(data=report)
    else:
        done = ", ".join(f"{n} {what}" for what, n in report["done"].items()) or "nothing"
        console.print(f"Encrypted again under key {report['key']}: {done}.", soft_wrap=True)
        for key_id in report["kept"]:
            console.print(
                f"Key {key_id} is kept encrypted in the database, for experts' files from before data keys.",
                soft_wrap=True,
            )
        for key_id, counts in report["still_needed"].items():
            console.print(f"Key {key_id} is still needed: {counts}", markup=False, soft_wrap=True)
        if not report["still_needed"]:
            console.print("LETHE_EVIDENCE_KEYS_PREVIOUS is no longer needed.")
    if report["unreadable"]:
        errors.print(
            f"{len(report['unreadable'])} rows could not be decrypted: add the key they are under to "
            "LETHE_EVIDENCE_KEYS_PREVIOUS and run this again.",
            soft_wrap=True,
        )
        raise typer.Exit(1)


def _rekey(settings: Settings) -> dict[str, Any]:
    """Encrypt again; return what was done and which keys are still needed, by what."""
    from app.db.session import create_engine_from, session_factory
    from app.removal.rekeying import keep_keys_of_files, keys_in_use, rekey

    engine = create_engine_from(settings, connections=4)
    try:
        sessions = session_factory(engine)
        found = rekey(sessions, settings, actor="system:cli")
        current = settings.evidence_cipher().key_id
        files = _keys_of_experts(sessions, settings)
        kept = keep_keys_of_files(sessions, settings, files, actor="system:cli")
        with sessions.begin() as session:
            needed = {key: dict(counts) for key, counts in keys_in_use(session).items() if key != current}
    finally:
        engine.dispose()
    return {
        "key": current,
        "done": dict(found.done),
        "kept": kept,
        "unreadable": found.unreadable,
        "still_needed": needed,
    }


def _keys_of_experts(sessions: SessionFactory, settings: Settings) -> set[str]:
    """Return the ids of the keys that the files of every expert version are under, live or not."""
    from app.kit.crypto import DecryptionError, key_id_of
    from app.lumoe.errors import ExpertCorruptError
    from app.registry.service import RegistryService
    from app.registry.store import open_store

    found, store = set(), open_store(settings)
    with sessions.begin() as session:
        paths = RegistryService(session, settings).every_path()
    for path in paths:
        try:
            found.add(key_id_of(store.sealed_subject(path)))
        except (ExpertCorruptError, DecryptionError):  # erased, or damaged: what the doctor says of live ones
            continue
    return found


@app.command("rotate-signing")
def rotate_signing(as_json: JsonOption = False) -> None:
    """Draw a new signing key, and print what to set so that earlier signatures can still be checked.

    It changes nothing by itself: set both variables and restart API and workers.
    """
    with problems_explained():
        use_running_stack()
        from app.audit.signing import Signer
        from app.settings import get_settings

        retired = [key["x"] for key in Signer(get_settings()).public_keys()]
        _print_settings(
            {"LETHE_SIGNING_KEY": _draw(), "LETHE_SIGNING_KEYS_RETIRED": json.dumps(retired)}, as_json=as_json
        )
        errors.print(
            "Set both and restart API and workers. Leave a key that leaked out of the retired ones: what it "
            "signed then counts as unsigned.",
            soft_wrap=True,
        )


def _draw() -> str:
    return base64.b64encode(secrets.token_bytes(32)).decode()


def _print_settings(values: dict[str, str], *, as_json: bool) -> None:
    if as_json:
        console.print_json(data=values)
        return
    for name, value in values.items():
        console.print(f"{name}={value}", markup=False, soft_wrap=True)
