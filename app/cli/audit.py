"""`lethe audit`: check an exported log without a server, and write one."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.support import Exit, JsonOption, client_for, console, give_up, problems_explained, show

if TYPE_CHECKING:
    from app.audit.signing import Verifier

app = typer.Typer(no_args_is_help=True, help="The audit trail.")

FileArgument = Annotated[Path, typer.Argument(exists=True, dir_okay=False, readable=True)]
KeyOption = Annotated[
    Path,
    typer.Option(
        "--key",
        exists=True,
        dir_okay=False,
        help="Public keys: what /.well-known/jwks.json returned, one JWK, or a PEM file.",
    ),
]


@app.command("verify")
def verify_file(
    file: FileArgument,
    key: KeyOption,
    checkpoint: Annotated[
        list[Path] | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="A checkpoint kept earlier (JWS, or the JSON it came in); repeatable.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check an exported log with the public keys alone: no server, no database.

    Status 0 if nothing is wrong, 1 otherwise.
    """
    from app.audit.logfile import NotALog, verify_log
    from app.audit.signing import SignatureProblem

    verifier = verifier_of(key)
    try:
        kept = [_token(path) for path in checkpoint or []]
        with file.open(encoding="utf-8") as lines:
            report = verify_log(lines, verifier, kept)
    except SignatureProblem as problem:
        give_up(f"a checkpoint given with --checkpoint cannot be accepted: {problem}")
    except (NotALog, UnicodeDecodeError) as problem:
        give_up(f"{file}: {problem}", "Write one with `lethe audit export`, or GET /audit/export.")
    if as_json:
        console.print_json(data=asdict(report))
    elif report.intact:
        console.print(
            f"Intact: {report.events} events, {report.checkpoints} signed checkpoints.", soft_wrap=True
        )
        if report.withheld:
            console.print(f"{report.withheld} of them are other tenants': their content is not in the file.")
        console.print(f"Head: {report.head_seq} {report.head_hash}", soft_wrap=True)
    else:
        where = f" at event {report.broken_at}" if report.broken_at is not None else ""
        console.print(f"NOT intact{where} ({report.breach}): {report.reason}", markup=False, soft_wrap=True)
    raise typer.Exit(0 if report.intact else 1)


@app.command("export")
def export(
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Default: standard output.")] = None,
) -> None:
    """Write the whole log as JSON lines, from a running server, with an auditor's key."""
    with problems_explained(), client_for("auditor") as client:
        if output is None:
            sys.stdout.writelines(client.audit_export())
            return
        with output.open("w", encoding="utf-8") as sink:
            sink.writelines(client.audit_export())


@app.command("events")
def list_events(
    about: Annotated[str | None, typer.Option(help="Only of this request, expert, key ... (its id).")] = None,
    limit: Annotated[int, typer.Option(min=1, max=200, help="How many at most.")] = 100,
    as_json: JsonOption = False,
) -> None:
    """List events of the audit trail, oldest first (auditors and operators)."""
    with problems_explained(), client_for("auditor") as client:
        found = client.audit_events(subject_id=about, limit=limit)
    rows = [
        {
            "seq": e["seq"],
            "at": e["created_at"],
            "event": e["kind"],
            "about": e["subject_id"],
            "by": e["actor"],
        }
        for e in found["items"]
    ]
    show(found, as_json, rows, "No events.")


@app.command("check")
def check_server(as_json: JsonOption = False) -> None:
    """Have a running server recompute its whole chain (auditors and operators). Status 1 if it is broken."""
    with problems_explained(), client_for("auditor") as client:
        found = client.audit_verify()
    if as_json:
        console.print_json(data=found)
    elif found["intact"]:
        console.print(f"Intact: {found['events']} events, head {found['head_hash']}", soft_wrap=True)
    else:
        console.print(f"NOT intact at event {found['broken_at']}: {found['reason']}", markup=False)
    raise typer.Exit(Exit.DONE if found["intact"] else Exit.NEGATIVE)


@app.command("keys")
def public_keys() -> None:
    """Print the public keys of this installation's signatures as a JWK set.

    To rotate: put the `x` of the present key into LETHE_SIGNING_KEYS_RETIRED, and a new one
    (`openssl rand -base64 32`) into LETHE_SIGNING_KEY.
    """
    from app.cli.support import use_running_stack

    with problems_explained():
        use_running_stack()
        from app.audit.signing import Signer
        from app.settings import get_settings

        console.print_json(data={"keys": Signer(get_settings()).public_keys()})


def verifier_of(key: Path) -> Verifier:
    """Return what checks signatures against the public keys in a file; ends the command if there are none."""
    from app.audit.signing import SignatureProblem, Verifier, read_public_keys

    hint = "Fetch them once, from a place you trust: GET /.well-known/jwks.json"
    try:
        keys = read_public_keys(key.read_text(encoding="utf-8"))
    except (SignatureProblem, UnicodeDecodeError) as problem:
        give_up(f"{key}: {problem}", hint)
    if not keys:
        give_up(f"{key}: no Ed25519 key in it", hint)
    return Verifier(keys)


def _token(path: Path) -> str:
    """Return the JWS in a file: the file itself, or the member `jws` of the JSON in it."""
    import json

    text = path.read_text(encoding="utf-8").strip()
    if not text.startswith("{"):
        return text
    try:
        return str(json.loads(text)["jws"])
    except (ValueError, KeyError):
        give_up(f"{path}: neither a JWS nor what GET /audit/checkpoint returns")
