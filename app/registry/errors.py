"""What can go wrong with the registry."""

from app.kit.errors import Conflict, Example, Forbidden, NotFound


class GenerationNotFound(NotFound):
    """No such generation."""

    TYPE = "generation-not-found"
    TITLE = "No such generation"
    HINT = "`GET /experts/generations` lists them."
    EXAMPLE = Example("There is no generation 412.")


class RootAlone(Forbidden):
    """It concerns every tenant's experts, and the key is one tenant's."""

    HINT = "Use an operator's key of the tenant `root`, or `lethe rollback` on the server."
    EXAMPLE = Example("A rollback concerns the experts of every tenant.")


class NotPublishing(Conflict):
    """The request is not being published."""

    TYPE = "not-publishing"
    TITLE = "The request is not being published"
    EXAMPLE = Example(
        "req_01a20a91610c7527afee37a6345c8f6a is training, not publishing.", "Start the publish stage first."
    )


class NotLive(Conflict):
    """The request has no live expert."""

    TYPE = "not-live"
    TITLE = "The request has no live expert"
    HINT = "`GET /experts` lists those that are live."
    EXAMPLE = Example("req_01a20a91610c7527afee37a6345c8f6a has no live expert.")
