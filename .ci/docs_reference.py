"""Makes the reference pages that follow from the code: HTTP, the command line, settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add every decision record to the navigation."""
    records = sorted(path.name for path in (Path(config.docs_dir) / "decisions").glob("0*.md"))
    for section in config.nav or ():
        if "Decisions" in section:
            section["Decisions"] += [f"decisions/{name}" for name in records]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages before the navigation is read."""
    made = {
        "reference/http.md": http_page(),
        "reference/command-line.md": command_line_page(),
        "reference/settings.md": settings_page(),
    }
    for path, text in made.items():
        files.append(File.generated(config, path, content=text))
    return files


def http_page() -> str:
    """Return every endpoint with its parameters and answers, as OpenAPI has them."""
    from app.main import create_app
    from app.settings import load_settings

    document = create_app(load_settings(_env_file=None)).openapi()
    lines = [
        "# HTTP",
        "",
        "Made from the service's OpenAPI document, which a running server has at `/openapi.json` and, to try "
        "out, at `/docs`. Errors are RFC 9457 problem documents with a stable `type` and a `hint`; below "
        "`/v1/` they are in OpenAI's envelope. Every endpoint but the public ones takes "
        "`Authorization: Bearer lethe_...`.",
        "",
    ]
    by_tag: dict[str, list[tuple[str, str, dict[str, Any]]]] = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            by_tag.setdefault((operation.get("tags") or ["other"])[0], []).append((method, path, operation))
    for tag, operations in by_tag.items():
        lines += [f"## {tag.capitalize()}", ""]
        for method, path, operation in operations:
            lines += _operation(method, path, operation)
    return "\n".join(lines) + "\n"


def _operation(method: str, path: str, operation: dict[str, Any]) -> list[str]:
    lines = [
        f"### {operation['summary']} {{ #{method}-{_slug(path)} }}",
        "",
        f"`{method.upper()} {path}`",
        "",
    ]
    if description := operation.get("description"):
        lines += [description, ""]
    parameters = [p for p in operation.get("parameters", ()) if p["in"] != "path"]
    if parameters:
        lines += ["| parameter | in | |", "|---|---|---|"]
        lines += [f"| `{p['name']}` | {p['in']} | {_cell(p.get('description', ''))} |" for p in parameters]
        lines += [""]
    lines += ["| status | |", "|---|---|"]
    for status, response in operation["responses"].items():
        examples = (response.get("content") or {}).get("application/problem+json", {}).get("examples", {})
        types = dict.fromkeys(one["value"]["type"].rpartition(":")[2] for one in examples.values())
        kinds = ", ".join(f"[`{kind}`](problems.md#{kind})" for kind in types)
        lines.append(f"| {status} | {kinds or _cell(response.get('description', ''))} |")
    return [*lines, ""]


def _slug(path: str) -> str:
    return "-".join(part.strip("{}") for part in path.strip("/").split("/")) or "root"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def command_line_page() -> str:
    """Return every command with its options, as `--help` has them."""
    import typer

    from app.cli.application import app
    from app.cli.support import EXIT_HELP

    root = typer.main.get_command(app)
    lines = [
        "# Command line",
        "",
        "Commands talk to `LETHE_URL` with `LETHE_API_KEY`, or to the stack that runs here (`lethe up`). "
        "`lethe --install-completion` teaches your shell.",
        "",
        EXIT_HELP,
        "",
    ]
    for name, command in sorted(root.commands.items()):  # type: ignore[attr-defined]  # a group
        inner = getattr(command, "commands", None)
        for part, one in sorted(inner.items()) if inner else [("", command)]:
            lines += _command(f"lethe {name} {part}".strip(), one)
    return "\n".join(lines) + "\n"


def _command(name: str, command: Any) -> list[str]:
    lines = [f"## {name}", "", command.help or "", ""]
    rows = []
    for parameter in command.params:
        if parameter.name == "help":
            continue
        shown = parameter.opts[-1] if parameter.param_type_name == "option" else parameter.name.upper()
        rows.append(f"| `{shown}` | {_cell(getattr(parameter, 'help', '') or '')} |")
    return [*lines, "| | |", "|---|---|", *rows, ""] if rows else lines


def settings_page() -> str:
    """Return every setting with its default."""
    from app.settings import Settings

    lines = [
        "# Settings",
        "",
        "Every process reads them from the environment, or from `.env` in the working directory. What is "
        "missing or unusable stops the start with a message that names the variable. What the common ones "
        "mean is in the README.",
        "",
        "| variable | default |",
        "|---|---|",
    ]
    for name, field in Settings.model_fields.items():
        if name == "experts_url":  # what LETHE_EXPERTS_DIR becomes if it is one
            continue
        secret = name in ("secret_key", "evidence_key", "database_url")
        default = "development only" if secret else "" if field.default is None else f"`{field.default}`"
        lines.append(f"| `LETHE_{name.upper()}` | {default} |")
    return "\n".join(lines) + "\n"
