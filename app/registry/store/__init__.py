"""Where published experts lie: a directory, or any fsspec URL. Nothing else touches their files.

store = open_store(settings)
store.publish(folder, "exp_.../1")       # once: a version is never changed
store.load("exp_.../1", cipher, sha256)  # every byte checked against the manifest, that against `sha256`
"""

from app.registry.store.base import ExpertStore
from app.registry.store.errors import (
    StoreError,
    StoreRefusedError,
    StoreUnavailableError,
    VersionTakenError,
)
from app.registry.store.local import LocalStore
from app.settings import Settings

__all__ = [
    "ExpertStore",
    "StoreError",
    "StoreRefusedError",
    "StoreUnavailableError",
    "VersionTakenError",
    "open_store",
]


def open_store(settings: Settings) -> ExpertStore:
    """Return the store that LETHE_EXPERTS_DIR names. Nothing is connected to yet."""
    if settings.experts_url is None:
        return LocalStore(settings.experts_dir)
    from app.registry.store.objects import ObjectStore

    return ObjectStore(
        settings.experts_url,
        settings.experts_storage_options(),
        cache=settings.experts_dir,
        cache_bytes=settings.experts_cache_bytes,
        keep_live=settings.engine == "vllm",
    )
