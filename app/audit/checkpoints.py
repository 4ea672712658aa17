"""Signed checkpoints: issued now and then and on demand, stored, and what can be proved with them."""

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app.audit.chain import Breach, ChainReport, ChainWalk, SignedHead
from app.audit.errors import ChainBroken, NotCovered
from app.audit.merkle import RightEdge, consistency_path, inclusion_path
from app.audit.repository import AuditRepository, CheckpointRepository
from app.audit.service import AuditService, link_of
from app.audit.signing import CHECKPOINT, SignatureProblem, Signer, UnknownKey, signed_head
from app.db.models import AuditCheckpoint, AuditEvent
from app.db.repository import lock_ledger
from app.db.session import SessionFactory
from app.kit.clock import rfc3339, utcnow
from app.kit.logging import get_logger
from app.settings import Settings

_log = get_logger("audit")


@dataclass(frozen=True, slots=True)
class InclusionProof:
    """That `event` is leaf `event.seq - 1` of the tree whose root `checkpoint` signs.

    `path` holds the siblings from the bottom up (RFC 6962, section 2.1.1), in hex.
    """

    event: AuditEvent
    checkpoint: AuditCheckpoint
    path: list[str]


class CheckpointService:
    """One transaction's view of the checkpoints. It never commits."""

    def __init__(self, session: Session, settings: Settings) -> None:
        self._session = session
        self._signer = Signer(settings)
        self._verifier = self._signer.verifier()
        self._events = AuditRepository(session)
        self._checkpoints = CheckpointRepository(session)
        self.listed = self._checkpoints.listed

    def issue(self) -> AuditCheckpoint:
        """Return the checkpoint over all events, signed and stored now if there are new ones.

        Whatever came since the last one is recomputed first: a broken chain is never signed for.

        Raises:
            ChainBroken: 409, the chain contradicts itself or the last checkpoint.
        """
        lock_ledger(self._session)
        last = self._checkpoints.newest()
        walk = self._resumed(last)
        for event in self._events.walk(walk.head[0]):
            if not walk.add(link_of(event)):
                break
        report = walk.report()
        if not report.intact:
            raise ChainBroken(f"Event {report.broken_at}: {report.reason}.")
        if last is not None and last.seq == report.head_seq:
            return last
        now, root = utcnow(), walk.edge.root().hex()
        token = self._signer.sign(
            {"seq": report.head_seq, "hash": report.head_hash, "root": root, "issued_at": rfc3339(now)},
            type=CHECKPOINT,
        )
        return self._checkpoints.add(
            AuditCheckpoint(
                seq=report.head_seq,
                head_hash=report.head_hash,
                root=root,
                peaks=[peak.hex() for peak in walk.edge.peaks],
                key_id=self._signer.key_id,
                jws=token,
                issued_at=now,
            )
        )

    def issue_if_due(self, every: timedelta) -> AuditCheckpoint | None:
        """Issue one if there are new events and the last one is at least `every` old."""
        age = self._checkpoints.seconds_since()
        if age is not None and age < every.total_seconds():
            return None
        last, (seq, _) = self._checkpoints.newest(), AuditService(self._session).head()
        return self.issue() if seq > 0 and (last is None or last.seq != seq) else None

    def _resumed(self, last: AuditCheckpoint | None) -> ChainWalk:
        """Return a walk that goes on after the last checkpoint, if that is one of ours and unchanged.

        One whose key was dropped saves no work, but what it says must still be so.
        """
        if last is None:
            return ChainWalk()
        try:
            head = signed_head(last.jws, self._verifier)
            edge = RightEdge(head.seq, (bytes.fromhex(peak) for peak in last.peaks))
        except UnknownKey:
            return ChainWalk([SignedHead(last.seq, last.head_hash, last.root, rfc3339(last.issued_at))])
        except ValueError as error:
            raise ChainBroken(
                f"The stored checkpoint over {last.seq} events is not usable: {error}."
            ) from error
        covered = self._events.at(head.seq) if head.seq else None
        if edge.root().hex() != head.root or (head.seq and (covered is None or covered.hash != head.hash)):
            raise ChainBroken(f"The chain does not contain what the checkpoint over {head.seq} events signs.")
        return ChainWalk.resumed(edge, head.hash)

    def verify(
        self, kept: Iterable[str] = (), look: Callable[[AuditEvent], None] | None = None
    ) -> ChainReport:
        """Recompute the whole chain, and hold it against the stored checkpoints and those somebody kept.

        Args:
            kept: checkpoints as JWS, kept outside this database.
            look: called with every event on the way.
        """
        heads: list[SignedHead] = []
        unsigned: str | None = None
        for token in [*self._checkpoints.tokens(), *kept]:
            try:
                heads.append(signed_head(token, self._verifier))
            except SignatureProblem as problem:
                unsigned = unsigned or f"a checkpoint cannot be accepted: {problem}"
        report = AuditService(self._session).verify(heads, look)
        if unsigned is None or not report.intact:
            return report
        return ChainReport(
            False, report.events, report.head_seq, report.head_hash, None, Breach.UNSIGNED, unsigned
        )

    def prove(self, seq: int, tenant_id: str | None, size: int | None = None) -> InclusionProof:
        """Prove that an event is under a checkpoint.

        Args:
            seq: number of the event.
            tenant_id: who asks; None for everybody's events.
            size: which checkpoint, by its number of events; by default the first that covers the event.

        Raises:
            NotCovered: 404, no such event, another tenant's, or no checkpoint covers it yet.
        """
        event = self._events.at(seq)
        if event is None or tenant_id not in (None, event.tenant_id):
            raise NotCovered(f"There is no event {seq}.")
        found = self._checkpoints.covering(seq) if size is None else self._checkpoints.get(size)
        if found is None or found.seq < seq:
            raise NotCovered(
                f"No checkpoint covers event {seq}.", "`GET /audit/checkpoint` issues one, then ask again."
            )
        leaves = self._leaves(found.seq)
        return InclusionProof(event, found, [node.hex() for node in inclusion_path(leaves, seq - 1)])

    def prove_consistent(self, old: int, new: int) -> tuple[AuditCheckpoint, AuditCheckpoint, list[str]]:
        """Prove that the log under checkpoint `new` begins with the one under checkpoint `old`.

        Raises:
            NotCovered: 404, there are no such checkpoints.
        """
        first, second = self._checkpoints.get(old), self._checkpoints.get(new)
        if first is None or second is None or not 0 < old <= new:
            raise NotCovered(
                f"There are no checkpoints over {old} and, later, over {new} events.",
                "`GET /audit/checkpoints` lists them.",
            )
        return first, second, [node.hex() for node in consistency_path(self._leaves(new), old)]

    def _leaves(self, size: int) -> list[bytes]:
        return [bytes.fromhex(digest) for digest in self._events.hashes(size)]


class CheckpointLoop:
    """Issues a checkpoint every `checkpoint_seconds` in which there were events, in a thread of its own.

    Any number of processes may run one: whoever comes first issues it.
    """

    def __init__(self, session_factory: SessionFactory, settings: Settings) -> None:
        self._sessions = session_factory
        self._settings = settings
        self._every = timedelta(seconds=settings.checkpoint_seconds)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Run in the background until `stop`."""
        self._thread = threading.Thread(target=self._run, name="checkpoints", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the loop and wait for it."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=10)

    def run_once(self) -> bool:
        """Issue a checkpoint if one is due, and tell whether one was issued."""
        try:
            with self._sessions.begin() as session:
                issued = CheckpointService(session, self._settings).issue_if_due(self._every)
                return issued is not None
        except ChainBroken as error:
            _log.error("no checkpoint: the audit chain is broken", reason=error.detail)
        except SQLAlchemyError as error:
            _log.warning("no checkpoint: the database did not answer", error=type(error).__name__)
        return False

    def _run(self) -> None:
        while not self._stop.wait(self._every.total_seconds() / 4):
            self.run_once()
