"""Worker processes that kill themselves: SIGKILL at a named point between two steps of a request.

    python -m tests.workers.doomed DATABASE_URL REDIS_URL EXPERTS_DIR MODEL

loads the model once, then reads lines `REQUEST POINT` and forks a worker for each, which works on the request
as a worker does, up to the point. It answers with its exit status (-9: it was killed there). The point
`-` lets it finish, `in:0.4` has it killed after so many seconds wherever it is.
"""

import os
import signal
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from app.kit.logging import configure_logging
from app.lumoe.mllm import MLLM
from app.settings import load_settings
from tests.service import Service
from tests.workers.pipeline_world import AGAIN, build_world
from workers.attempt import Attempt
from workers.pipeline import Job, process

POINTS = (
    "before:enter:prepare", "before:progress:prepare", "before:enter:train", "after:save:train",
    "before:enter:calibrate", "after:save:calibrate", "before:enter:verify", "before:save:verify",
    "before:enter:publish", "before:progress:publish", "before:_activate", "after:_activate",
)  # fmt: skip
"""`before` or `after` a method of the attempt, with its first argument."""


def doom(point: str) -> None:
    """Have this process killed at the point."""
    when, name, *stage = point.split(":")
    if when == "in":
        timer = threading.Timer(float(name), os.kill, (os.getpid(), signal.SIGKILL))
        timer.daemon = True
        timer.start()
        return
    owner: Any = Job if name in vars(Job) else Attempt
    whole = getattr(owner, name)

    def doomed(self: Any, *arguments: Any, **named: Any) -> Any:
        here = not stage or arguments[0] == stage[0]
        if here and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = whole(self, *arguments, **named)
        if here:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, doomed)


def main(database_url: str, redis_url: str, experts_dir: str, model: str) -> None:
    """Serve lines from standard input until it ends."""
    configure_logging()
    settings = load_settings(_env_file=None, database_url=database_url, redis_url=redis_url, device="cpu")
    service = cast("Service", SimpleNamespace(settings=settings))
    world = build_world(service, MLLM.load(model, "cpu"), pytest.MonkeyPatch(), Path(experts_dir))
    world.runtime.negatives()
    world.runtime.utility(AGAIN.utility)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        request_id, point = line.split()
        pid = os.fork()
        if pid == 0:
            if point != "-":
                doom(point)
            process(world.runtime, request_id)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        sys.stdout.write(f"{status}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
