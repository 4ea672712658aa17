"""Reads the experts that a generation lists, each version once."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from app.kit.memory import give_back
from app.lumoe.expert import Decrypter, LoadedExpert
from app.registry.service import ExpertRow
from app.registry.store import open_store
from app.settings import Settings

_READERS = 8
_MUCH_BYTES = 16 * 2**20
"""Freeing less than this is no reason to have the C library look for what it can give back."""


class ExpertLoader:
    """Loads what a registry generation lists; an expert version is read and checked once.

    Where others write with the experts, their matrices are checked like all files, and not kept here.
    """

    def __init__(self, settings: Settings, cipher: Decrypter) -> None:
        self._keep_adapters = settings.engine == "local"
        self._store = open_store(settings)
        self._cipher = cipher
        self._held: dict[str, LoadedExpert] = {}
        self._paths: list[str] = []

    def load(self, rows: list[ExpertRow]) -> list[LoadedExpert]:
        """Return the experts of `rows`, all of them. Raises `ExpertCorruptError`, `StoreError`."""
        self._store.keep_only([*self._paths, *(row.path for row in rows)])
        missing = [row for row in rows if row.manifest_sha256 not in self._held]
        read = dict(zip((row.manifest_sha256 for row in missing), self._read_all(missing), strict=True))
        known = self._held | read
        loaded = {row.manifest_sha256: known[row.manifest_sha256] for row in rows}
        if not self._keep_adapters:  # whoever writes with them reads their files
            for row in rows:
                self._store.folder(row.path, row.manifest_sha256)
        self._held = loaded
        self._paths = [row.path for row in rows]
        self._store.keep_only(self._paths)
        return list(loaded.values())

    def drop_adapters(self) -> None:
        """Forget the matrices of what was loaded last, once a router serves it: the slot bank has them."""
        dropped = 0
        for expert in self._held.values():
            if expert.adapter:
                dropped += sum(a.nbytes + b.nbytes for a, b in expert.adapter.values())
                expert.adapter.clear()
        if dropped >= _MUCH_BYTES:
            give_back()

    def holds(self, rows: Sequence[ExpertRow]) -> bool:
        """Tell whether nothing of `rows` must be read."""
        return all(row.manifest_sha256 in self._held for row in rows)

    def _read_all(self, rows: Sequence[ExpertRow]) -> list[LoadedExpert]:
        """Read several at once: from an object store, most of the time is waiting."""
        if len(rows) < 2:
            return [self._read(row) for row in rows]
        with ThreadPoolExecutor(_READERS, thread_name_prefix="lethe-experts") as pool:
            reading = [pool.submit(self._read, row) for row in rows]
            try:
                return [one.result() for one in reading]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)  # the others would only fail as well
                raise

    def _read(self, row: ExpertRow) -> LoadedExpert:
        loaded = self._store.load(row.path, self._cipher, row.manifest_sha256)
        return loaded if self._keep_adapters else replace(loaded, adapter={})
