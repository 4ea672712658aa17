"""How an answer leaves over HTTP: a stream that ends in order, or whole; for nobody if the asker has gone."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import aclosing
from typing import TypeVar

from fastapi import Request
from sse_starlette import EventSourceResponse

from app.chat.schemas import ChatResponse
from app.kit.canonical import JsonValue
from app.kit.errors import LetheError, Problem
from app.kit.logging import get_logger

Event = str | ChatResponse
T = TypeVar("T")
_log = get_logger("chat")


async def answer_stream(
    request: Request,
    events: AsyncGenerator[Event, None],
    frames: Callable[[Event], Sequence[str]],
    failed: Callable[[LetheError], Mapping[str, JsonValue]],
) -> EventSourceResponse:
    """Return server-sent events: the data lines that `frames` makes of each event, then `[DONE]`.

    What is wrong before the first event is raised, to be answered with its own status. What goes wrong later
    comes as what `failed` makes of it, before `[DONE]`. When the client goes, `events` is closed.
    """
    first = await unless_gone(request, _next(events))

    async def sent() -> AsyncIterator[dict[str, str]]:
        try:
            async with aclosing(events):
                for line in frames(first):
                    yield {"data": line}
                async for event in events:
                    for line in frames(event):
                        yield {"data": line}
        except LetheError as error:
            yield {"data": json.dumps(failed(error))}
        except Exception as error:
            _log.error("stream failed", error=type(error).__name__, exc_info=error)
            yield {"data": json.dumps(failed(Problem("The answer could not be finished.")))}
        yield {"data": "[DONE]"}

    return EventSourceResponse(sent(), headers={"Cache-Control": "no-store"}, sep="\n")


class ClientGone(LetheError):  # noqa: N818  named after what happened, like the other errors
    """The asker closed the connection; nobody will read the answer. 499 as in nginx's logs."""

    def __init__(self) -> None:
        super().__init__(499, "client-gone", "Client closed the request")


async def unless_gone(request: Request, answer: Coroutine[None, None, T]) -> T:
    """Wait for `answer`; if the client closes the connection before, cancel it and raise `ClientGone`."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    working, listening = asyncio.create_task(answer), asyncio.create_task(gone())
    try:
        await asyncio.wait({working, listening}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientGone
        return working.result()
    finally:
        working.cancel()
        listening.cancel()


async def _next(events: AsyncIterator[T]) -> T:
    return await anext(events)  # a coroutine, which a task can run
