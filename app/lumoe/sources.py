"""Where a model comes from: `demo`, a directory, or a Hugging Face id. Imports nothing heavy."""

from __future__ import annotations

from pathlib import Path

from app.lumoe.errors import ModelNotFoundError


def where_is(source: str) -> str:
    """Return what transformers' `from_pretrained` takes for a model source.

    Raises `ModelNotFoundError` for a directory that is not there or holds no model.
    """
    if source == "demo":
        from app.lumoe.demo import CHECKPOINT

        return str(CHECKPOINT)
    path = Path(source).expanduser()
    if path.exists():
        if not (path / "config.json").is_file():
            raise ModelNotFoundError(source, "the directory holds no config.json")
        return str(path)
    if source.startswith(("/", ".", "~")) or not source:
        raise ModelNotFoundError(source, "there is no such directory")
    return source
