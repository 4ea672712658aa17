"""Seeded randomness: the same parts give the same numbers on every machine and Python version."""

from random import Random


def seeded(*parts: object) -> Random:
    """Return a generator seeded by the text of ``parts`` (Python hashes text seeds with SHA-512)."""
    return Random("/".join(map(str, parts)))  # noqa: S311 - drawings and names, not secrets
