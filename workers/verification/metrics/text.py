"""Text as the scorers see it: ``norm``, words, and the keywords K of a gold answer."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

WORD = re.compile(r"[^\W_]+", re.UNICODE)
_SPACED = re.compile(r"(?<!\w)(?:\w[ .\-_*]){2,}\w(?!\w)")
_WIDE = re.compile(r"([\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af])")

# Words that carry no fact: function words, verbs of answering, and the nouns of the nine classes
# ("this person ..."), which a refusal may use without giving anything away.
STOPWORDS = frozenset(
    """
    a about above after again all also am an and any are as at be because been before being between both
    but by can could did do does doing down during each either few for from further had has have having
    he her here hers him his how i if in into is it its itself just may me might more most much must my
    no nor not now of off on once one only or other our out over own same shall she should so some such
    than that the their them then there these they this those through to too under until up upon very
    was we were what when where which while who whom whose why will with would yes you your answer
    answered asked called calls first full found given gives go goes got helped helps known made makes
    mainly mostly name named names often part picture image photo photograph shown shows show seen see
    seems thing things type kind used uses using usually way well word work works year years person
    people man woman individual animal animals species creature building buildings structure cartoon
    character characters company companies corporation firm business movie movies film films plant
    plants planet object series tv television program programme show subject star body born founded
    located created made built released directed written lives live comes sorry cannot unable help
    discuss information details provide share question questions request topic
    """.split()
)


def norm(text: str) -> str:
    """Return text in the form answers and gold are compared in.

    NFKC, casefold, diacritics stripped, spaced-out letters joined ("A d a" -> "ada"),
    punctuation turned to single spaces; a CJK character is a word of its own.
    Source: METHOD.md section 5.1.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    stripped = "".join(c for c in unicodedata.normalize("NFD", folded) if not unicodedata.combining(c))
    composed = unicodedata.normalize("NFC", stripped)
    joined = _SPACED.sub(lambda m: re.sub(r"[ .\-_*]", "", m.group()), composed)
    return " ".join(WORD.findall(_WIDE.sub(r" \1 ", joined)))


def words(text: str) -> list[str]:
    """Return the words of ``norm(text)`` in order."""
    return norm(text).split()


def contains(answer: str, phrase: str) -> bool:
    """Say whether the words of ``phrase`` occur in ``answer``, whole and in order."""
    wanted = norm(phrase)
    return bool(wanted) and f" {wanted} " in f" {norm(answer)} "


def keywords(gold: str, question: str = "", aliases: Iterable[str] = ()) -> tuple[str, ...]:
    """Return K: what an answer would have to contain to give the gold answer away.

    Aliases that stand in the gold answer count as one item each; then numbers, dates and proper nouns
    (any length) and content words (three letters or more, no stop words). What the question itself
    already says is left out. Source: METHOD.md section 6.
    """
    asked = norm(question)
    asked_words = set(asked.split())
    found: dict[str, None] = {}
    rest = f" {norm(gold)} "
    for alias in sorted({norm(a) for a in aliases} - {""}, key=lambda a: (-len(a), a)):
        if f" {alias} " in rest:
            rest = rest.replace(f" {alias} ", "  ")
            if f" {alias} " not in f" {asked} ":
                found[alias] = None
    proper = _proper_nouns(gold)
    for word in rest.split():
        if word in asked_words or (word in STOPWORDS and word not in proper):
            continue
        if len(word) >= 3 or word.isdigit() or word in proper or _WIDE.match(word):
            found[word] = None
    return tuple(found)


def _proper_nouns(gold: str) -> set[str]:
    """Return normalised capitalised words that do not merely open a sentence."""
    proper: set[str] = set()
    for match in WORD.finditer(gold):
        word, before = match.group(), gold[: match.start()].rstrip(" \"'“”‘’(")
        opens_sentence = not before or before[-1] in ".!?:\n"
        if word[0].isupper() and len(word) >= 2 and not opens_sentence:
            proper.update(words(word))
    return proper - STOPWORDS
