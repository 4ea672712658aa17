"""Names that texts are searched for, and that others are compared with: as quick for 10,000 as for one."""

from __future__ import annotations

from collections.abc import Iterable

from workers.verification.metrics.text import norm


class Names:
    """A set of names, compared whole, ignoring case, accents and punctuation.

    Made once for many texts: those of earlier subjects are as many as there are requests.

    >>> Names(["Élodie Brandt"]).occur_in("Who is ELODIE BRANDT?")
    True
    >>> Names(["Ada"]).occur_in("An adage")
    False
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._names = {norm(name) for name in names} - {""}
        self._lengths = sorted({len(name.split()) for name in self._names})

    def occur_in(self, text: str) -> bool:
        """Say whether one of them occurs in a text."""
        words = norm(text).split() if self._names else []
        return any(
            " ".join(words[at : at + length]) in self._names
            for length in self._lengths
            for at in range(len(words) - length + 1)
        )

    def borne_by(self, names: Iterable[str]) -> bool:
        """Say whether somebody of these names bears one of them."""
        return not self._names.isdisjoint({norm(name) for name in names})
