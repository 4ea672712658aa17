"""Load over HTTP: so many clients that ask again at once, or so many requests a second whatever comes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx

TIMEOUT_SECONDS = 120.0
MOST_OPEN = 256
"""Requests that may be open at once: a service that has stopped must not take the machine with it."""


@dataclass(frozen=True, slots=True)
class Sent:
    """One request: when it was due, seconds from then to the whole answer, and its status (0: none came)."""

    due: float
    seconds: float
    status: int


Call = Callable[[int], Awaitable[httpx.Response]]
"""Sends the i-th request."""


@asynccontextmanager
async def client(url: str, key: str | None = None) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client of one service, with as many connections as are needed."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    limits = httpx.Limits(max_connections=MOST_OPEN, max_keepalive_connections=MOST_OPEN)
    async with httpx.AsyncClient(
        base_url=url, headers=headers, limits=limits, timeout=TIMEOUT_SECONDS, trust_env=False
    ) as made:
        yield made


async def _send(call: Call, i: int, due: float) -> Sent:
    try:
        status = (await call(i)).status_code
    except httpx.HTTPError:
        status = 0
    return Sent(due, time.perf_counter() - due, status)


async def closed(call: Call, n: int, clients: int) -> tuple[list[Sent], float]:
    """Send n requests from so many clients, each asking again once answered; return them and seconds."""
    numbers = iter(range(n))
    sent: list[Sent] = []

    async def ask() -> None:
        for i in numbers:
            sent.append(await _send(call, i, time.perf_counter()))

    began = time.perf_counter()
    await asyncio.gather(*(ask() for _ in range(clients)))
    return sent, time.perf_counter() - began


async def for_seconds(call: Call, seconds: float, clients: int) -> tuple[list[Sent], float]:
    """As `closed`, for so many seconds instead of so many requests."""
    sent: list[Sent] = []
    began = time.perf_counter()

    async def ask(first: int) -> None:
        i = first
        while time.perf_counter() - began < seconds:
            sent.append(await _send(call, i, time.perf_counter()))
            i += clients

    await asyncio.gather(*(ask(i) for i in range(clients)))
    return sent, time.perf_counter() - began


async def paced(call: Call, rate: float, n: int) -> list[Sent]:
    """Send n requests, `rate` a second, whether the earlier ones are answered or not.

    The time of each counts from when it was due, so that a service that stops cannot hide it by being asked
    less. With `MOST_OPEN` requests open the next one waits, and its time runs.
    """
    room = asyncio.Semaphore(MOST_OPEN)
    began = time.perf_counter()

    async def one(i: int, due: float) -> Sent:
        async with room:
            return await _send(call, i, due)

    tasks = []
    for i in range(n):
        due = began + i / rate
        if (early := due - time.perf_counter()) > 0:
            await asyncio.sleep(early)
        tasks.append(asyncio.create_task(one(i, due)))
    return list(await asyncio.gather(*tasks))


def failed(sent: Sequence[Sent], expected: int = 200) -> int:
    """Return how many were not answered with `expected`."""
    return sum(s.status != expected for s in sent)
