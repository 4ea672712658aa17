"""Every `lethe` command in the README and in the documentation exists, with every option it is given."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from app.cli import app

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "SECURITY.md",
    *sorted(path for path in (ROOT / "docs").rglob("*.md") if "decisions" not in path.parts),
]
_BLOCK = re.compile(r"```sh\n(.*?)```", re.DOTALL)
_INLINE = re.compile(r"`(lethe [^`]+)`")
_STOP = re.compile(r"\s(?:#|>|\|)\s?.*$")


def commands() -> list[tuple[str, str]]:
    """Return every command with its page; `...` stands for whatever comes there."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        lines = [line.strip() for block in _BLOCK.findall(text) for line in block.splitlines()]
        lines = [line[line.index("lethe ") :] for line in lines if re.match(r"(\S+=\S+ )*lethe ", line)]
        found += [(page.name, _STOP.sub("", line)) for line in [*lines, *_INLINE.findall(text)]]
    return sorted(set(found))


@pytest.mark.parametrize(("page", "line"), commands())
def test_exists(page: str, line: str) -> None:
    command: Any = typer.main.get_command(app)
    words = shlex.split(line.replace("[GENERATION]", "1"))[1:]
    while words and hasattr(command, "commands") and not words[0].startswith("-"):
        assert words[0] in command.commands, f"{page}: {line}"
        command = command.commands[words.pop(0)]
    options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    options |= {"--help", "--install-completion"}
    for word in words:
        if word.startswith("-"):
            assert word.partition("=")[0] in options, f"{page}: {line}"


def test_there_are_many() -> None:
    assert len(commands()) > 40
