"""`lethe certificate`: check a certificate without a server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.audit import FileArgument, KeyOption, verifier_of
from app.cli.support import JsonOption, client_for, console, errors, give_up, problems_explained

app = typer.Typer(no_args_is_help=True, help="Certificates of active requests.")


@app.callback()
def certificates() -> None:
    """Certificates of active requests."""


@app.command("fetch")
def fetch_certificate(
    request_id: str,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Write it here instead of printing it.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Fetch the certificate of an active request."""
    with problems_explained(), client_for("owner") as client:
        token = client.certificate(request_id)
    if out is not None:
        try:
            out.write_text(token + "\n", encoding="utf-8")
        except OSError as error:
            give_up(f"cannot write {out}: {error.strerror}", "Choose another file with --out.")
        errors.print(f"written to {out}", markup=False)
    elif as_json:
        console.print_json(data={"request": request_id, "jws": token})
    else:
        console.print(token, markup=False, soft_wrap=True)


@app.command("verify")
def verify_certificate(file: FileArgument, key: KeyOption, as_json: JsonOption = False) -> None:
    """Check a certificate with the public keys alone, and show what it says. Status 0 if it is genuine."""
    from app.audit.signing import CERTIFICATE, SignatureProblem
    from app.kit.canonical import json_sha256

    verifier = verifier_of(key)
    try:
        claims: dict[str, Any] = dict(verifier.claims(file.read_text(encoding="utf-8"), type=CERTIFICATE))
    except (SignatureProblem, UnicodeDecodeError) as problem:
        give_up(
            f"{file}: NOT a genuine certificate: {problem}",
            "Fetch it again: GET /requests/{id}/certificate. Keys that were rotated stay in the key set.",
        )
    digest = claims.pop("digest", None)
    if digest != json_sha256(claims):
        give_up(f"{file}: NOT a genuine certificate: its digest is not that of its claims")
    if as_json:
        console.print_json(data=claims)
        return
    console.print(f"Genuine. Request {claims['sub']}", soft_wrap=True)
    console.print(f"Claimed: {claims['claimed']}", markup=False, soft_wrap=True)
    for line in claims["not_claimed"]:
        console.print(f"Not claimed: {line}", markup=False, soft_wrap=True)
    expert, model, audit = claims["expert"], claims["base_model"], claims["audit"]
    console.print(
        f"Expert {expert['id']} version {expert['version']}, manifest {expert['manifest_sha256']}, "
        f"since generation {expert['generation']}, for base model {model['fingerprint']}",
        soft_wrap=True,
    )
    console.print(f"Audit event {audit['seq']} {audit['hash']}", soft_wrap=True)
    for score in claims["measured"]:
        low, high = score["interval_95"]
        interval = f" [{low:.3f}, {high:.3f}]" if low is not None and high is not None else ""
        value = "not measured: " + str(score["reason"]) if score["value"] is None else f"{score['value']:.4g}"
        console.print(f"{score['metric']}: {value}{interval}, n = {score['n']}", markup=False, soft_wrap=True)
