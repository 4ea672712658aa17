"""`lethe bench`: how fast a running server answers, as its callers see it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.support import Exit, JsonOption, console, problems_explained, where_and_as_whom

if TYPE_CHECKING:
    from collections.abc import Sequence

    import httpx

    from app.client import Turn

app = typer.Typer()


@dataclass(frozen=True, slots=True)
class Figures:
    """What a run measured; seconds. Quantiles are over the answered conversations alone.

    `per_second` is answers divided by the time of the whole run.
    """

    n: int
    answered: int
    concurrency: int
    seconds: float
    per_second: float
    first_text_p50: float | None
    first_text_p95: float | None
    total_p50: float | None
    total_p95: float | None
    errors: dict[str, int]


@app.command()
def bench(
    text: Annotated[str, typer.Option(help="What is asked.")] = "What is 3 plus 4?",
    picture: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Shown with every question.")
    ] = None,
    n: Annotated[int, typer.Option("-n", "--n", min=1, help="How many conversations.")] = 50,
    concurrency: Annotated[int, typer.Option("-c", "--concurrency", min=1, help="At once.")] = 4,
    max_tokens: Annotated[int, typer.Option(min=1)] = 32,
    as_json: JsonOption = False,
) -> None:
    """Ask a running server the same question many times, and time first text and whole answers.

    Every conversation begins as soon as one of the `concurrency` before it has ended (closed loop); nothing
    is tried again. Status 1 if any was not answered.
    """
    from app.client import turn

    with problems_explained():
        url, key = where_and_as_whom("chat")
        shown = []
        if picture is not None:
            from app.cli.chat import read_picture

            shown = [read_picture(picture)]
        found = asyncio.run(measure(url, key, [turn("user", text, shown)], n, concurrency, max_tokens))
    if as_json:
        console.print_json(data=asdict(found))
    else:
        console.print(
            f"{found.answered} of {n} answered in {found.seconds:.2f} s, {concurrency} at once: "
            f"{found.per_second:.1f} a second"
        )
        for name, p50, p95 in (
            ("first text", found.first_text_p50, found.first_text_p95),
            ("whole answer", found.total_p50, found.total_p95),
        ):
            if p50 is not None and p95 is not None:
                console.print(f"{name}: median {1000 * p50:.0f} ms, 95 of 100 within {1000 * p95:.0f} ms")
        for error, times in found.errors.items():
            console.print(f"{times} times: {error}", markup=False)
    raise typer.Exit(Exit.DONE if found.answered == n else Exit.NEGATIVE)


async def measure(
    url: str,
    key: str,
    turns: Sequence[Turn],
    n: int,
    concurrency: int,
    max_tokens: int,
    transport: httpx.AsyncBaseTransport | None = None,
) -> Figures:
    """Ask `n` times, `concurrency` at once, and return what that took.

    Raises:
        UnreachableError: the first question finds no server.
        ApiError: it is refused; the same refusal of a later one is counted instead.
    """
    from app.client import AsyncClient, ClientError

    firsts: list[float] = []
    totals: list[float] = []
    errors: dict[str, int] = {}
    waiting = iter(range(n))

    async with AsyncClient(url, key, timeout=300, retries=0, transport=transport) as client:
        await client.chat(turns, max_tokens=max_tokens)  # what is wrong with all shows here; and it warms up

        async def ask() -> None:
            for _ in waiting:
                start, first = time.perf_counter(), None
                try:
                    async for _piece in client.stream_chat(turns, max_tokens=max_tokens):
                        first = first or time.perf_counter() - start
                except ClientError as error:
                    errors[str(error)] = errors.get(str(error), 0) + 1
                    continue
                totals.append(time.perf_counter() - start)
                if first is not None:
                    firsts.append(first)

        start = time.perf_counter()
        await asyncio.gather(*(ask() for _ in range(concurrency)))
        seconds = time.perf_counter() - start
    return Figures(
        n=n,
        answered=len(totals),
        concurrency=concurrency,
        seconds=seconds,
        per_second=len(totals) / seconds,
        first_text_p50=quantile(firsts, 0.5),
        first_text_p95=quantile(firsts, 0.95),
        total_p50=quantile(totals, 0.5),
        total_p95=quantile(totals, 0.95),
        errors=errors,
    )


def quantile(values: Sequence[float], share: float) -> float | None:
    """Return the smallest value that at least `share` of all do not exceed (nearest rank); None for none."""
    if not values:
        return None
    rank = max(1, -(-len(values) * round(share * 1000) // 1000))
    return sorted(values)[rank - 1]
