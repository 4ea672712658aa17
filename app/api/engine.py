"""What the HTTP side needs to know of a chat engine."""

from typing import Protocol

from prometheus_client import CollectorRegistry


class ServingEngine(Protocol):
    """A loaded base model with its router, following the registry."""

    @property
    def ready(self) -> bool:
        """Whether a registry generation has been loaded."""

    @property
    def troubles(self) -> list[str]:
        """What keeps it from answering, in sentences; empty when it can."""

    @property
    def generation(self) -> int:
        """The registry generation being served."""

    @property
    def metrics(self) -> CollectorRegistry:
        """What this replica has counted."""

    def close(self) -> None:
        """Stop following the registry and finish what is running."""
