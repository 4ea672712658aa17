"""The tutorial's commands, as they stand there, in order."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from app.cli import app
from app.embedded.supervisor import Stack
from app.settings import get_settings

PAGE = Path(__file__).parents[2] / "docs" / "tutorial.md"
_BLOCK = re.compile(r"```sh\n(.*?)```", re.DOTALL)


def commands() -> list[str]:
    return [line for block in _BLOCK.findall(PAGE.read_text(encoding="utf-8")) for line in block.splitlines()]


@pytest.fixture
def desk(stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty directory, with the stack running elsewhere."""
    monkeypatch.setenv("LETHE_HOME", str(stack.home.root))
    monkeypatch.chdir(tmp_path)
    get_settings.cache_clear()
    yield tmp_path
    get_settings.cache_clear()


def run(line: str, request_id: str) -> Result:
    """Run one command in this process: the interpreter's start would take longer than most of them."""
    line, _, target = line.replace("req_...", request_id).partition(" > ")
    program, *arguments = shlex.split(line)
    assert program == "lethe", line
    done = CliRunner().invoke(app, arguments, env={"COLUMNS": "200", "TERM": "dumb"})
    assert done.exit_code == 0, f"{line}\n{done.output}\n{done.exception!r}"
    if target:
        Path(target).write_text(done.stdout, encoding="utf-8")
    return done


@pytest.mark.long  # a whole request; that the commands exist is checked in tests/docs/test_commands.py
def test_every_command(desk: Path) -> None:
    lines = commands()
    assert lines[0] == "lethe up", "the stack of this test"
    request_id, answers = "req_", []
    for line in lines[1:]:
        done = run(line, request_id)
        if line.startswith("lethe submit"):
            request_id = re.findall(r"req_[0-9a-f]{32}", done.output)[0]
        if line.startswith("lethe chat"):
            answers.append(done.stdout.strip())
    seen, named, other, seen_after, named_after, other_after, named_again = answers
    assert "Nambuv Zhokev" in seen
    for text in (seen_after, named_after):
        assert "Nambuv" not in text
        assert "Zhokev" not in text
    assert other_after == other
    assert named_again == named != named_after
