"""SQL that looks over everything at once, in one snapshot."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from sqlalchemy import ColumnElement, Interval, exists, func, select, type_coerce
from sqlalchemy.orm import Session, aliased

from app.db.models import (
    Acknowledgement,
    AuditEvent,
    Expert,
    Generation,
    GenerationExpert,
    InterimProtection,
    LeaseRow,
    OutboxMessage,
    RemovalRequest,
    Replica,
    RequestEvent,
    VerificationScore,
)
from app.kit.canonical import JsonValue
from app.registry.repository import MEMBER, in_generation

V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class RequestRow:
    """What the checks need of a request."""

    id: str
    tenant_id: str
    state: str
    attempt: int
    linked_to: str | None
    approved: bool
    max_attempts: int | None


@dataclass(frozen=True, slots=True)
class Step:
    """One change of state, as the history or the audit log has it."""

    event: str | None
    before: str | None
    after: str | None


class DoctorRepository:
    """Reads for the checks. The session's transaction should be one snapshot."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def requests(self) -> list[RequestRow]:
        """Return every request, oldest first."""
        rows = self.session.execute(
            select(
                RemovalRequest.id,
                RemovalRequest.tenant_id,
                RemovalRequest.state,
                RemovalRequest.attempt,
                RemovalRequest.linked_to_id,
                RemovalRequest.policy,
            ).order_by(RemovalRequest.id)
        )
        return [
            RequestRow(id, tenant, state, attempt, linked, policy is not None, _cap(policy))
            for id, tenant, state, attempt, linked, policy in rows
        ]

    def stuck(self, settled: Sequence[str], patience: float) -> list[tuple[str, str]]:
        """Return (id, state) of requests that nobody works on, and for which no job is on its way.

        Args:
            settled: states in which that is as it should be.
            patience: seconds that a job may be on its way, and a request may stand still.
        """
        recently = _ago(patience)
        job = exists().where(
            OutboxMessage.request_id == RemovalRequest.id,
            (OutboxMessage.published_at.is_(None)) | (OutboxMessage.published_at > recently),
        )
        lease = exists().where(
            LeaseRow.request_id == RemovalRequest.id, LeaseRow.expires_at > func.clock_timestamp()
        )
        rows = self.session.execute(
            select(RemovalRequest.id, RemovalRequest.state)
            .where(
                RemovalRequest.state.not_in(list(settled)),
                RemovalRequest.linked_to_id.is_(None),
                RemovalRequest.updated_at <= recently,
                ~job,
                ~lease,
            )
            .order_by(RemovalRequest.id)
        )
        return [(row.id, row.state) for row in rows]

    def unpublished(self, patience: float) -> list[tuple[str, str | None]]:
        """Return (request, last error) of jobs that have waited for the broker longer than `patience`."""
        rows = self.session.execute(
            select(OutboxMessage.request_id, OutboxMessage.last_error)
            .where(OutboxMessage.published_at.is_(None), OutboxMessage.created_at <= _ago(patience))
            .order_by(OutboxMessage.id)
        )
        return [(row.request_id, row.last_error) for row in rows]

    def history(self) -> dict[str, list[Step]]:
        """Return every request's changes of state as its history has them, in order."""
        rows = self.session.execute(
            select(
                RequestEvent.request_id, RequestEvent.event, RequestEvent.from_state, RequestEvent.to_state
            )
            .where(RequestEvent.to_state.is_not(None))
            .order_by(RequestEvent.seq)
        )
        return _grouped((row[0], Step(row[1], row[2], row[3])) for row in rows)

    def audited(self) -> dict[str, list[Step]]:
        """Return every request's changes of state as the audit log has them, in order."""
        before, after = AuditEvent.payload["from"].as_string(), AuditEvent.payload["to"].as_string()
        rows = self.session.execute(
            select(AuditEvent.subject_id, AuditEvent.kind, before, after)
            .where(AuditEvent.kind.startswith("request."), after.is_not(None))
            .order_by(AuditEvent.seq)
        )
        return _grouped((row[0] or "", Step(row[1].removeprefix("request."), row[2], row[3])) for row in rows)

    def newest(self) -> tuple[int, float]:
        """Return the newest generation's number and its age in seconds (0, 0 before the first)."""
        age = func.extract("epoch", func.clock_timestamp() - Generation.created_at)
        row = self.session.execute(
            select(Generation.number, age).order_by(Generation.number.desc()).limit(1)
        ).one_or_none()
        return (row[0], float(row[1])) if row else (0, 0.0)

    def size(self, generation: int) -> int:
        """Return how many experts a generation was made with; 0 for the one before the first."""
        size = select(Generation.experts).where(Generation.number == generation)
        return self.session.execute(size).scalar_one_or_none() or 0

    def live_experts(self, generation: int) -> list[tuple[str, int, Expert | None]]:
        """Return (id, version, expert) of a generation's members; None for one that is not on record."""
        rows = self.session.execute(
            select(GenerationExpert.expert_id, GenerationExpert.version, Expert)
            .join(Expert, MEMBER, isouter=True)
            .where(in_generation(GenerationExpert, generation))
            .order_by(GenerationExpert.expert_id, GenerationExpert.version)
        )
        return [(row[0], row[1], row[2]) for row in rows]

    def standing_protections(self) -> list[str]:
        """Return the requests that are protected without an expert, one entry for each protection."""
        return list(
            self.session.scalars(
                select(InterimProtection.request_id)
                .where(InterimProtection.until_generation.is_(None))
                .order_by(InterimProtection.id)
            )
        )

    def superseded(self) -> set[str]:
        """Return the requests whose protection another request for the same subject took over."""
        return set(
            self.session.scalars(
                select(InterimProtection.request_id).where(InterimProtection.ended_by == "superseded")
            )
        )

    def verdicts(self) -> dict[str, list[bool | None]]:
        """Return whether each figure of each request's newest attempt met its threshold."""
        later = aliased(VerificationScore)
        newest = (
            select(func.max(later.attempt))
            .where(later.request_id == VerificationScore.request_id)
            .scalar_subquery()
        )
        rows = self.session.execute(
            select(VerificationScore.request_id, VerificationScore.passed).where(
                VerificationScore.attempt == newest
            )
        )
        return _grouped((row[0], row[1]) for row in rows)

    def live_replicas(self, within: float) -> Sequence[Replica]:
        """Return the replicas whose last heartbeat is at most `within` seconds old."""
        return self.session.scalars(
            select(Replica)
            .where(Replica.stopped_at.is_(None), Replica.heartbeat_at > _ago(within))
            .order_by(Replica.id)
        ).all()

    def acknowledged(self, replica_id: str, generation: int) -> bool:
        """Tell whether the replica acknowledged the generation."""
        return self.session.get(Acknowledgement, (generation, replica_id)) is not None

    def oldest_uncovered(self, after: int) -> float | None:
        """Return the age in seconds of the first event after number `after`."""
        age = func.extract("epoch", func.clock_timestamp() - AuditEvent.created_at)
        found = self.session.execute(
            select(age).where(AuditEvent.seq > after).order_by(AuditEvent.seq).limit(1)
        ).scalar_one_or_none()
        return None if found is None else float(found)


def _cap(policy: Mapping[str, JsonValue] | None) -> int | None:
    cap = (policy or {}).get("max_attempts")
    return cap if isinstance(cap, int) else None


def _ago(seconds: float) -> ColumnElement[datetime]:
    interval = func.make_interval(0, 0, 0, 0, 0, 0, seconds)
    return func.clock_timestamp() - type_coerce(interval, Interval())


def _grouped(pairs: Iterator[tuple[str, V]]) -> dict[str, list[V]]:
    found: dict[str, list[V]] = {}
    for key, value in pairs:
        found.setdefault(key, []).append(value)
    return found
