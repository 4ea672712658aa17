"""Time to the first byte of every dashboard page: `python -m benchmarks.dashboard [--n 100] [--json FILE]`.

Starts a real Postgres and Valkey in a directory of their own, writes ten thousand requests with all that
belongs to them, starts one API process without a model, logs in, and asks for each page `n` times over one
connection, the pages in turn. The session is checked and the database asked with every request, as always.

Besides the time that passes, it reports the time that API and database compute for a page (Linux alone): on a
machine that is busy with something else, the first says how busy, the second what the page costs.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table
from sqlalchemy import text

from app.accounts.service import create_key
from app.db.session import create_engine_from, session_factory
from app.embedded.process import free_port
from app.settings import load_settings
from benchmarks.dashboard_data import fill
from benchmarks.output import write_json
from benchmarks.servers import servers

TARGET_MS = 100.0
MOST_BYTES = 150_000
SERVE = (
    "import sys, uvicorn; from app.main import create_app; "
    "uvicorn.run(create_app(with_engine=False), host='127.0.0.1', port=int(sys.argv[1]), log_level='warning')"
)


def pages(active: str, working: str) -> dict[str, str]:
    """Return the address of every page that is measured, by its name."""
    return {
        "overview": "/dashboard",
        "requests": "/dashboard/requests",
        "requests, one state": "/dashboard/requests?state=rejected",
        "new request": "/dashboard/requests/new",
        "request, active": f"/dashboard/requests/{active}",
        "request, worked on": f"/dashboard/requests/{working}",
        "live part": f"/dashboard/requests/{working}/live",
        "report": f"/dashboard/requests/{active}/report",
        "queue": "/dashboard/queue",
        "review": f"/dashboard/requests/{active}/review",
        "registry": "/dashboard/registry",
        "policy": "/dashboard/policy",
        "playground": "/dashboard/playground",
        "verification": "/dashboard/verification",
        "audit": "/dashboard/audit",
        "audit of one request": f"/dashboard/audit?about={active}",
        "audit, one kind": "/dashboard/audit?kind=request.activate",
    }


@contextmanager
def service(folder: Path, console: Console, requests: int, active: int) -> Iterator[tuple[str, str, Any]]:
    """Yield the URL of a service on a full database, an operator's key, and what the database holds."""
    with servers(folder) as (url, redis_url):
        settings = load_settings(_env_file=None, database_url=url, redis_url=redis_url)
        engine = create_engine_from(settings)
        sessions = session_factory(engine)
        with sessions.begin() as session:
            key = create_key(session, tenant="root", scopes=["owner", "operator", "auditor", "chat"])
        console.print(f"Writing {requests:,} requests")
        with sessions.begin() as session:
            rows = fill(session, requests=requests, active=active, tenant_id=key.tenant_id, key_id=key.id)
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM ANALYZE"))  # as autovacuum does soon
        ids = {}
        with sessions.begin() as session:
            for state in ("active", "training"):
                newest = "SELECT max(id) FROM removal_requests WHERE state = :state"
                ids[state] = session.execute(text(newest), {"state": state}).scalar_one()
        engine.dispose()
        with _api(url, redis_url) as (address, pid):
            yield address, key.secret, {"rows": rows, "url": url, "pid": pid, **ids}


@contextmanager
def _api(database_url: str, redis_url: str) -> Iterator[tuple[str, int]]:
    port = free_port()
    given = {
        "LETHE_DATABASE_URL": database_url,
        "LETHE_REDIS_URL": redis_url,
        "LETHE_CHECKPOINT_SECONDS": "1e9",
    }
    process = subprocess.Popen(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", SERVE, str(port)], env={**os.environ, **given}
    )
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                httpx.get(f"{address}/healthz", trust_env=False).raise_for_status()
                break
            except httpx.TransportError:
                if time.monotonic() > deadline or process.poll() is not None:
                    raise
                time.sleep(0.1)
        yield address, process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)


def cpu_clock(pid: int) -> int:
    """Return the clock of a process's CPU time, threads that have ended included.

    Raises `ProcessLookupError` if there is none.
    """
    clock = ctypes.c_int()
    if ctypes.CDLL(None).clock_getcpuclockid(pid, ctypes.byref(clock)):
        raise ProcessLookupError(pid)
    return clock.value


