"""The files of one expert version, without torch: their names, the manifest, and whether they are whole."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from app.lumoe.errors import ExpertCorruptError, ExpertPathError

FORMAT = 2
"""Written now. In format 1 the gate's tensors were not encrypted; it is still read."""

ADAPTER = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
GATE = "gate.bin"
PLAIN_GATE = "gate.safetensors"
"""The gate's tensors in format 1."""

SUBJECT = "subject.bin"
MANIFEST = "manifest.json"
CONTENT = (ADAPTER, CONFIG, GATE, SUBJECT)
"""Everything but the manifest, which names exactly these: weights in safetensors, and no other file."""

_CONTENT_OF = {1: {ADAPTER, CONFIG, PLAIN_GATE, SUBJECT}, FORMAT: set(CONTENT)}


def expert_folder(root: Path, path: str) -> Path:
    """Resolve `path`, as the database has it, below `root`.

    Raises `ExpertPathError` for a path that leads out of it, or to `root` itself.
    """
    resolved, base = (root / path).resolve(), root.resolve()
    if not resolved.is_relative_to(base) or resolved == base:
        raise ExpertPathError(f"expert path {path!r} leaves the experts directory")
    return resolved


def parse_manifest(raw: bytes, where: object) -> dict[str, Any]:
    """Return the manifest in `raw`; `where` is for the message.

    Raises `ExpertCorruptError` if it is none, or names other files than an expert has.
    """
    try:
        manifest: dict[str, Any] = json.loads(raw)
    except ValueError as error:
        raise ExpertCorruptError(f"{where}: no readable {MANIFEST} ({error})") from error
    files = manifest.get("files") if isinstance(manifest, dict) else None
    kind = manifest.get("format") if isinstance(files, dict) else None
    if not isinstance(kind, int) or not isinstance(files, dict) or set(files) != _CONTENT_OF.get(kind):
        raise ExpertCorruptError(f"{where}: {MANIFEST} is not of format {FORMAT}, nor of an older one")
    return manifest


def read_manifest(folder: Path, sha256: str | None = None) -> tuple[bytes, dict[str, Any]]:
    """Return a folder's manifest, as it lies there and read.

    Raises `ExpertCorruptError` if it is missing, unreadable, or does not hash to `sha256`.
    """
    try:
        raw = (folder / MANIFEST).read_bytes()
    except OSError as error:
        raise ExpertCorruptError(f"{folder}: no readable {MANIFEST} ({error})") from error
    manifest = parse_manifest(raw, folder)
    check_manifest(raw, sha256, folder)
    return raw, manifest


def check_manifest(raw: bytes, sha256: str | None, where: object) -> None:
    """Raise `ExpertCorruptError` unless the manifest hashes to `sha256`; None is not checked."""
    if sha256 is not None and hashlib.sha256(raw).hexdigest() != sha256:
        raise ExpertCorruptError(f"{where}: {MANIFEST} is not the one that was published")


def read_checked(folder: Path, name: str, entry: Mapping[str, Any]) -> bytes:
    """Return a file's content. Raises `ExpertCorruptError` unless it is what the manifest's `entry` says."""
    try:
        content = (folder / name).read_bytes()
    except OSError as error:
        raise ExpertCorruptError(f"{folder}: {name} cannot be read ({error.strerror})") from error
    check_content(content, name, entry, folder)
    return content


def check_content(content: bytes, name: str, entry: Mapping[str, Any], where: object) -> None:
    """Raise `ExpertCorruptError` unless size in bytes and SHA-256 are those of the manifest's `entry`."""
    if len(content) != entry["bytes"] or hashlib.sha256(content).hexdigest() != entry["sha256"]:
        raise ExpertCorruptError(f"{where}: {name} does not match the manifest; restore it from a backup")


def describe(content: bytes) -> dict[str, int | str]:
    """Return the manifest's entry of a file with this content."""
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def flush(path: Path) -> None:
    """Have the disk keep a file, or what a directory lists, before anything else is done."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def check_folder(folder: Path, sha256: str | None = None) -> None:
    """Raise `ExpertCorruptError` unless a folder holds a whole expert, with the manifest of `sha256`."""
    _, manifest = read_manifest(folder, sha256)
    for name, entry in manifest["files"].items():
        read_checked(folder, name, entry)
