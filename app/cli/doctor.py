"""`lethe doctor`: whether everything that must always be true is true here and now."""

from __future__ import annotations

import typer

from app.cli.support import JsonOption, console, errors, problems_explained, use_running_stack

app = typer.Typer()


@app.command()
def doctor(as_json: JsonOption = False) -> None:
    """Check database, experts directory, audit trail, replicas and broker of the running system.

    Status 0 if everything is as it must be, 1 otherwise, with what to do about each finding.
    """
    with problems_explained():
        use_running_stack()
        from app.db.session import create_engine_from, session_factory
        from app.doctor.service import examine
        from app.settings import get_settings

        settings = get_settings()
        engine = create_engine_from(settings, connections=2)
        try:
            report = examine(session_factory(engine), settings)
        finally:
            engine.dispose()
    if as_json:
        console.print_json(data=report.as_json())
        raise typer.Exit(0 if report.clean else 1)
    for finding in report.findings:
        console.print(f"{finding.check}  {finding.subject}", style="bold red", markup=False, soft_wrap=True)
        console.print(f"  {finding.detail}", markup=False, soft_wrap=True)
        console.print(f"  What to do: {finding.remedy}", markup=False, soft_wrap=True)
    errors.print(
        f"Looked at {report.requests} requests, {report.experts} live experts, {report.replicas} live "
        f"replicas and "
        f"{report.events} audit events: {len(report.findings) or 'no'} finding(s).",
        soft_wrap=True,
    )
    raise typer.Exit(0 if report.clean else 1)
