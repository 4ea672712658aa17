"""Subject names as people type them, brought to one form for comparison."""

import unicodedata

PLAIN_TEXT = r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]*$"
"""What text without control characters but tab and newlines looks like, for request models' `pattern`."""


def canonical_name(name: str) -> str:
    """Return `name` for comparison: NFKC, case folded, no diacritics, words joined by one space.

    >>> canonical_name("  ÉLODIE   O’Hara ")
    'elodie o hara'
    """
    decomposed = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", name).casefold())
    letters = (c for c in decomposed if not unicodedata.combining(c))
    return " ".join("".join(c if c.isalnum() else " " for c in letters).split())


def has_letters(text: str) -> bool:
    """Tell whether `text` has at least one letter or digit of any script (an emoji is neither)."""
    return any(c.isalnum() for c in text)


def control_character(text: str) -> str | None:
    """Return the code point (`U+0000`) of the first control character but tab and newlines, or None."""
    for c in text:
        if unicodedata.category(c) in ("Cc", "Cs") and c not in "\t\n\r":
            return f"U+{ord(c):04X}"
    return None
