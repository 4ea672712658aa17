"""The engine whose tokens come from vLLM servers: gate and guard here, writing there."""

from __future__ import annotations

from app.lumoe.engines.fleet import Fleet
from app.lumoe.engines.queued import MAX_WAITING, QueuedEngine
from app.lumoe.router import Router

CONCURRENT = 64
"""Conversations that are answered at once by one process; more wait. The replicas batch by themselves."""


class VllmEngine(QueuedEngine):
    """Every conversation by itself, many at a time: a thread waits, a replica computes; see `QueuedEngine`.

    `router` must have been built with `fleet` as its writer; closing the engine closes the fleet.
    """

    def __init__(
        self,
        router: Router,
        fleet: Fleet,
        *,
        concurrent: int = CONCURRENT,
        max_waiting: int = MAX_WAITING,
        timeout: float | None = None,
    ) -> None:
        if router.writer is not fleet:
            raise ValueError("the router writes elsewhere than to this fleet")
        self.fleet = fleet
        super().__init__(router, threads=concurrent, max_waiting=max_waiting, timeout=timeout)

    def close(self) -> None:
        """Finish what is running, refuse what waits, leave the replicas."""
        super().close()
        self.fleet.close()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            job.begun = True
            self.on_batch(1)
            self._answer_together([job])
