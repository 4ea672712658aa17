"""The engine whose tokens come from vLLM servers: gate and guard here, writing there."""

from __future__ import annotations

from app.lumoe.engines.fleet import Fleet
from app.lumoe.engines.local import LocalEngine
from app.lumoe.router import Router

CONCURRENT = 64
"""Conversations that are answered at once by one process; more wait. The replicas batch by themselves."""


class VllmEngine(LocalEngine):
    """As `LocalEngine`, but every conversation by itself, many at a time: a thread waits, a replica computes.

    `router` must have been built with `fleet` as its writer; closing the engine closes the fleet.
    """

    def __init__(self, router: Router, fleet: Fleet, *, concurrent: int = CONCURRENT) -> None:
        if router.writer is not fleet:
            raise ValueError("the router writes elsewhere than to this fleet")
        self.fleet = fleet
        super().__init__(router, threads=concurrent, largest_batch=1)

    def close(self) -> None:
        """Finish what is running, refuse what waits, leave the replicas."""
        super().close()
        self.fleet.close()
