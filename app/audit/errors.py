"""What can go wrong with the audit trail."""

from app.kit.errors import Conflict, Example, NotFound


class ChainBroken(Conflict):
    """The audit chain contradicts itself or an earlier checkpoint, so it is not signed for."""

    TYPE = "audit-chain-broken"
    TITLE = "The audit chain is broken"
    HINT = (
        "Somebody changed the database. `POST /audit/verify` says where; compare with an export that was "
        "kept, and find out who before going on."
    )
    EXAMPLE = Example("Event 118: its hash is not that of its content.")


class NotCovered(NotFound):
    """No such event, or no checkpoint that covers it."""

    TYPE = "not-covered"
    TITLE = "Nothing to prove"
    HINT = "Check the number; `GET /audit/events` lists what this key may see."
    EXAMPLE = Example("There is no event 4120.")
