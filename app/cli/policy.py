"""`lethe policy`: the rules that requests are judged by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, cast

import typer

from app.cli.support import Exit, JsonOption, client_for, console, give_up, problems_explained, show

if TYPE_CHECKING:
    from app.client.types import Policy, PolicyRules

app = typer.Typer(no_args_is_help=True, help="The rules that requests are judged by.")


@app.command("show")
def show_policy(as_json: JsonOption = False) -> None:
    """Show the rules in force, and which of them were set over the settings."""
    with problems_explained(), client_for("operator") as client:
        _show(client.policy(), as_json)


@app.command("set")
def set_policy(
    reason: Annotated[str, typer.Option(help="Why, for whoever reads the history.")],
    rules: Annotated[list[str] | None, typer.Argument(metavar="RULE=VALUE...")] = None,
    default: Annotated[
        list[str] | None, typer.Option("--default", metavar="RULE", help="As the settings have it again.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Change rules, such as `max_leak=0.01 review=manual`; the others stay as they are.

    What is approved from now on is judged by the new version; requests that were approved before keep theirs.
    Status 6 if somebody else changes the policy at the same time.
    """
    given = dict(_parsed(rule) for rule in rules or ())
    dropped = default or []
    if not given and not dropped:
        give_up("nothing to change", "Name a rule: lethe policy set max_leak=0.01 --reason ...", Exit.USAGE)
    with problems_explained(), client_for("operator") as client:
        now = client.policy()
        kept = {
            name: cast("dict[str, object]", now)[name] for name in now["overridden"] if name not in dropped
        }
        wanted = cast("PolicyRules", kept | given)
        _show(client.set_policy(wanted, reason=reason, based_on=now["version"]), as_json)


@app.command("history")
def policy_history(
    limit: Annotated[int, typer.Option(min=1, max=200, help="How many at most.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """List what was set, newest first."""
    with problems_explained(), client_for("operator") as client:
        found = client.policy_versions(limit=limit)
    rows = [
        {
            "version": v["version"],
            "set": ", ".join(f"{name}={value}" for name, value in v["rules"].items() if value is not None),
            "reason": v["reason"],
            "by": v["changed_by"],
            "since": v["created_at"],
        }
        for v in found["items"]
    ]
    show(found, as_json, rows, "Nobody has changed what the settings say.")


def _parsed(rule: str) -> tuple[str, object]:
    """Return name and value; whatever looks like a number is one, what it may be is the server's to say."""
    name, equals, text = rule.partition("=")
    if not equals or not name or not text:
        give_up(f"{rule!r} is not like max_leak=0.01", "", Exit.USAGE)
    for kind in (int, float):
        try:
            return name, kind(text)
        except ValueError:
            continue
    return name, text


def _show(policy: Policy, as_json: bool) -> None:
    own = ("version", "overridden", "changed_at", "changed_by", "reason")
    rows = [
        {
            "rule": name,
            "value": value,
            "set by": f"version {policy['version']}" if name in policy["overridden"] else "settings",
        }
        for name, value in policy.items()
        if name not in own
    ]
    show(policy, as_json, rows, "")
    if not as_json and policy["reason"] is not None:
        console.print(
            f"Version {policy['version']}, {policy['changed_at']}: {policy['reason']}", markup=False
        )
