"""Stop strings on a stream: nothing of one leaves, however the text is cut into pieces."""

from __future__ import annotations

from collections.abc import Sequence


class StopFilter:
    """Passes text on up to the first stop string, and holds back what may be the beginning of one.

    The first is the one that is complete first; of two that end at the same place, the longer.
    Put it behind the output guard, never before it: text cut within a name is a name no more.
    """

    def __init__(self, stops: Sequence[str] = ()) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.text = ""
        self.hit = False

    def feed(self, text: str) -> str:
        """Take more text; return what may leave of everything that was taken."""
        if self.hit:
            return ""
        self._held += text
        found = [(at + len(stop), at) for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if found:
            self.hit = True
            return self._leave(min(found)[1])
        return self._leave(len(self._held) - self._begun())

    def flush(self) -> str:
        """Return what was held back, now that the text has ended; nothing after a stop string."""
        return "" if self.hit else self._leave(len(self._held))

    def _leave(self, length: int) -> str:
        piece, self._held = self._held[:length], self._held[length:]
        self.text += piece
        return piece

    def _begun(self) -> int:
        """Return how many characters at the end may be the beginning of a stop string."""
        longest = max((len(stop) for stop in self._stops), default=1) - 1
        return next(
            (
                n
                for n in range(min(longest, len(self._held)), 0, -1)
                if any(stop.startswith(self._held[-n:]) for stop in self._stops if len(stop) > n)
            ),
            0,
        )
