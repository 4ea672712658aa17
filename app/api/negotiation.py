"""Which of two representations a client asked for: HTML or JSON."""

from typing import Literal

Format = Literal["json", "html"]
_ORDER: tuple[tuple[Format, tuple[str, ...]], ...] = (
    ("json", ("application/json", "application/*", "*/*")),
    ("html", ("text/html", "text/*", "*/*")),
)


def preferred(accept: str | None) -> Format:
    """Return what an `Accept` header prefers (RFC 9110, section 12.5.1); JSON if it does not care."""
    ranges = _ranges(accept or "*/*")
    best: Format = "json"
    quality = -1.0
    for name, accepted in _ORDER:
        own = next((ranges[kind] for kind in accepted if kind in ranges), 0.0)  # the most specific one counts
        if own > quality:
            best, quality = name, own
    return best


def _ranges(accept: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for part in accept.split(","):
        kind, *parameters = (piece.strip().lower() for piece in part.split(";"))
        quality = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                try:
                    quality = float(parameter[2:])
                except ValueError:
                    quality = 0.0
        if kind:
            found[kind] = quality
    return found