class Computed:
    """CPU time of the API process and of the database's processes that answer it now, if it has one.

    Those connections must be there already: ask once before.
    """

    def __init__(self, api: int, postgres_url: str | None) -> None:
        self._clocks = [cpu_clock(api)]
        if postgres_url is None:
            return
        engine = create_engine_from(load_settings(_env_file=None, database_url=postgres_url), connections=2)
        with engine.connect() as connection:
            mine = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
            found = connection.execute(text("SELECT pid FROM pg_stat_activity WHERE datname = 'bench'"))
            self._clocks += [cpu_clock(pid) for pid in found.scalars() if pid != mine]
        engine.dispose()

    def milliseconds(self) -> float:
        """Return what they have computed since they started."""
        return sum(1e3 * time.clock_gettime(clock) for clock in self._clocks)


def log_in(client: httpx.Client, key: str) -> None:
    """Log in as a person would."""
    form = client.get("/dashboard/login").text
    token = re.search(r'name="csrf" value="([^"]+)"', form)
    assert token is not None, form  # noqa: S101
    client.post("/dashboard/login", data={"csrf": token[1], "key": key}).raise_for_status()


def measure(
    client: httpx.Client, wanted: Mapping[str, str], n: int, computed: Computed
) -> dict[str, dict[str, float]]:
    """Ask for every page `n` times, in turn; return milliseconds to the first byte, computed ones, bytes."""
    cpu: dict[str, list[float]] = {name: [] for name in wanted}
    taken: dict[str, list[float]] = {name: [] for name in wanted}
    sizes: dict[str, int] = {}
    for turn in range(n + 3):  # three to warm up
        for name, path in wanted.items():
            before, start = computed.milliseconds(), time.perf_counter()
            with client.stream("GET", path) as answer:
                pieces = answer.iter_raw()
                content = next(pieces)
                first = time.perf_counter() - start
                content += b"".join(pieces)
            if answer.status_code != httpx.codes.OK:
                raise RuntimeError(f"{path} was answered {answer.status_code}: {content[:300]!r}")
            sizes[name] = len(content)
            if turn >= 3:
                taken[name].append(1000 * first)
                cpu[name].append(computed.milliseconds() - before)
    return {
        name: {
            "median_ms": statistics.median(values),
            "p95_ms": statistics.quantiles(values, n=20)[-1],
            "max_ms": max(values),
            "cpu_median_ms": statistics.median(cpu[name]),
            "cpu_p95_ms": statistics.quantiles(cpu[name], n=20)[-1],
            "n": len(values),
            "bytes": sizes[name],
        }
        for name, values in taken.items()
    }


def run(n: int, requests: int, active: int, console: Console) -> dict[str, Any]:
    """Measure, and return the figures."""
    with (
        tempfile.TemporaryDirectory(prefix="lethe-bench-") as folder,
        service(Path(folder), console, requests, active) as (address, key, made),
        httpx.Client(base_url=address, trust_env=False, timeout=60, follow_redirects=True) as client,
    ):
        log_in(client, key)
        assets = sum(
            len(client.get(f"/dashboard/static/{name}").content)
            for name in ("style.css", "lethe.js", "mark.svg")
        )
        wanted = pages(made["active"], made["training"])
        for path in wanted.values():
            client.get(path).raise_for_status()  # so that the database's processes are there
        found = measure(client, wanted, n, Computed(made["pid"], made["url"]))
    return {
        "requests": requests,
        "active": active,
        "load_average": os.getloadavg()[0],
        "rows": made["rows"],
        "assets_bytes": assets,
        "pages": found,
    }


def show(found: dict[str, Any], console: Console) -> bool:
    """Print the figures, and return whether every page is within the targets."""
    title = f"First byte with {found['requests']:,} requests, {found['active']:,} of them active"
    table = Table(
        "page", "median ms", "p95 ms", "cpu median", "cpu p95", "n", "kB with assets", "", title=title
    )
    good = True
    for name, figures in found["pages"].items():
        whole = figures["bytes"] + found["assets_bytes"]
        met = figures["p95_ms"] <= TARGET_MS and whole <= MOST_BYTES
        good = good and met
        table.add_row(
            name,
            *(f"{figures[key]:.1f}" for key in ("median_ms", "p95_ms", "cpu_median_ms", "cpu_p95_ms")),
            str(figures["n"]),
            f"{whole / 1000:.1f}",
            "pass" if met else "FAIL",
        )
    console.print(table)
    return good


def main() -> None:
    """Parse the command line, measure, print, write; exit with 1 if a page is too slow or too large."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--n", type=int, default=100, help="how often each page is asked for")
    parser.add_argument("--requests", type=int, default=10_000, help="in the database")
    parser.add_argument("--active", type=int, default=1_000, help="of them, each with an expert")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    console = Console()
    found = run(arguments.n, arguments.requests, arguments.active, console)
    good = show(found, console)
    if arguments.json:
        write_json(arguments.json, found)
    raise SystemExit(not good)


if __name__ == "__main__":
    main()
