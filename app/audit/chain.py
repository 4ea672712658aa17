"""The audit chain without a database: what an event's hash covers, and walking a log to find what is wrong.

The service and `lethe audit verify` walk logs with the same code; it needs the log and the checkpoints alone.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from app.audit.merkle import RightEdge
from app.kit.canonical import JsonValue, canonical_json, sha256_hex

GENESIS = "0" * 64
"""The `prev_hash` of the first event."""

CONTENT = (
    "seq", "id", "tenant_id", "kind", "actor", "subject_id", "payload", "created_at", "prev_hash",
)  # fmt: skip
"""The members of an event that its hash covers."""


class Breach(StrEnum):
    """What is wrong with a log."""

    EDITED = "edited"
    MISSING = "missing"
    OUT_OF_ORDER = "out_of_order"
    UNLINKED = "unlinked"
    TRUNCATED = "truncated"
    DIVERGED = "diverged"
    UNSIGNED = "unsigned"


@dataclass(frozen=True, slots=True)
class Link:
    """One event of a log. `content` is None if it was withheld, being another tenant's."""

    seq: int
    prev_hash: str
    hash: str
    content: Mapping[str, JsonValue] | None


@dataclass(frozen=True, slots=True)
class SignedHead:
    """What a checkpoint says, its signature checked: the first `seq` events end in `hash` and make `root`."""

    seq: int
    hash: str
    root: str
    issued_at: str


@dataclass(frozen=True, slots=True)
class ChainReport:
    """What walking a log found: `intact`, or the first event that does not fit and why.

    Args:
        intact: nothing is wrong.
        events: how many events fit, from the first on.
        head_seq: number of the last one that fits.
        head_hash: its hash.
        broken_at: number of the first event that does not fit.
        breach: what kind of thing is wrong.
        reason: the same for people.
        withheld: of the events that fit, those without their content.
        checkpoints: how many checkpoints the log agrees with.
    """

    intact: bool
    events: int
    head_seq: int
    head_hash: str
    broken_at: int | None = None
    breach: Breach | None = None
    reason: str | None = None
    withheld: int = 0
    checkpoints: int = 0


def content_hash(content: Mapping[str, JsonValue]) -> str:
    """Return the SHA-256 over the RFC 8785 form of an event's `CONTENT`.

    Raises:
        ValueError: it has no canonical form.
        KeyError: a member is missing.
    """
    return sha256_hex(canonical_json({name: content[name] for name in CONTENT}))


class ChainWalk:
    """Walks a log from its first event on, and holds it against signed checkpoints.

    Args:
        checkpoints: that the log must agree with.
    """

    def __init__(self, checkpoints: Iterable[SignedHead] = ()) -> None:
        self._expected: dict[int, list[SignedHead]] = {}
        for checkpoint in checkpoints:
            self._expected.setdefault(checkpoint.seq, []).append(checkpoint)
        self._edge = RightEdge()
        self._hash = GENESIS
        self._withheld = self._agreed = 0
        self._broken: ChainReport | None = None
        self._compare()

    @classmethod
    def resumed(cls, edge: RightEdge, head_hash: str) -> Self:
        """Return a walk that goes on after the events under `edge`, the last of which has this hash."""
        walk = cls()
        walk._edge, walk._hash = edge, head_hash
        return walk

    @property
    def edge(self) -> RightEdge:
        """The Merkle tree over the events so far."""
        return self._edge

    @property
    def head(self) -> tuple[int, str]:
        """Number and hash of the last event that fits."""
        return self._edge.size, self._hash

    def add(self, link: Link) -> bool:
        """Take the next event, and tell whether everything fits so far."""
        if self._broken is not None:
            return False
        expected = self._edge.size + 1
        if link.seq > expected:
            return self._break(link.seq, Breach.MISSING, f"event {expected} is missing")
        if link.seq < expected:
            return self._break(link.seq, Breach.OUT_OF_ORDER, f"it stands where event {expected} belongs")
        if link.prev_hash != self._hash:
            return self._break(
                link.seq, Breach.UNLINKED, "its prev_hash is not the hash of the event before it"
            )
        if link.content is not None and not _matches(link):
            return self._break(link.seq, Breach.EDITED, "its content does not match its hash")
        try:
            self._edge.append(bytes.fromhex(link.hash))
        except ValueError:
            return self._break(link.seq, Breach.EDITED, "its hash is not a SHA-256 in hex")
        self._hash = link.hash
        self._withheld += link.content is None
        return self._compare()

    def fail(self, breach: Breach, reason: str) -> None:
        """Note that something other than an event is wrong, unless something was wrong before."""
        if self._broken is None:
            self._break(None, breach, reason)

    def report(self) -> ChainReport:
        """Return what was found; call it after the last event."""
        if self._broken is not None:
            return self._broken
        size, digest = self.head
        beyond = [seq for seq in self._expected if seq > size]
        if beyond:
            latest = self._expected[max(beyond)][0]
            self._break(
                size + 1,
                Breach.TRUNCATED,
                f"the log ends with event {size}, but {latest.seq} events were signed for at "
                f"{latest.issued_at}",
            )
            return self.report()
        return ChainReport(True, size, size, digest, withheld=self._withheld, checkpoints=self._agreed)

    def _compare(self) -> bool:
        """Hold the log as it is against the checkpoints over just as many events."""
        for checkpoint in self._expected.get(self._edge.size, ()):
            if (checkpoint.hash, checkpoint.root) != (self._hash, self._edge.root().hex()):
                return self._break(
                    checkpoint.seq,
                    Breach.DIVERGED,
                    f"the first {checkpoint.seq} events are not those that were signed for at "
                    f"{checkpoint.issued_at}: history was rewritten, or continued from an older copy",
                )
            self._agreed += 1
        return True

    def _break(self, seq: int | None, breach: Breach, reason: str) -> bool:
        size, digest = self.head
        self._broken = ChainReport(
            False, size, size, digest, seq, breach, reason, self._withheld, self._agreed
        )
        return False


def _matches(link: Link) -> bool:
    content = link.content or {}
    try:
        same = content["seq"] == link.seq and content["prev_hash"] == link.prev_hash
        return same and content_hash(content) == link.hash
    except (KeyError, ValueError, TypeError):
        return False
