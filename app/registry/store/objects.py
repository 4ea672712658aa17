"""Experts on an object store, or whatever else fsspec reaches: no rename, so the manifest comes last.

Objects are only ever created, never overwritten (`If-None-Match: *` on S3), and a version exists once its
manifest does. A writer that died leaves objects without one; whoever repeats the same publish takes them
over, anybody else finds the number taken. A late writer whose lease is lost can change nothing either.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import posixpath
import re
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import fsspec

from app.kit.logging import get_logger
from app.lumoe.errors import ExpertCorruptError, ExpertPathError
from app.lumoe.expertfiles import (
    MANIFEST,
    SUBJECT,
    check_content,
    check_folder,
    check_manifest,
    parse_manifest,
    read_checked,
    read_manifest,
)
from app.registry.store.cache import ExpertCache
from app.registry.store.errors import (
    StoreError,
    StoreRefusedError,
    StoreUnavailableError,
    VersionTakenError,
)

if TYPE_CHECKING:
    from app.lumoe.expert import Decrypter, LoadedExpert

_log = get_logger("experts")
_T = TypeVar("_T")
_PATH = re.compile(r"[A-Za-z0-9_]{1,64}/[0-9]{1,9}")
_EXPERT = re.compile(r"[A-Za-z0-9_]{1,64}")
_MAX_MANIFEST_BYTES = 64 * 1024
_TRIES = 3
_AGAIN_SECONDS, _AGAIN_MOST_SECONDS = 1.0, 60.0
_WITH_BUCKETS = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "oci"}
"""Where there are no directories to make; asked for one, some would make the bucket."""
_NO_CREDENTIALS = {
    "NoCredentialsError",
    "PartialCredentialsError",
    "ProfileNotFound",
    "NoAuthTokenError",
    "UnauthorizedSSOTokenError",
    "DefaultCredentialsError",
    "ClientAuthenticationError",
}
_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "s3": {
        "config_kwargs": {"connect_timeout": 5, "read_timeout": 10, "retries": {"max_attempts": 1}},
        "use_listings_cache": False,
    },
}


class ObjectStore:
    """See `ExpertStore`. Readers get local copies, see `ExpertCache`.

    Args:
        url: where, such as `s3://bucket/prefix`.
        options: what fsspec's file system takes, such as `{"endpoint_url": ...}`.
        cache: directory of the copies.
        cache_bytes: how much they may take.
        keep_live: never delete a live copy for want of room.
    """

    def __init__(
        self,
        url: str,
        options: Mapping[str, Any],
        *,
        cache: Path,
        cache_bytes: int,
        keep_live: bool = False,
    ) -> None:
        self.url = url.rstrip("/")
        self.cache = ExpertCache(cache, cache_bytes, keep_live=keep_live)
        self._has_buckets = self.url.partition("://")[0] in _WITH_BUCKETS
        self._options = options
        self._lock = threading.Lock()
        self._fs: tuple[Any, str] | None = None
        self._damaged: dict[tuple[str, str], tuple[float, float, ExpertCorruptError]] = {}

    # -- versions ----------------------------------------------------------------------------------

    def versions(self, expert_id: str) -> set[int]:
        """Return the version numbers that are in use, those of unfinished versions among them."""
        return {int(name) for name in self._names(_expert(expert_id)) if name.isdigit()}

    def holds(self, path: str) -> bool:
        """Tell whether a version's manifest is there."""
        return self._read(_checked(path), MANIFEST, _MAX_MANIFEST_BYTES) is not None

    def publish(self, source: Path, path: str) -> None:
        """Create every object, the manifest last, and read all of it back."""
        raw, manifest = read_manifest(source)
        for name, entry in manifest["files"].items():
            self._create(path, name, read_checked(source, name, entry))
        self._create(path, MANIFEST, raw)
        self._fill(path, hashlib.sha256(raw).hexdigest())

    def _create(self, path: str, name: str, content: bytes) -> None:
        """Create an object; the same one there already is as good, another is `VersionTakenError`."""
        where = f"{_checked(path)}/{name}"

        def create(fs: Any, at: str) -> None:
            if not self._has_buckets:
                fs.makedirs(posixpath.dirname(at), exist_ok=True)
            fs.pipe_file(at, content, mode="create")

        try:
            self._ask(create, where)
        except FileExistsError:
            if self._read(path, name, len(content)) != content:
                raise VersionTakenError(
                    f"{self.url}/{where} exists already, with other content; versions never change"
                ) from None
        except FileNotFoundError as error:
            raise self._no_bucket(error) from error

    def folder(self, path: str, manifest_sha256: str) -> Path:
        """Return the folder of a copy, fetched if there is none."""
        if self.cache.has(_checked(path)):
            return self.cache.place(path)
        return self._fill(path, manifest_sha256)

    def load(self, path: str, cipher: Decrypter, manifest_sha256: str) -> LoadedExpert:
        """Read and check a copy; one that is not there or not whole is fetched (again)."""
        from app.lumoe.expert import load_expert  # torch, which deleting and listing do not need

        for attempt in range(_TRIES):
            if not self.cache.has(_checked(path)):
                self._fill(path, manifest_sha256)
            place = self.cache.place(path)
            try:
                return load_expert(place, cipher, manifest_sha256=manifest_sha256)
            except ExpertCorruptError as error:
                if attempt == _TRIES - 1 or _whole(place, manifest_sha256):
                    raise  # what was published is so, or the key is another: fetching it again would not help
                _log.warning("copy of an expert is damaged, fetching it again", path=path, error=str(error))
                self._fill(path, manifest_sha256)
        raise AssertionError("the last try returns or raises")

    def inspect(self, path: str, cipher: Decrypter, manifest_sha256: str) -> LoadedExpert:
        """Read and check what the store holds, past the copies."""
        from app.lumoe.expert import load_expert

        with tempfile.TemporaryDirectory(prefix="lethe-inspect-") as folder:
            for name, content in self._fetch(path, manifest_sha256).items():
                (Path(folder) / name).write_bytes(content)
            return load_expert(Path(folder), cipher, manifest_sha256=manifest_sha256)

    def sealed_subject(self, path: str) -> bytes:
        """Return the version's subject as it is encrypted."""
        _, manifest = self._manifest(path)
        return self._content(path, SUBJECT, manifest["files"][SUBJECT])

    def remove(self, expert_id: str) -> bool:
        """Delete all versions, the manifests first: what is half deleted is no version any more."""
        found = self.cache.forget(_expert(expert_id))
        for number in sorted(self.versions(expert_id)):
            found = True
            self._delete(f"{expert_id}/{number}")
        self._delete_directory(expert_id)
        return found

    def remove_unfinished(self, expert_id: str, below: int) -> None:
        """Delete the objects of versions under `below` that never got a manifest."""
        for number in sorted(self.versions(expert_id)):
            if number < below and not self.holds(f"{expert_id}/{number}"):
                self._delete(f"{expert_id}/{number}")

    def keep_only(self, live: Collection[str]) -> None:
        """Delete copies of other versions than those at `live`."""
        self.cache.keep_only(live)

    # -- objects -----------------------------------------------------------------------------------

    def _fill(self, path: str, manifest_sha256: str) -> Path:
        """Fetch a version into the cache. What is damaged there is not fetched again at every poll."""
        key = (path, manifest_sha256)
        until, pause, known = self._damaged.get(key, (0.0, _AGAIN_SECONDS, None))
        if known is not None and time.monotonic() < until:
            raise ExpertCorruptError(str(known))
        try:
            place = self.cache.fill(path, lambda: self._fetch(path, manifest_sha256))
        except ExpertPathError:
            raise
        except ExpertCorruptError as error:
            self._damaged[key] = (time.monotonic() + pause, min(2 * pause, _AGAIN_MOST_SECONDS), error)
            raise
        self._damaged.pop(key, None)
        return place

    def _fetch(self, path: str, manifest_sha256: str | None) -> dict[str, bytes]:
        """Return the content of every file, checked; the manifest last."""
        raw, manifest = self._manifest(path, manifest_sha256)
        found = {name: self._content(path, name, entry) for name, entry in manifest["files"].items()}
        return {**found, MANIFEST: raw}

    def _manifest(self, path: str, sha256: str | None = None) -> tuple[bytes, dict[str, Any]]:
        where = f"{self.url}/{_checked(path)}"
        raw = self._read(path, MANIFEST, _MAX_MANIFEST_BYTES)
        if raw is None:
            raise ExpertCorruptError(f"{where}: no {MANIFEST}, so there is no such version")
        check_manifest(raw, sha256, where)
        return raw, parse_manifest(raw, where)

    def _content(self, path: str, name: str, entry: Mapping[str, Any]) -> bytes:
        where = f"{self.url}/{path}"
        content = self._read(path, name, int(entry["bytes"]))
        if content is None:
            raise ExpertCorruptError(f"{where}: {name} is missing; restore it from a backup")
        check_content(content, name, entry, where)
        return content

    def _read(self, path: str, name: str, most: int) -> bytes | None:
        """Return an object's content, or None if it is not there; at most one byte more than `most`."""

        def get(fs: Any, at: str) -> bytes:
            try:
                return bytes(fs.cat_file(at, start=0, end=most + 1))
            except OSError as error:
                if error.errno == errno.EINVAL and "range" in str(error).lower():
                    return b""  # what S3 says to a range of an object without a byte
                raise

        try:
            return self._ask(get, f"{path}/{name}")
        except FileNotFoundError as error:
            if _bucket_is_missing(error):
                raise self._no_bucket(error) from error
            return None

    def _names(self, path: str) -> list[str]:
        """Return the names directly below a path."""
        try:
            found = self._ask(lambda fs, at: fs.ls(at, detail=False), path)
        except FileNotFoundError as error:
            if _bucket_is_missing(error):
                raise self._no_bucket(error) from error
            return []
        return [posixpath.basename(str(name).rstrip("/")) for name in found]

    def _delete(self, path: str) -> None:
        names = self._names(path)
        for name in sorted(names, key=lambda name: name != MANIFEST):
            try:
                self._ask(lambda fs, at: fs.rm_file(at), f"{path}/{name}")
            except FileNotFoundError:
                continue
        self._delete_directory(path)

    def _delete_directory(self, path: str) -> None:
        """Delete what is left of an empty path where there are directories."""
        if not self._has_buckets:
            with contextlib.suppress(OSError):
                self._ask(lambda fs, at: fs.rmdir(at), path)

    def _ask(self, what: Callable[[Any, str], _T], path: str) -> _T:
        """Do something at a path of the file system.

        Raises `FileNotFoundError` and `FileExistsError` as it does, everything else as `StoreError`.
        """
        try:
            fs, root = self._connected()
            fs.invalidate_cache()
            return what(fs, f"{root.rstrip('/')}/{path}")
        except (FileNotFoundError, FileExistsError):
            raise
        except Exception as error:  # whatever a driver throws
            raise self._explained(error) from error

    def _connected(self) -> tuple[Any, str]:
        """Return fsspec's file system, one for all threads, and the root's path in it."""
        with self._lock:
            if self._fs is None:
                protocol = self.url.partition("://")[0]
                defaults = _DEFAULTS.get("s3" if protocol == "s3a" else protocol, {})
                fs, root = fsspec.core.url_to_fs(self.url, **{**defaults, **self._options})
                if hasattr(fs, "retries"):
                    fs.retries = 1  # s3fs would try five times more, and whoever is approved meanwhile waits
                self._fs = fs, str(root)
            return self._fs

    def _explained(self, error: Exception) -> StoreError:
        kind, said = type(error).__name__, " ".join(str(error).split())[:300]
        if isinstance(error, PermissionError):
            return StoreRefusedError(
                f"LETHE_EXPERTS_DIR: the store of the experts refuses access ({said}): check the keys, "
                "and that they may list, read, create and delete below the prefix"
            )
        if kind in _NO_CREDENTIALS:
            return StoreRefusedError(
                f"LETHE_EXPERTS_DIR: no credentials for the store of the experts ({said}): set "
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or what your cloud has instead, or "
                "LETHE_EXPERTS_OPTIONS"
            )
        return StoreUnavailableError(f"{self.url} cannot be reached, or fails ({kind}: {said})")

    def _no_bucket(self, error: Exception) -> StoreRefusedError:
        _log.error("no bucket", url=self.url, error=str(error))
        return StoreRefusedError(
            "LETHE_EXPERTS_DIR: the bucket that it names does not exist: create it, or correct the URL"
        )


def _bucket_is_missing(error: FileNotFoundError) -> bool:
    """Tell a bucket that is not there from an object that is not."""
    told = f"{error} {error.__cause__!r}".lower()
    return "nosuchbucket" in told or "bucket does not exist" in told or "containernotfound" in told


def _whole(folder: Path, manifest_sha256: str) -> bool:
    try:
        check_folder(folder, manifest_sha256)
    except ExpertCorruptError:
        return False
    return True


def _checked(path: str) -> str:
    """Return a version's path. Raises `ExpertPathError` if it could be anything else."""
    if not _PATH.fullmatch(path):
        raise ExpertPathError(f"expert path {path!r} leaves the experts directory")
    return path


def _expert(expert_id: str) -> str:
    if not _EXPERT.fullmatch(expert_id):
        raise ExpertPathError(f"expert id {expert_id!r} leaves the experts directory")
    return expert_id
