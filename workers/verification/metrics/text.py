"""Text as the scorers see it: ``norm``, words, and the keywords K of a gold answer."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

# Letters and digits; in Indic and Thai scripts vowel signs belong to the word.
WORD = re.compile(r"(?:[^\W_]|[\u0900-\u0963\u0966-\u0dff\u0e00-\u0e4e])+", re.UNICODE)
_SPACED = re.compile(r"(?<!\w)(?:\w[ .\-_*]){2,}\w(?!\w)")
_WIDE = re.compile(r"([\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af])")
_ACCENTS = re.compile(r"[\u0300-\u036f\u064b-\u065f]")
_ENDINGS = frozenset(("", *"s es ed d ing e en n t te o a i os as".split()))

# Characters of scripts without spaces that carry no fact by themselves: particles, copulas, pronouns.
_PARTICLES = frozenset(
    "的是了在于一有和与为这那个她他它们我你也就都及被由は이은는가을를의에서로와과도입습니다요였했"
)

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

# Function words of the other languages that answers come in; words that English has, too, are above.
FOREIGN_STOPWORDS = frozenset(
    """
    der die das den dem des ein eine einen einem einer und oder ist sind war waren wurde wurden wird hat haben
    von vom zu zum zur mit bei fur auf aus nach im ist nicht auch sich sie es er ihr ihre sein seine
    le la les un une des du de et ou est sont etait fut ete par pour avec dans sur au aux ne pas que qui il
    elle ils elles son sa ses ce cet cette se a
    el los las una unos unas del al y o es son era fue por para con en su sus que quien se lo esta este
    lo gli i uno della dello dei delle degli di da dal dalla e ed sono stata stato stati fu per con nel nella
    che chi si suo sua questa questo
    os as um uma do da dos das no na nos nas e foi era ser por para com em seu sua este esta pessoa
    het een en van is zijn was werd door voor met op te dat deze dit
    w we z ze na i jest byl byla sie do od to ta ten ktory
    bu bir ve ile icin o
    и в во на с со из к ко у о об от до по за это этот эта был была было были он она они его ее не
    і в у на з із до це цей ця був була він вона
    في من على الى عن هذا هذه هو هي كان كانت
    यह है हैं में का की के को से और था थी
    """.split()
)


def norm(text: str) -> str:
    """Return text in the form answers and gold are compared in.

    NFKC, casefold, diacritics stripped (vowel signs of Indic scripts stay), spaced-out letters joined
    ("A d a" -> "ada"), punctuation turned to single spaces; a CJK character is a word of its own.
    Source: METHOD.md section 5.1.
    """
    return " ".join(_split(_SPACED.sub(lambda m: re.sub(r"[ .\-_*]", "", m.group()), _folded(text))))


def tokens(text: str) -> list[str]:
    """Return the words of a text in order, in the form of ``norm``, spaced-out letters left as they are."""
    return _split(_folded(text))


def _folded(text: str) -> str:
    folded = unicodedata.normalize("NFKC", text).casefold()
    return unicodedata.normalize("NFC", _ACCENTS.sub("", unicodedata.normalize("NFD", folded)))


def _split(text: str) -> list[str]:
    return WORD.findall(_WIDE.sub(r" \1 ", text))


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
    (any length) and content words (three letters or more, no stop words). In scripts without spaces, what
    stands together counts as one. What the question itself already says, in whatever inflection, is left
    out. Source: METHOD.md section 6.
    """
    asked = norm(question)
    asked_words = set(asked.split())
    found: dict[str, None] = {}
    rest = f" {norm(gold)} "
    for alias in sorted({norm(a) for a in aliases} - {""}, key=lambda a: (-len(a), a)):
        if f" {alias} " in rest:
            rest = rest.replace(f" {alias} ", " | ")
            if f" {alias} " not in f" {asked} ":
                found[alias] = None
    proper = _proper_nouns(gold)
    run: list[str] = []
    for word in [*rest.split(), "|"]:
        if _WIDE.match(word) and word not in asked_words and not _is_particle(word):
            run.append(word)
            continue
        if run:
            found[" ".join(run)] = None
            run = []
        if _tells(word, asked_words, proper):
            found[word] = None
    return tuple(found)


def _tells(word: str, asked: set[str], proper: set[str]) -> bool:
    """Whether a word of a script with spaces is content that the question has not said."""
    if word == "|" or _WIDE.match(word) or word in asked:
        return False
    if word in proper or word.isdigit():
        return True
    if word in STOPWORDS or word in FOREIGN_STOPWORDS or len(word) < 3:
        return False
    return not any(_inflected(word, other) for other in asked)


def _is_particle(character: str) -> bool:
    return character in _PARTICLES or "\u3040" <= character <= "\u309f"  # hiragana


def _inflected(left: str, right: str) -> bool:
    """Whether two words differ by their endings alone ("opened", "open"; "fondata", "fondato")."""
    same = next(
        (i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right))
    )
    endings = left[same:], right[same:]
    if same < 4:
        return same == 3 and set(endings) <= {"", "s"}
    return all(ending in _ENDINGS for ending in endings)


def _proper_nouns(gold: str) -> set[str]:
    """Return normalised capitalised words that do not merely open a sentence."""
    proper: set[str] = set()
    for match in WORD.finditer(gold):
        word, before = match.group(), gold[: match.start()].rstrip(" \"'“”‘’(")
        opens_sentence = not before or before[-1] in ".!?:\n"
        if word[0].isupper() and len(word) >= 2 and not opens_sentence:
            proper.update(words(word))
    return proper - STOPWORDS
