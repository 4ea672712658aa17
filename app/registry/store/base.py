"""What a store of experts does, wherever they lie."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from app.lumoe.expert import Decrypter, LoadedExpert


class ExpertStore(Protocol):
    """Expert versions by path, `<expert id>/<version>`; usable from any thread.

    Every method raises `StoreUnavailableError` if the store does not answer, `StoreRefusedError` if it
    refuses, and those with a path `ExpertPathError` for one that leads out of the store. A version exists
    once its manifest does; it is never changed after that.
    """

    def versions(self, expert_id: str) -> set[int]:
        """Return the version numbers that are in use, also those of versions that were never finished."""
        ...

    def holds(self, path: str) -> bool:
        """Tell whether there is such a version, whole or damaged."""
        ...

    def publish(self, source: Path, path: str) -> None:
        """Make the version at `path` of the files in the local folder `source`; may be repeated.

        Raises:
            VersionTakenError: other files lie there.
            ExpertCorruptError: `source` is not a whole expert.
        """
        ...

    def folder(self, path: str, manifest_sha256: str) -> Path:
        """Return a local folder that holds the version, as PEFT and vLLM read it.

        Raises:
            ExpertCorruptError: there is no such version, or what had to be fetched is damaged.
        """
        ...

    def load(self, path: str, cipher: Decrypter, manifest_sha256: str) -> LoadedExpert:
        """Read a version, every file checked against the manifest, and that against its hash.

        Raises:
            ExpertCorruptError: something is missing, damaged, or encrypted with another key.
        """
        ...

    def inspect(self, path: str, cipher: Decrypter, manifest_sha256: str) -> LoadedExpert:
        """As `load`, but past any local copy: what the store itself holds."""
        ...

    def sealed_subject(self, path: str) -> bytes:
        """Return the version's subject as it is encrypted. Raises `ExpertCorruptError`."""
        ...

    def remove(self, expert_id: str) -> bool:
        """Delete all versions of an expert, and copies of them here; tell whether there was anything."""
        ...

    def remove_unfinished(self, expert_id: str, below: int) -> None:
        """Delete what writers that died have left of versions under `below`; versions stay."""
        ...

    def keep_only(self, live: Collection[str]) -> None:
        """Forget local copies of all versions but those at the paths `live`; the versions stay."""
        ...
