"""What is open at the end of a text: whether its next words may still make a name of what has begun.

An answer that a limit cuts is written further until this is settled, and somebody waits for it. So here the
names themselves tell: in each way in which one is found without decoding (as it stands, spelled out, cut
otherwise, reversed, with shifted letters) the words at the end must be the beginning of one. Where the end
may be encoded it is held as long as a streamed text is (`holdback`).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from app.lumoe.gate.canonical import Canonical, canonicalise
from app.lumoe.gate.decode import may_be_encoded
from app.lumoe.gate.holdback import releasable, settled
from app.lumoe.gate.names import NameIndex
from app.lumoe.gate.readings import EXCHANGED, SHIFTED, foreign_words

_DISGUISED = re.compile(
    r"[^\x00-\x7f]|[0-9%&\\=+/_|~^@$!<>#]|[a-z][A-Z]|[A-Z]{2}|\S{16,}"
    r"|(?<!\S)[^\w\s]+(?!\S)|(?<![^\W_])[^\W_][\W_]+[^\W_](?![^\W_])"
)
"""Other letters, digits, signs, capitals within, long words, words of signs, letters that stand apart."""


def open_at_end(text: str, within: int, names: NameIndex, phrases: Collection[str] = ()) -> bool:
    """Say whether what comes after `text` may make a name of what begins in its first `within` characters.

    Or one of some `phrases`, canonical, which are looked for as they stand. False means that nothing is found
    there but what is found now, however the text goes on.
    """
    longest = max(names.longest, max(map(len, phrases), default=0))
    at = _back(text, within, longest)
    end, left = text[at:], within - at
    if _DISGUISED.search(end) or may_be_encoded(end):
        return releasable(text, longest) < within
    form = canonicalise(end)
    if any(phrase.startswith(run) for run in _from_each_word(form, left) for phrase in phrases):
        return True
    if any(names.begun(run.replace(" ", "")) for run in _runs(form, left, unfinished=end[-1:].isalnum())):
        return True
    near = max(0, min(at, settled(text)))
    return any(hit.end + near > settled(text) for hit in names.find(text[near:], fuzzy=False))


def _back(text: str, within: int, letters: int) -> int:
    """Return where the word begins that is `letters` letters and digits before `within`."""
    at = within
    while at > 0 and letters > 0:
        at -= 1
        letters -= text[at].isalnum()
    while at > 0 and text[at - 1].isalnum():
        at -= 1
    return at


def _runs(form: Canonical, left: int, *, unfinished: bool) -> Iterator[str]:
    """Yield what stands from each word that begins before `left` to the end, in every reading."""
    plain = list(_from_each_word(form, left))
    yield from plain
    yield from (run.translate(table) for run in plain for table in EXCHANGED)
    foreign = foreign_words(form, unfinished=unfinished)
    yield from (run.translate(table) for run in _from_each_word(foreign, left) for table in SHIFTED)


def _from_each_word(form: Canonical, left: int) -> Iterator[str]:
    text, at = form.text, 0
    for word in text.split(" ") if text else ():
        if form.origin[at] < left:
            yield text[at:]
        at += len(word) + 1
