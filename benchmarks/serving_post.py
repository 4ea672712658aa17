"""How fast requests are filed and looked up: POST at a fixed rate, status beside an empty FastAPI route."""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from sqlalchemy import text

from app.client import png
from app.lumoe.demo import draw
from benchmarks.dashboard import Computed
from benchmarks.dashboard_data import fill
from benchmarks.gate_experts import strangers
from benchmarks.serving_figures import percentile, ratios, spread
from benchmarks.serving_load import client, failed, for_seconds, paced
from benchmarks.serving_stack import House, house

RATE = 50.0
CLIENTS = 16
POLICIES = ("auto", "manual")


@dataclass(frozen=True, slots=True)
class PostPlan:
    """How much is measured."""

    posts: int
    seconds: float
    """How long status and the empty route are each asked in one run."""
    runs: int
    requests: int
    """In the database before the first one is filed."""
    threads: int = 1


def measure(plan: PostPlan, console: Console) -> dict[str, Any]:
    """Return milliseconds of filing at 50 a second under both policies, and status beside an empty route."""
    with (
        tempfile.TemporaryDirectory(prefix="lethe-serving-") as folder,
        house(Path(folder), threads=plan.threads) as place,
    ):
        with place.sessions.begin() as session:
            fill(
                session,
                requests=plan.requests,
                active=plan.requests // 10,
                tenant_id=place.tenant_id,
                key_id=place.key_id,
            )
            session.execute(text("DELETE FROM generation_experts"))  # there are no files behind them
            session.execute(text("UPDATE generations SET experts = 0"))
            session.execute(text("DELETE FROM replicas"))
        with place.sessions.begin() as session:
            session.connection().exec_driver_sql("ANALYZE")
        status = asyncio.run(_status(place, plan, console))
        posts = {
            policy: asyncio.run(_post(place, policy, plan, console, at=i * plan.posts))
            for i, policy in enumerate(POLICIES)
        }
    return {"posts": posts, "status": status, "rate": RATE, "clients": CLIENTS, "requests": plan.requests}


async def _post(place: House, policy: str, plan: PostPlan, console: Console, at: int) -> dict[str, Any]:
    people = strangers(2 * plan.posts + 8)[at : at + plan.posts + 4]
    bodies = [
        {
            "data": {"name": person.name, "class": person.klass},
            "files": [("pictures", (f"{view}.png", png(draw(person, view)))) for view in range(2)],
        }
        for person in people
    ]
    more = {"LETHE_REVIEW_POLICY": policy}
    with place.replica(more=more) as url:
        async with client(url, place.key) as http:

            async def file(i: int) -> httpx.Response:
                body: Any = bodies[i]
                return await http.post("/unlearn-requests", data=body["data"], files=body["files"])

            await paced(lambda i: file(plan.posts + i), 10, 4)
            computed = Computed(place.pids[0], place.settings.database_url)
            before = computed.milliseconds()
            sent = await paced(file, RATE, plan.posts)
            spent = computed.milliseconds() - before
    seconds = [s.seconds for s in sent]
    found = {
        "milliseconds": spread([1e3 * s for s in seconds]).as_json(),
        "p99_ms": 1e3 * percentile(seconds, 99),
        "computed_ms": spent / len(sent),
        "failed": failed(sent, 202),
        "n": len(sent),
    }
    console.print(
        f"POST at {RATE:g}/s, review {policy}: p99 {found['p99_ms']:.1f} ms, "
        f"{found['computed_ms']:.1f} ms computed, {found['failed']} failed"
    )
    return found


async def _status(place: House, plan: PostPlan, console: Console) -> dict[str, Any]:
    ids: list[str] = []
    with place.sessions.begin() as session:
        for state in ("active", "training", "queued", "rejected"):
            newest = "SELECT id FROM removal_requests WHERE state = :state ORDER BY id DESC LIMIT 25"
            ids += session.execute(text(newest), {"state": state}).scalars().all()
    rates: dict[str, list[float]] = {"status": [], "empty": []}
    spent: dict[str, list[float]] = {"status": [], "empty": []}
    wrong = 0
    with ExitStack() as started:
        url = started.enter_context(place.replica())
        api = place.pids[0]
        nothing = started.enter_context(place.replica(command=("benchmarks.serving_empty",)))
        bare_pid = place.pids[0]
        async with client(url, place.key) as http, client(nothing) as bare:

            async def status(i: int) -> httpx.Response:
                return await http.get(f"/requests/{ids[i % len(ids)]}/status")

            async def empty(_: int) -> httpx.Response:
                return await bare.get("/")

            await for_seconds(status, plan.seconds, CLIENTS)  # so that the database's processes are there
            clocks = {
                "status": Computed(api, place.settings.database_url),
                "empty": Computed(bare_pid, None),
            }
            for run in range(-1, plan.runs):
                calls = [("status", status), ("empty", empty)]
                for name, call in calls if run % 2 else calls[::-1]:
                    before = clocks[name].milliseconds()
                    sent, seconds = await for_seconds(call, plan.seconds, CLIENTS)
                    wrong += failed(sent)
                    if run >= 0:
                        rates[name].append(len(sent) / seconds)
                        spent[name].append((clocks[name].milliseconds() - before) / len(sent))
    against = ratios(rates["status"], rates["empty"])
    computed = {name: spread(values).median for name, values in spent.items()}
    console.print(
        f"status {spread(rates['status']).median:.0f}/s, {computed['status']:.2f} ms computed; "
        f"empty route {spread(rates['empty']).median:.0f}/s, {computed['empty']:.2f} ms"
    )
    return {
        "per_second": {name: spread(values).as_json() for name, values in rates.items()},
        "ratio": against.as_json(),
        "computed_ms": computed,
        "failed": wrong,
    }
