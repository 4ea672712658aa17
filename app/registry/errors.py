"""What can go wrong with the registry."""

from app.kit.errors import Conflict, NotFound


class GenerationNotFound(NotFound):
    """No such generation."""

    TYPE = "generation-not-found"
    TITLE = "No such generation"


class NotPublishing(Conflict):
    """The request is not being published."""

    TYPE = "not-publishing"
    TITLE = "The request is not being published"


class NotLive(Conflict):
    """The request has no live expert."""

    TYPE = "not-live"
    TITLE = "The request has no live expert"
