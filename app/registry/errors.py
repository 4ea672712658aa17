"""What can go wrong with the registry."""

from app.kit.errors import Conflict, Forbidden, NotFound


class GenerationNotFound(NotFound):
    """No such generation."""

    TYPE = "generation-not-found"
    TITLE = "No such generation"


class RootAlone(Forbidden):
    """It concerns every tenant's experts, and the key is one tenant's."""

    HINT = "Use an operator's key of the tenant `root`, or `lethe rollback` on the server."


class NotPublishing(Conflict):
    """The request is not being published."""

    TYPE = "not-publishing"
    TITLE = "The request is not being published"


class NotLive(Conflict):
    """The request has no live expert."""

    TYPE = "not-live"
    TITLE = "The request has no live expert"
