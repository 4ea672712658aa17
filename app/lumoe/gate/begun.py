"""What is open at the end of a text: whether its next words may still make a name of what has begun.

An answer that a limit cuts is written further until this is settled, and somebody waits for it. So here the
names themselves tell: in each way in which one is found without decoding (as it stands, spelled out, cut
otherwise, reversed, with shifted letters) the words at the end must be the beginning of one. Where the end
may be encoded it is held as long as a streamed text is (`holdback`).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from app.lumoe.gate.canonical import Canonical, by_look, canonicalise, looks_otherwise
from app.lumoe.gate.decode import may_be_encoded, may_end_base64
from app.lumoe.gate.holdback import back, releasable, settled
from app.lumoe.gate.names import NameIndex
from app.lumoe.gate.readings import EXCHANGED, SHIFTED, foreign_words

_DISGUISED = re.compile(
    r"[0-9%&\\=+/_|~^@$!<>#\u20ac\u00a1]|[a-z][A-Z]|[A-Z]{2}"
    r"|(?<!\S)[^\w\s\ufffd]+(?!\S)|(?<![^\W_])[^\W_][\W_]+[^\W_](?![^\W_])"
)
"""Digits and signs, capitals within, words of signs, letters that stand apart."""

_CUT = "\ufffd"
"""A character of which some bytes are still to come; what comes after it is whole."""

_LONG = re.compile(r"[A-Za-z]{16,}")


def open_at_end(text: str, within: int, names: NameIndex, phrases: Collection[str] = ()) -> bool:
    """Say whether what comes after `text` may make a name of what begins in its first `within` characters.

    Or one of some `phrases`, canonical, which are looked for as they stand. False means that nothing is found
    there but what is found now, however the text goes on.
    """
    if text.endswith(_CUT):  # any letter may become of it
        text = text[: -len(_CUT)]
        if within > len(text) and not text[-1:].isalnum():
            return bool(names.longest or phrases)
        within = min(within, len(text))
    longest = max(names.longest, max(map(len, phrases), default=0))
    at = _word_back(text, within, longest)
    end, left = text[at:], within - at
    if _DISGUISED.search(end) or may_be_encoded(end) or any(map(may_end_base64, _LONG.findall(end))):
        return releasable(text, longest) < within
    form = canonicalise(end)
    runs = list(_from_each_word(form, left))
    if looks_otherwise(end):
        runs += _from_each_word(canonicalise(end, by_look), left)
    if any(phrase.startswith(run) for run in runs for phrase in phrases):
        return True
    runs += _turned(form, left, unfinished=end[-1:].isalnum())
    if any(names.begun(run.replace(" ", "")) for run in runs):
        return True
    last = settled(text)
    near = min(at, last)
    return any(hit.end + near > last for hit in names.find(text[near:], fuzzy=False))


def _word_back(text: str, within: int, letters: int) -> int:
    """Return where the word begins that is `letters` letters and digits before `within`."""
    at = back(text, within, letters)
    while at > 0 and text[at - 1].isalnum():
        at -= 1
    return at


def _turned(form: Canonical, left: int, *, unfinished: bool) -> Iterator[str]:
    """Yield the same with its letters exchanged, and with those of foreign words shifted."""
    yield from (run.translate(table) for run in _from_each_word(form, left) for table in EXCHANGED)
    foreign = foreign_words(form, unfinished=unfinished)
    yield from (run.translate(table) for run in _from_each_word(foreign, left) for table in SHIFTED)


def _from_each_word(form: Canonical, left: int) -> Iterator[str]:
    """Yield what stands from each word that begins before `left` to the end."""
    text, at = form.text, 0
    for word in text.split(" ") if text else ():
        if form.origin[at] < left:
            yield text[at:]
        at += len(word) + 1
