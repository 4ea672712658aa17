"""All faults by name."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from tests.faults import attempts, services
from tests.faults.house import House, Injected, Judgement

Inject = Callable[[House, random.Random], Injected]
BRIEF = (
    attempts.killed_at_points,
    attempts.stopped_past_the_lease,
    attempts.delivered_twice,
    attempts.candidate_damaged,
    services.queue_flushed,
)
"""The most telling ones for their price, part of every run of the suite."""

LONG = (
    attempts.killed_at_random,
    attempts.stopped_until_both_work,
    attempts.clock_jumps,
    attempts.out_of_memory,
    attempts.out_of_memory_every_time,
    attempts.disk_full,
    attempts.live_expert_damaged,
    attempts.connections_killed,
    attempts.cancelled_and_killed,
    services.broker_restarted,
    services.broker_half_open,
    services.pool_child_killed,
    services.worker_killed,
    services.worker_terminated,
    services.two_workers_one_message,
    services.replica_killed,
    services.only_replica_killed,
    services.database_restarted,
    services.database_crashed,
    services.connections_killed_everywhere,
)
RANDOM = attempts.killed_at_random.__name__
FAULTS: Mapping[str, Inject] = MappingProxyType({fault.__name__: fault for fault in (*BRIEF, *LONG)})


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one injection did, and what became of it."""

    injected: int
    judgement: Judgement


def run(house: House, name: str, seed: int) -> Outcome:
    """Inject the fault into an empty house, and judge. What is there afterwards can be looked at."""
    house.empty()
    injected = FAULTS[name](house, random.Random(f"{name} {seed}"))
    with house.replica():
        return Outcome(injected.times, house.judge(injected))
