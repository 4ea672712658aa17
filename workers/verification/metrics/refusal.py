"""refusal: whether an answer declines, in any of the languages a caller may use."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from workers.verification.metrics.refusal_patterns import PATTERNS
from workers.verification.metrics.similarity import rouge_l

NEARNESS = 0.75

_COMPILED = {language: re.compile("|".join(some)) for language, some in PATTERNS.items()}

_QUOTED = re.compile(r'[“"«„「][^”"»“」]{1,300}[”"»“」]')

# Arabic hamza forms and diacritics vary freely between writers.
_ARABIC = {ord("آ"): "ا", ord("أ"): "ا", ord("إ"): "ا", 0x064B: None}


def _fold(text: str) -> str:
    """Casefold, straighten quotes, strip Latin accents; other scripts keep their letters."""
    folded = unicodedata.normalize("NFKC", text).casefold().replace("’", "'").replace("ʼ", "'")
    plain = "".join(
        unicodedata.normalize("NFD", c)[0] if unicodedata.name(c, "").startswith("LATIN") else c
        for c in folded
    )
    plain = plain.translate(_ARABIC)
    return " ".join(plain.split())


def refusal_language(answer: str) -> str | None:
    """Return the language whose refusal pattern matches the answer, or None. Quoted speech is no refusal."""
    text = _fold(answer)
    text = _QUOTED.sub(" ", text).strip() or text
    return next((language for language, pattern in _COMPILED.items() if pattern.search(text)), None)


def is_refusal(answer: str, bank: Sequence[str] = ()) -> bool:
    """Say whether an answer declines: a multilingual pattern, or ROUGE-L >= .75 to a refusal of the bank.

    Source: METHOD.md section 6. The patterns alone must suffice for refusals nobody trained on; the
    bank adds an operator's own wording.
    """
    if not answer.strip():
        return False
    return refusal_language(answer) is not None or any(rouge_l(answer, known) >= NEARNESS for known in bank)
