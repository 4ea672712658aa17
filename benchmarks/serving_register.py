"""Registering experts under load: publish until all replicas acknowledge, and what callers feel of it."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from sqlalchemy import text

from app.embedded.demo.interview import on_the_wire
from app.lumoe.mllm import MLLM
from app.registry.service import RegistryService
from benchmarks.serving_figures import percentile, spread
from benchmarks.serving_http import traffic
from benchmarks.serving_load import Sent, client, failed, paced
from benchmarks.serving_models import load
from benchmarks.serving_stack import (
    TOKEN,
    House,
    Published,
    about_to_publish,
    enrol,
    house,
    write_experts,
)

ACKNOWLEDGED_SECONDS = 60.0
_LOOK_SECONDS = 0.02
"""The database's clock says when it was; looking more often would take the chats' time and tell no more."""


@dataclass(frozen=True, slots=True)
class RegisterPlan:
    """How much is measured."""

    replicas: int
    live: int
    """Experts in service before the first registration."""
    registrations: int
    window_seconds: float
    """Windows with registrations and without take turns; a registration begins when the last one is done."""
    windows: int
    """Of each kind."""
    rate: float
    """Chats a second, over all replicas."""
    threads: int = 1


def measure(plan: RegisterPlan, console: Console) -> dict[str, Any]:
    """Register experts one after another while all replicas answer; see `RegisterPlan`."""
    mllm = load("demo")
    with (
        tempfile.TemporaryDirectory(prefix="lethe-serving-") as folder,
        house(Path(folder), threads=plan.threads) as place,
    ):
        written = write_experts(place, mllm, plan.live + plan.registrations)
        enrol(place, written[: plan.live], mllm.fingerprint)
        about_to_publish(place, written[plan.live :])
        with place.replicas(plan.replicas) as urls:
            found = asyncio.run(_measure(place, mllm, urls, written[plan.live :], plan))
    console.print(
        f"{found['registered']} registrations, p99 {found['p99_ms']:.0f} ms to {plan.replicas} replicas, "
        f"{found['failed']} failed; chat p99 {found['p99_ratio']:.2f} times that of the quiet windows"
    )
    return found


async def _measure(
    place: House, mllm: MLLM, urls: Sequence[str], waiting: Sequence[Published], plan: RegisterPlan
) -> dict[str, Any]:
    bodies = [{"messages": on_the_wire(c), "max_tokens": 16} for c in traffic(24)]
    quiet: list[list[Sent]] = []
    busy: list[list[Sent]] = []
    taken: list[float] = []
    left = list(waiting)
    per_window = -(-len(left) // plan.windows)
    clients = [client(url, place.key) for url in urls]
    opened = [await c.__aenter__() for c in clients]
    try:

        async def chat(i: int) -> httpx.Response:
            return await opened[i % len(opened)].post("/chat", json=bodies[i % len(bodies)])

        n = round(plan.rate * plan.window_seconds)
        await paced(chat, plan.rate, max(len(opened), n // 4))
        for window in range(2 * plan.windows):
            if window % 2 == 0:
                quiet.append(await paced(chat, plan.rate, n))
                continue
            load_ = asyncio.create_task(paced(chat, plan.rate, n))
            now, left = left[:per_window], left[per_window:]
            gap = plan.window_seconds / max(1, len(now))
            for expert in now:
                began = time.perf_counter()
                taken.append(await asyncio.to_thread(register, place, mllm.fingerprint, expert))
                await asyncio.sleep(max(0.0, gap - (time.perf_counter() - began)))
            busy.append(await load_)
    finally:
        for c in clients:
            await c.__aexit__(None, None, None)
    return figures(quiet, busy, taken, len(waiting)) | {
        "replicas": plan.replicas,
        "live_before": plan.live,
        "rate": plan.rate,
    }


def figures(
    quiet: Sequence[Sequence[Sent]], busy: Sequence[Sequence[Sent]], taken: Sequence[float], wanted: int
) -> dict[str, Any]:
    """Return what windows without and with registrations come to, and the registrations' seconds.

    Failed are chats without an answer, in either kind of window, and registrations that never were
    acknowledged (infinite seconds, or none at all).
    """
    calm = [s for window in quiet for s in window]
    under = [s for window in busy for s in window]
    done = [s for s in taken if s < ACKNOWLEDGED_SECONDS]
    p99 = {
        "quiet": 1e3 * percentile([s.seconds for s in calm], 99),
        "busy": 1e3 * percentile([s.seconds for s in under], 99),
    }
    return {
        "milliseconds": spread([1e3 * s for s in done]).as_json() if done else None,
        "p99_ms": 1e3 * percentile(done, 99) if done else float("inf"),
        "registered": len(done),
        "failed": failed(calm) + failed(under) + wanted - len(done),
        "chat_ms": {
            "quiet": spread([1e3 * s.seconds for s in calm]).as_json(),
            "busy": spread([1e3 * s.seconds for s in under]).as_json(),
        },
        "chat_p99_ms": p99,
        "p99_ratio": p99["busy"] / p99["quiet"],
    }


def register(place: House, fingerprint: str, expert: Published) -> float:
    """Publish one expert; return seconds until every live replica has acknowledged (infinite: never did).

    From before the transaction begins to the moment at which the last acknowledgement is in the database,
    by the database's own clock.
    """
    with place.sessions.begin() as session:
        began = session.execute(text("SELECT clock_timestamp()")).scalar_one()
        number = RegistryService(session, place.settings).publish(
            request_id=expert.request_id, ref=expert.ref, token=TOKEN, model_fingerprint=fingerprint
        )
    deadline = time.monotonic() + ACKNOWLEDGED_SECONDS
    while time.monotonic() < deadline:
        with place.sessions.begin() as session:
            if RegistryService(session, place.settings).acknowledged(number):
                last = session.execute(
                    text("SELECT max(acknowledged_at) FROM acknowledgements WHERE generation = :number"),
                    {"number": number},
                ).scalar_one()
                return float((last - began).total_seconds())
        time.sleep(_LOOK_SECONDS)
    return float("inf")
