"""Redis as an alarm clock: it wakes whoever sleeps; what there is to do is always read from SQL."""

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

_SECONDS = 2.0


def wake_client(url: str) -> redis.Redis:
    """Return a client that gives up quickly: a wake-up that comes late is worth nothing."""
    return redis.Redis.from_url(
        url, socket_timeout=_SECONDS, socket_connect_timeout=_SECONDS, retry=Retry(NoBackoff(), 0)
    )
