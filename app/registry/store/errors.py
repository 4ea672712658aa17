"""What can go wrong between us and the place where experts lie. Damaged files are `ExpertCorruptError`."""

from app.kit.errors import ConfigurationError


class StoreError(Exception):
    """The store did not do what it was asked; nothing that it holds was changed."""


class StoreUnavailableError(StoreError):
    """It does not answer, or fails: the same may work later."""


class StoreRefusedError(StoreError, ConfigurationError):
    """It refuses us, or the bucket is not there: somebody must correct a setting or a permission first."""


class VersionTakenError(StoreError):
    """Other files lie where a version was to be published; versions never change: take the next number."""
