"""How often one API key may ask, counted in Redis over all replicas."""

import math
import time

import redis
from limits import parse_many
from limits.storage import RedisStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from app.kit.errors import RateLimited
from app.kit.logging import get_logger
from app.settings import Settings

_TIMEOUT_SECONDS = 0.5
_PAUSE_SECONDS = 5.0
_log = get_logger("rates")


class RateLimits:
    """Counts what every key asks, and refuses what is over the limit.

    Without Redis nobody is refused: a broker that is down must not take the service with it. It is then left
    alone for a few seconds, so that no request waits for it.
    """

    def __init__(self, settings: Settings) -> None:
        text = settings.rate_limit_in_force
        self._limits = parse_many(text) if text else []
        uri = settings.redis_url.replace("unix://", "redis+unix://")
        storage = RedisStorage(
            uri,
            key_prefix="lethe:rate",
            socket_timeout=_TIMEOUT_SECONDS,
            socket_connect_timeout=_TIMEOUT_SECONDS,
        )
        self._limiter = SlidingWindowCounterRateLimiter(storage)
        self._paused_until = 0.0

    @property
    def counts(self) -> bool:
        """Whether `check` asks Redis."""
        return bool(self._limits)

    def check(self, key_id: str) -> None:
        """Count one request of this key.

        Raises:
            RateLimited: 429, it is one too many; `Retry-After` says when there is room again.
        """
        if not self._limits or time.monotonic() < self._paused_until:
            return
        try:
            for limit in self._limits:
                if not self._limiter.hit(limit, key_id):
                    room = self._limiter.get_window_stats(limit, key_id).reset_time - time.time()
                    seconds = max(1, math.ceil(room))
                    raise RateLimited(
                        f"This key may ask {limit.amount} times in {limit.get_expiry()} s.",
                        f"Ask again in {seconds} s, and then less often.",
                        headers={"Retry-After": str(seconds)},
                    )
        except redis.RedisError as error:
            self._paused_until = time.monotonic() + _PAUSE_SECONDS
            _log.warning("requests are not counted: Redis does not answer", error=type(error).__name__)
