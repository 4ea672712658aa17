"""A process that loads the model once and forks workers and replicas, which may be made to fail.

    LETHE_DATABASE_URL=... LETHE_REDIS_URL=... LETHE_EXPERTS_DIR=... python -m tests.faults.nursery MODEL

reads one JSON document a line and answers each with one:

    {"start": "attempt", "request": ID, "faults": {...}}    a worker that takes the request up once
    {"start": "celery", "faults": {...}}                    a Celery worker with its pool and its outbox
    {"start": "api", "port": N, "faults": {...}}            an API process that serves and acknowledges
        -> {"pid": N}
    {"wait": PID, "seconds": 5} -> {"status": N or null}    how it ended, -9 if it was killed

What it forks is what production runs, around a tiny model with small sets (tests/workers/pipeline_world.py);
only the pool forks instead of spawning, so that the model need not be loaded again. Faults:

    point, signal    the signal (KILL, STOP) is sent at a named point between two steps (see `POINTS`)
    after, signal    it is sent after so many seconds, wherever the process is
    latch            a file: whoever creates it gets the fault, everybody after it none
    clock            the process's clock jumps by so many seconds when it enters the stage `train`
    disk             `prepare`, `train` or `calibrate`: while its files are written the disk is full
    memory           training asks for more memory than there is
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from app.kit.logging import configure_logging
from app.lumoe.mllm import MLLM
from app.registry.repository import ReplicaRepository
from app.settings import get_settings
from tests.faults.clock import set_clock
from tests.service import Service
from tests.workers.pipeline_world import AGAIN, PipelineWorld, build_world
from workers import stages
from workers.attempt import Attempt
from workers.pipeline import Job, process
from workers.workdir import WorkDirectory

POINTS = (
    "before:enter:prepare", "before:progress:prepare", "before:enter:train", "after:save:train",
    "before:enter:calibrate", "after:save:calibrate", "before:enter:verify", "before:save:verify",
    "before:enter:publish", "before:progress:publish", "before:_activate", "after:_activate",
)  # fmt: skip
"""`before` or `after` a method of the attempt, with its first argument."""

FULL_DISK_BYTES = 512
TOO_MUCH_BYTES = 1 << 30
_PR_SET_PDEATHSIG = 1
Faults = dict[str, Any]


def install(faults: Faults) -> None:
    """Have this process, or those that it forks, fail as asked."""
    signum = signal.Signals[f"SIG{faults.get('signal', 'KILL')}"]
    latch = faults.get("latch")

    def strike() -> None:
        if latch is None or _first(Path(latch)):
            os.kill(os.getpid(), signum)

    if "after" in faults:
        timer = threading.Timer(float(faults["after"]), strike)
        timer.daemon = True
        timer.start()
    if "point" in faults:
        _at_point(str(faults["point"]), strike)
    if "clock" in faults:
        _at_point("after:enter:train", lambda: set_clock(float(faults["clock"])))
    if "disk" in faults:
        _fill_disk(str(faults["disk"]))
    if "memory" in faults:
        _exhaust_memory()


def _first(latch: Path) -> bool:
    try:
        latch.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def _at_point(point: str, strike: Callable[[], object]) -> None:
    when, name, *stage = point.split(":")
    owner: Any = next(kind for kind in (Job, Attempt, ReplicaRepository) if name in vars(kind))
    whole = getattr(owner, name)

    def struck(self: Any, *arguments: Any, **named: Any) -> Any:
        here = not stage or str(arguments[0]) == stage[0]
        if owner is ReplicaRepository:
            here = arguments[1] > 0 and _has_experts(self, arguments[1])
        if here and when == "before":
            strike()
        result = whole(self, *arguments, **named)
        if here and when == "after":
            strike()
        return result

    setattr(owner, name, struck)


def _has_experts(replicas: ReplicaRepository, generation: int) -> bool:
    from app.registry.repository import GenerationRepository

    return len(GenerationRepository(replicas.session).experts(generation)) > 0


def _fill_disk(stage: str) -> None:
    """No file may grow over a few hundred bytes: more fails (EFBIG; a full disk says ENOSPC)."""
    places: dict[str, tuple[Any, str]] = {
        "prepare": (WorkDirectory, "write"),
        "train": (stages, "train"),
        "calibrate": (stages, "write_candidate"),
    }
    owner, name = places[stage]
    whole = getattr(owner, name)

    def full(*arguments: Any, **named: Any) -> Any:
        with _limited(resource.RLIMIT_FSIZE, FULL_DISK_BYTES):
            return whole(*arguments, **named)

    setattr(owner, name, full)


def _exhaust_memory() -> None:
    """Training asks for a gigabyte that the address space may not grow by: torch's own error, no kill."""
    whole = stages.train

    def hungry(*arguments: Any, **named: Any) -> Any:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        with _limited(resource.RLIMIT_AS, used + TOO_MUCH_BYTES // 4):
            torch.zeros(TOO_MUCH_BYTES, dtype=torch.uint8)
        return whole(*arguments, **named)

    stages.train = hungry


@contextmanager
def _limited(what: int, limit: int) -> Iterator[None]:
    before = resource.getrlimit(what)
    resource.setrlimit(what, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(what, before)


def attempt(world: PipelineWorld, order: dict[str, Any]) -> None:
    """Take the request up once, as the Celery task does."""
    process(world.runtime, str(order["request"]))


def celery(world: PipelineWorld, order: dict[str, Any]) -> None:
    """Run the worker's main process: consumer, pool, outbox."""
    from workers import celery_app, tasks

    tasks.runtime = cast("Any", lambda: world.runtime)
    celery_app.app.conf.worker_pool_start_method = "fork"
    celery_app.app.worker_main(
        ["worker", "--loglevel", "INFO", "--concurrency", "1", "--without-mingle", "--without-gossip",
         "--hostname", f"worker-{os.getpid()}@localhost"]
    )  # fmt: skip


def api(world: PipelineWorld, order: dict[str, Any]) -> None:
    """Run an API process that serves the tiny model."""
    import uvicorn

    from app import main
    from app.chat.service import ChatEngine

    def start(settings: Any, sessions: Any) -> ChatEngine:
        engine = ChatEngine(settings, world.runtime.mllm, sessions)
        engine.agent.start()
        return engine

    main._start_engine = start
    uvicorn.run(main.create_app(get_settings()), host="127.0.0.1", port=int(order["port"]), log_config=None)


KINDS = {"attempt": attempt, "celery": celery, "api": api}


def _start(world: PipelineWorld, order: dict[str, Any]) -> int:
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        os.setsid()
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, 0)
        os.dup2(2, 1)  # what is printed must not get among the answers
        install(order.get("faults", {}))
        KINDS[str(order["start"])](world, order)
        status = 0
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else 1
    finally:
        sys.stderr.flush()
        os._exit(status)


def _wait(pid: int, seconds: float, ended: dict[int, int]) -> int | None:
    deadline = time.monotonic() + seconds
    while pid not in ended:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            ended[pid] = os.waitstatus_to_exitcode(status)
            break
        if time.monotonic() >= deadline:
            return None
        time.sleep(0.005)
    return ended[pid]


def main(model: str) -> None:
    """Serve lines from standard input until it ends."""
    configure_logging()
    settings = get_settings()
    service = cast("Service", SimpleNamespace(settings=settings))
    world = build_world(service, MLLM.load(model, "cpu"), pytest.MonkeyPatch(), settings.experts_dir)
    world.runtime.negatives()
    world.runtime.utility(AGAIN.utility)
    answers, ended = sys.stdout, dict[int, int]()
    print("{}", file=answers, flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        if "start" in order:
            answer: dict[str, Any] = {"pid": _start(world, order)}
        else:
            answer = {"status": _wait(int(order["wait"]), float(order["seconds"]), ended)}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
