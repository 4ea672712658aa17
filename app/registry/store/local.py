"""Experts in a directory that all processes see: renamed into place, so there whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from app.lumoe.expertfiles import (
    SUBJECT,
    check_folder,
    expert_folder,
    flush,
    read_checked,
    read_manifest,
)
from app.registry.store.errors import VersionTakenError

if TYPE_CHECKING:
    from app.lumoe.expert import Decrypter, LoadedExpert


class LocalStore:
    """See `ExpertStore`. What the file system refuses is an `OSError`, as for every file of ours.

    Args:
        root: the experts directory.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def versions(self, expert_id: str) -> set[int]:
        """Return the version numbers that are in use."""
        folder = expert_folder(self._root, expert_id)
        return {int(p.name) for p in folder.iterdir() if p.name.isdigit()} if folder.is_dir() else set()

    def holds(self, path: str) -> bool:
        """Tell whether there is such a version."""
        return expert_folder(self._root, path).exists()

    def publish(self, source: Path, path: str) -> None:
        """Rename `source`, which is on the same file system, to its place, and flush that."""
        final = expert_folder(self._root, path)
        if final.exists():
            if source.exists() and read_manifest(source)[0] != read_manifest(final)[0]:
                raise VersionTakenError(f"{path} exists already, with other files; versions never change")
            return
        check_folder(source)
        final.parent.mkdir(parents=True, exist_ok=True)
        os.rename(source, final)
        for directory in (final, final.parent, self._root):
            flush(directory)

    def folder(self, path: str, manifest_sha256: str) -> Path:  # noqa: ARG002  checked when it is read
        """Return the version's own folder."""
        return expert_folder(self._root, path)

    def load(self, path: str, cipher: Decrypter, manifest_sha256: str) -> LoadedExpert:
        """Read and check a version."""
        from app.lumoe.expert import load_expert  # torch, which deleting and listing do not need

        folder = expert_folder(self._root, path)
        return load_expert(folder, cipher, manifest_sha256=manifest_sha256)

    inspect = load

    def sealed_subject(self, path: str) -> bytes:
        """Return the version's subject as it is encrypted."""
        folder = expert_folder(self._root, path)
        _, manifest = read_manifest(folder)
        return read_checked(folder, SUBJECT, manifest["files"][SUBJECT])

    def remove(self, expert_id: str) -> bool:
        """Delete all versions of an expert."""
        folder = expert_folder(self._root, expert_id)
        if not folder.is_dir():
            return False
        shutil.rmtree(folder)
        return True

    def remove_unfinished(self, expert_id: str, below: int) -> None:
        """Do nothing: a rename is done or not."""

    def keep_only(self, live: Collection[str]) -> None:
        """Do nothing: there are no copies."""
