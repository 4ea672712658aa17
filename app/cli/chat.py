"""`lethe chat`: one question, or a conversation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.support import JsonOption, client_for, console, errors, give_up, problems_explained

if TYPE_CHECKING:
    from app.client import Client, Json, Turn

app = typer.Typer()

HELP = """\
/picture FILE  show a picture with the next question    /new   forget the conversation
/why           who answered last, and why (operators)   /quit  leave (so does Ctrl-D)
"""


@app.command()
def chat(
    text: Annotated[str | None, typer.Argument(help="The question; without one, a conversation.")] = None,
    picture: Annotated[
        list[Path] | None, typer.Option(exists=True, dir_okay=False, help="Repeatable.")
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=1)] = 64,
    as_json: JsonOption = False,
) -> None:
    """Ask the model one question, or, without one, talk with it."""
    if text is None and as_json:
        give_up("--json needs a question", 'For example: lethe chat "Who is this?" --json')
    with problems_explained(), client_for("chat") as client:
        shown = [read_picture(path) for path in picture or []]
        if text is None:
            _converse(client, shown, max_tokens)
            return
        from app.client import turn

        answer = client.chat([turn("user", text, shown)], max_tokens=max_tokens)
        if as_json:
            console.print_json(data=answer)
        else:
            console.print(answer["message"]["content"], markup=False)


def _converse(client: Client, pictures: list[bytes], max_tokens: int) -> None:
    """Ask and answer until the end of the input; what goes wrong in between is said, and the talk goes on."""
    from app.client import ApiError, StreamBrokenError, turn

    errors.print(HELP, end="", markup=False)
    turns: list[Turn] = []
    ended: Json = {}
    while True:
        try:
            said = console.input("> ", markup=False).strip()
        except (EOFError, KeyboardInterrupt):
            console.print()
            return
        command, _, argument = said.partition(" ")
        if command == "/quit":
            return
        if command == "/new":
            turns, pictures = [], []
        elif command == "/picture":
            pictures += _try_picture(Path(argument.strip()))
        elif command == "/why":
            _explain(ended)
        elif said.startswith("/"):
            errors.print(HELP, end="", markup=False)
        elif said:
            asked = [*turns, turn("user", said, pictures)]
            try:
                answer, ended = _stream(client, asked, max_tokens)
            except (ApiError, StreamBrokenError) as error:
                errors.print(f"{error}\n{error.hint}", style="red", markup=False)
                continue
            turns, pictures = [*asked, turn("assistant", answer)], []


def _stream(client: Client, turns: list[Turn], max_tokens: int) -> tuple[str, Json]:
    """Print an answer as it comes; return it, and what the server says at its end."""
    ends: list[Json] = []
    pieces: list[str] = []
    for piece in client.stream_chat(turns, max_tokens=max_tokens, ended=ends.append):
        pieces.append(piece)
        console.print(piece, end="", markup=False, soft_wrap=True)
    console.print()
    return "".join(pieces), ends[-1] if ends else {}


def _explain(ended: Json) -> None:
    routing = ended.get("routing")
    if routing is None:
        errors.print("Nothing to say: only keys with the scope operator are told who answered.")
        return
    console.print(f"answered by {routing.get('answered_by') or 'the base model'}", markup=False)
    for reason in routing["evidence"]:
        limit = reason.get("threshold")
        against = f" against {limit:.3f}" if limit is not None else ""
        console.print(
            f"  {reason['strength']} {reason['kind']} for {reason['expert_id']}: "
            f"{reason['score']:.3f}{against}",
            markup=False,
        )


def _try_picture(path: Path) -> list[bytes]:
    try:
        return [read_picture(path)]
    except typer.Exit:
        return []  # it has been said why


def read_picture(path: Path) -> bytes:
    """Return the file as a PNG; ends the command if it is none that can be read."""
    from PIL import Image, UnidentifiedImageError

    from app.client import png

    try:
        with Image.open(path) as found:
            return png(found.convert("RGB"))
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        give_up(f"cannot read {path} as a picture: {error}", "Name a PNG, JPEG or WebP file.")
