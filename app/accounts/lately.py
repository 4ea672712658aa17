"""API keys that were found valid a moment ago: a client that asks again at once is not looked up again."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from app.accounts.principal import Principal
from app.accounts.service import key_hash

SECONDS = 1.0
"""How long a revoked or expired key may still be let in, by processes that have just seen it."""

_MOST = 4096


class LatelySeen:
    """Remembers who holds a valid key, for a second. Keys that are not valid are looked up every time.

    Args:
        look_up: returns who holds a secret. Raises `Unauthenticated`.
        seconds: how long that holds.
    """

    def __init__(self, look_up: Callable[[str], Principal], seconds: float = SECONDS) -> None:
        self._look_up = look_up
        self._seconds = seconds
        self._seen: OrderedDict[str, tuple[float, Principal]] = OrderedDict()
        self._lock = threading.Lock()

    def known(self, secret: str) -> Principal | None:
        """Return who holds `secret`, if that was found out a moment ago."""
        with self._lock:
            found = self._seen.get(key_hash(secret))
        return found[1] if found is not None and time.monotonic() < found[0] + self._seconds else None

    def holder(self, secret: str) -> Principal:
        """Return who holds `secret`, looked up now. Raises `Unauthenticated`."""
        began = time.monotonic()  # what is revoked while it is looked up counts from here
        found = self._look_up(secret)
        key = key_hash(secret)
        with self._lock:
            self._seen[key] = began, found
            self._seen.move_to_end(key)
            while len(self._seen) > _MOST:
                self._seen.popitem(last=False)
        return found
