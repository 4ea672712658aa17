"""Redis as an alarm clock: it wakes whoever sleeps; what there is to do is always read from SQL."""

from functools import lru_cache

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

_SECONDS = 2.0


def wake_client(url: str) -> redis.Redis:
    """Return a client that gives up quickly: a wake-up that comes late is worth nothing."""
    return _client(url, 0)


@lru_cache(maxsize=8)
def shared_wake_client(url: str) -> redis.Redis:
    """Return this process's client for `url`: it keeps its connections, and replaces one that has died."""
    return _client(url, 1)


def _client(url: str, retries: int) -> redis.Redis:
    return redis.Redis.from_url(
        url, socket_timeout=_SECONDS, socket_connect_timeout=_SECONDS, retry=Retry(NoBackoff(), retries)
    )
