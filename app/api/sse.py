"""Server-sent events: persisted ones, resumed by `Last-Event-ID`, with heartbeats."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.concurrency import run_in_threadpool

from app.kit.errors import InvalidInput

HEARTBEAT_SECONDS = 10
POLL_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Sent:
    """One event to send: its id (a growing number), its name and its JSON."""

    id: int
    name: str
    data: str


Fetch = Callable[[int], tuple[Sequence[Sent], bool]]
"""From the last id to the events after it, and whether no more will come."""


def last_event_id(header: str | None) -> int:
    """Return the id after which a client wants to go on.

    Raises:
        InvalidInput: not an id this service sent.
    """
    if header is None or not header.strip():
        return 0
    if not header.strip().isdecimal() or len(header.strip()) > 18:
        raise InvalidInput(
            "`Last-Event-ID` is not an id of this stream.", "Leave it out to start from the first event."
        )
    return int(header)


def event_stream(fetch: Fetch, after: int) -> EventSourceResponse:
    """Return a stream of what `fetch` finds, until nothing more will come; `fetch` runs in a thread."""

    async def events() -> AsyncIterator[ServerSentEvent]:
        last = after
        while True:
            found, ended = await run_in_threadpool(fetch, last)
            for event in found:
                last = event.id
                yield ServerSentEvent(event.data, id=str(event.id), event=event.name)
            if ended:
                return
            if not found:
                await asyncio.sleep(POLL_SECONDS)

    return EventSourceResponse(events(), ping=HEARTBEAT_SECONDS, headers={"Cache-Control": "no-store"})
