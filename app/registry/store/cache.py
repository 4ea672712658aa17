"""Local copies of expert versions that lie elsewhere: filled whole, checked, bounded, shared by processes.

`<directory>/<expert id>/<version>/` is laid out as the store itself, so that whatever reads an experts
directory (vLLM, too) can read this one. A copy is written beside its place and renamed; one that is damaged
is moved aside and fetched again; when all take too much, the least recently used are moved aside and deleted.
Readers hold no lock: one whose files are moved away under it finds that they are not whole.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from app.kit.logging import get_logger
from app.lumoe.expertfiles import MANIFEST
from app.registry.store.errors import StoreUnavailableError

_log = get_logger("experts")
_TRIES = 5
_FILLING, _ASIDE = ".filling-", ".aside-"
_ABANDONED_SECONDS = 3600.0
_RECOUNT_SECONDS = 60.0
_ROOM = 0.9  # a full cache is emptied to this part of its bound, so that not every copy has to

Fetch = Callable[[], dict[str, bytes]]
"""Returns the content of every file of a version, checked. Raises what the store raises."""


class ExpertCache:
    """A directory of copies.

    Args:
        directory: where; made on first use. Names that begin with a dot are nobody's copy.
        limit: bytes that all copies together may take; one that is in use is kept whatever it takes.
        keep_live: never delete a live copy for want of room: vLLM reads its files again.
    """

    def __init__(self, directory: Path, limit: int, *, keep_live: bool = False) -> None:
        self._root = directory
        self._limit = limit
        self._keep_live = keep_live
        self._live: frozenset[str] = frozenset()
        self._lock = threading.Lock()  # guards the count
        self._bytes = 0
        self._counted_at = -_RECOUNT_SECONDS

    def place(self, path: str) -> Path:
        """Return where the copy of a version is, or will be."""
        return self._root / path

    def has(self, path: str) -> bool:
        """Tell whether there is a copy, and note that it is used."""
        try:
            os.utime(self.place(path) / MANIFEST)
        except OSError:
            return False
        return True

    def fill(self, path: str, fetch: Fetch) -> Path:
        """Put a copy in place, instead of any that is there, and return its folder.

        Raises `StoreUnavailableError` if the disk does not take it, and whatever `fetch` raises.
        """
        content = fetch()
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            work = Path(tempfile.mkdtemp(prefix=_FILLING, dir=self._root))
            try:
                for name, data in content.items():
                    (work / name).write_bytes(data)
                self._install(work, self.place(path))
            finally:
                shutil.rmtree(work, ignore_errors=True)
        except OSError as error:
            raise StoreUnavailableError(
                f"a copy of expert {path} cannot be written to {self._root} ({error.strerror}): make room, "
                "or set LETHE_EXPERTS_CACHE to a directory that may be written to"
            ) from error
        self._make_room(path, sum(map(len, content.values())))
        return self.place(path)

    def _install(self, work: Path, final: Path) -> None:
        """Rename `work` to `final`. If others do the same at once, whoever's files stay are as good.

        Every copy that is discarded here is followed by a try to put one in its place, so that of those who
        fill at once none leaves the place empty.
        """
        work.chmod(0o755)  # temporary directories are for their owner alone; vLLM may be another user
        for tries_left in reversed(range(_TRIES)):
            try:
                final.parent.mkdir(parents=True, exist_ok=True)  # others delete it with its last version
                os.rename(work, final)
                return
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT):
                    raise
                if tries_left:
                    self._discard(final)
        _log.info("another process has put a copy in place", place=str(final))

    def _discard(self, folder: Path) -> None:
        """Delete a copy so that nobody sees half of it. One that is gone already is no error."""
        try:
            aside = Path(tempfile.mkdtemp(prefix=_ASIDE, dir=self._root))
        except FileNotFoundError:
            return
        try:
            os.rename(folder, aside / "copy")
        except FileNotFoundError:
            pass
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    def forget(self, expert_id: str) -> bool:
        """Delete all copies of an expert's versions; tell whether there were any."""
        found = self.place(expert_id).is_dir()
        if found:
            self._discard(self.place(expert_id))
        return found

    def keep_only(self, live: Collection[str]) -> None:
        """Delete all copies but those of the paths `live`, and what processes that died have left."""
        self._live = frozenset(live)
        dropped = [path for path in self._copies() if path not in self._live]
        for path in dropped:
            self._discard(self.place(path))
            self._drop_parent(path)
        if dropped:
            _log.info("copies of experts deleted", n=len(dropped))
        self._sweep()

    def _drop_parent(self, path: str) -> None:
        try:
            self.place(path).parent.rmdir()
        except OSError:
            return  # another version is there

    def _copies(self) -> Iterator[str]:
        try:
            experts = [entry.name for entry in os.scandir(self._root) if not entry.name.startswith(".")]
        except FileNotFoundError:
            return
        for expert in sorted(experts):
            try:
                versions = sorted(entry.name for entry in os.scandir(self._root / expert))
            except (FileNotFoundError, NotADirectoryError):
                continue
            yield from (f"{expert}/{version}" for version in versions)

    def _sweep(self) -> None:
        """Delete the temporary directories of processes that died."""
        now = time.time()
        for prefix in (_FILLING, _ASIDE):
            for folder in self._root.glob(f"{prefix}*"):
                try:
                    abandoned = now - folder.stat().st_mtime > _ABANDONED_SECONDS
                except FileNotFoundError:
                    continue
                if abandoned:
                    shutil.rmtree(folder, ignore_errors=True)

    def _make_room(self, path: str, added: int) -> None:
        """Delete the least recently used copies if all take more than the limit; never the one at `path`."""
        with self._lock:
            self._bytes += added
            if self._bytes <= self._limit and time.monotonic() - self._counted_at < _RECOUNT_SECONDS:
                return
            copies = self._measured()
            total = sum(size for _, size, _ in copies)
            if total > self._limit:
                for _, size, other in copies:
                    if other == path or (self._keep_live and other in self._live):
                        continue
                    self._discard(self.place(other))
                    self._drop_parent(other)
                    total -= size
                    if total <= self._limit * _ROOM:
                        break
                else:
                    _log.warning("live experts take more than LETHE_EXPERTS_CACHE_BYTES", bytes=total)
            self._bytes, self._counted_at = total, time.monotonic()

    def _measured(self) -> list[tuple[float, int, str]]:
        """Return every copy's time of last use, size in bytes, and path, the least recently used first."""
        found = []
        for path in self._copies():
            try:
                stats = {entry.name: entry.stat() for entry in os.scandir(self.place(path))}
            except (FileNotFoundError, NotADirectoryError):
                continue
            used = stats[MANIFEST].st_mtime if MANIFEST in stats else 0.0
            found.append((used, sum(stat.st_size for stat in stats.values()), path))
        return sorted(found)
