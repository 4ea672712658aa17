"""Who is asking."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is asking.

    Args:
        key_id: id of the API key; the actor of everything it does.
        tenant_id: the key's tenant.
        scopes: what it may do.
        root: whether it sees all tenants.
    """

    key_id: str
    tenant_id: str
    scopes: frozenset[str]
    root: bool

    @property
    def sees(self) -> str | None:
        """The tenant whose objects it may see; None for all."""
        return None if self.root else self.tenant_id
