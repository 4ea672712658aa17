"""The audit log as JSON lines, and checking such a file with the public keys alone, without a database.

One object a line, told apart by `type`:

- `log`, the first line: version of the form, whose events are in it, when it was written.
- `event`: everything the hash covers, and the hash; or, for an event of another tenant, `withheld`: number
  and hashes alone, so that the chain can be followed through it.
- `checkpoint`, at the end: every checkpoint there is, as JWS. The last one covers the last event: a file
  without it was cut.
"""

import json
from collections.abc import Iterable, Mapping, Sequence

from app.audit.chain import CONTENT, Breach, ChainReport, ChainWalk, Link, SignedHead
from app.audit.signing import SignatureProblem, Verifier, signed_head
from app.kit.canonical import JsonValue

VERSION = 1
MAX_LINE = 4 * 1024 * 1024
"""Characters; a longer line is none of ours."""


class NotALog(ValueError):  # noqa: N818  says what happened
    """The file is not an exported audit log; the message says which line and why."""


def line(type: str, members: Mapping[str, JsonValue]) -> str:
    """Return one line of a log in ASCII, its end included."""
    return json.dumps({"type": type, **members}, separators=(",", ":")) + "\n"


def verify_log(lines: Iterable[str], verifier: Verifier, kept: Sequence[str] = ()) -> ChainReport:
    """Check an exported log: every hash, link, signature and Merkle root, and that it ends with a checkpoint.

    Args:
        lines: of the file.
        verifier: holds the public keys.
        kept: checkpoints as JWS that were kept elsewhere; the log must contain what they sign.

    Raises:
        NotALog: a line is not what a log consists of.
        SignatureProblem: one of `kept` is not signed with one of the keys.
    """
    log = _Log(verifier)
    for number, text in enumerate(lines, 1):
        if text.strip():
            log.take(number, text)
    return log.report([signed_head(token, verifier) for token in kept])


class _Log:
    """Reads lines; holds the links, so that the checkpoints behind them can be looked for on the way."""

    def __init__(self, verifier: Verifier) -> None:
        self._verifier = verifier
        self._links: list[Link] = []
        self._heads: list[SignedHead] = []
        self._unsigned: str | None = None
        self._begun = False

    def take(self, number: int, text: str) -> None:
        """Read one line.

        Raises:
            NotALog: it is not one of a log's.
        """
        entry = _parsed(number, text)
        kind = entry.get("type")
        if not self._begun:
            if kind != "log" or entry.get("version") != VERSION:
                raise NotALog(f"line {number}: the first line of a log is its header, of version {VERSION}")
            self._begun = True
        elif kind in ("event", "withheld"):
            self._links.append(_link(number, entry, withheld=kind == "withheld"))
        elif kind == "checkpoint":
            self._checkpoint(number, str(entry.get("jws", "")))
        else:
            raise NotALog(f"line {number}: {str(kind)[:40]!r} is not a type of line")

    def _checkpoint(self, number: int, token: str) -> None:
        try:
            self._heads.append(signed_head(token, self._verifier))
        except SignatureProblem as problem:
            self._unsigned = self._unsigned or f"line {number}: a checkpoint cannot be accepted: {problem}"

    def report(self, kept: Sequence[SignedHead]) -> ChainReport:
        """Walk what was read."""
        if not self._begun:
            raise NotALog("the file is empty")
        walk = ChainWalk([*self._heads, *kept])
        for link in self._links:
            if not walk.add(link):
                break
        report = walk.report()
        if report.intact and self._unsigned is not None:
            walk.fail(Breach.UNSIGNED, self._unsigned)
        elif report.intact and max((head.seq for head in self._heads), default=-1) != len(self._links):
            walk.fail(
                Breach.TRUNCATED,
                f"no checkpoint in the file covers its last event, {len(self._links)}: its end is missing",
            )
        return walk.report()


def _parsed(number: int, text: str) -> Mapping[str, JsonValue]:
    try:
        entry = json.loads(text) if len(text) <= MAX_LINE else None
    except (ValueError, RecursionError) as error:
        raise NotALog(f"line {number}: not JSON; the file was damaged or cut in mid-line") from error
    if not isinstance(entry, dict):
        raise NotALog(f"line {number}: not a JSON object of at most {MAX_LINE:,} characters")
    return entry


def _link(number: int, entry: Mapping[str, JsonValue], *, withheld: bool) -> Link:
    seq, before, digest = entry.get("seq"), entry.get("prev_hash"), entry.get("hash")
    if not isinstance(seq, int) or not isinstance(before, str) or not isinstance(digest, str):
        raise NotALog(f"line {number}: an event has `seq`, `prev_hash` and `hash`")
    content = None if withheld else {name: entry[name] for name in CONTENT if name in entry}
    return Link(seq, before, digest, content)
