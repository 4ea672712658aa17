"""What rolling back to an earlier generation means, as a function of what there is."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from app.db.models import Expert

SERVED: Final = frozenset({"active", "publishing"})
"""States in which an expert of an earlier generation may come back."""


@dataclass(frozen=True, slots=True)
class Standing:
    """A request that was approved and has not ended (one that failed stands: its subject is refused)."""

    request_id: str
    tenant_id: str
    state: str


@dataclass(frozen=True, slots=True)
class Restored:
    """The generation to make.

    Args:
        experts: (id, version) of its members.
        refused: requests that stand without an expert, whose subjects interim protection must refuse.
        kept: how many requests keep a later expert, because the earlier generation had none of theirs.
        dropped: how many experts of the earlier generation do not come back.
    """

    experts: tuple[tuple[str, int], ...]
    refused: tuple[Standing, ...]
    kept: int
    dropped: int


def restore(
    standing: Sequence[Standing], then: Iterable[Expert], now: Iterable[Expert], newest: Iterable[Expert]
) -> Restored:
    """Return what the new generation has: the earlier one, as far as today's requests allow it.

    - A request that has ended gets nothing back, whatever the earlier generation had.
    - An active request, or one that is being published, gets the version that it had then.
    - An active request that had none then keeps the one it has; if it has none, the newest that was written.
    - Everybody else who was approved is refused without an expert.

    Args:
        standing: every request that was approved and has not ended.
        then: experts of the earlier generation.
        now: those of the newest one.
        newest: the newest version of every expert there ever was.
    """
    back = {expert.request_id: expert for expert in then}
    live = {expert.request_id: expert for expert in now}
    written = {expert.request_id: expert for expert in newest}
    experts: list[tuple[str, int]] = []
    refused: list[Standing] = []
    kept = 0
    for request in standing:
        own = back.get(request.request_id) if request.state in SERVED else None
        if own is None and request.state == "active":
            own = live.get(request.request_id) or written.get(request.request_id)
            kept += own is not None
        if own is None:
            refused.append(request)
        else:
            experts.append((own.id, own.version))
    may = {request.request_id for request in standing if request.state in SERVED}
    return Restored(tuple(experts), tuple(refused), kept, len(back.keys() - may))
