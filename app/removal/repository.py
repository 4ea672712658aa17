"""SQL of removal requests and what belongs to them."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Interval, Select, bindparam, delete, exists, func, select, type_coerce, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.sql.elements import ColumnElement

from app.db.models import (
    AuditEvent,
    DataKey,
    Evidence,
    Expert,
    Generation,
    IdempotencyKey,
    LeaseRow,
    OutboxMessage,
    Remeasurement,
    RemovalRequest,
    Replica,
    RequestEvent,
    StageCheckpoint,
    VerificationExample,
    VerificationScore,
)
from app.db.repository import Page, Repository, values_of
from app.kit.canonical import JsonValue
from app.removal.states import ENDED

_ENDED = [state.value for state in ENDED]
_REQUESTS = RemovalRequest.__table__
_REPLICAS = Replica.__table__
_OPEN_FOR_SUBJECT = (
    select(_REQUESTS.c.id)
    .where(
        _REQUESTS.c.tenant_id == bindparam("tenant_id"),
        _REQUESTS.c.subject_token == bindparam("subject_token"),
        _REQUESTS.c.linked_to_id.is_(None),
        _REQUESTS.c.state.not_in(_ENDED),
    )
    .limit(1)
    .with_for_update()
)
_SERVING_FINGERPRINT = (
    select(_REPLICAS.c.model_fingerprint)
    .where(_REPLICAS.c.model_fingerprint.is_not(None), _REPLICAS.c.stopped_at.is_(None))
    .order_by(_REPLICAS.c.heartbeat_at.desc())
    .limit(1)
)


class RequestRepository(Repository[RemovalRequest]):
    """Requests, filtered by who asks (`tenant_id` None: the root tenant and workers see all)."""

    model = RemovalRequest

    def visible(self, tenant_id: str | None) -> Select[RemovalRequest]:
        """Return the statement every read for a caller starts from."""
        statement = select(RemovalRequest)
        return statement if tenant_id is None else statement.where(RemovalRequest.tenant_id == tenant_id)

    def get(self, request_id: str, tenant_id: str | None = None) -> RemovalRequest | None:
        """Return the request if `tenant_id` may see it, as it is in the database now."""
        statement = self.visible(tenant_id).where(RemovalRequest.id == request_id)
        return self.first(statement.execution_options(populate_existing=True))

    def lock(self, request_id: str) -> RemovalRequest | None:
        """Return the request, locked until the transaction ends."""
        return self.first(
            select(RemovalRequest)
            .where(RemovalRequest.id == request_id)
            .with_for_update()
            .execution_options(populate_existing=True)
        )

    def lock_idle(self, request_id: str) -> RemovalRequest | None:
        """Return the request, locked, unless somebody else holds its lock."""
        return self.first(
            select(RemovalRequest)
            .where(RemovalRequest.id == request_id)
            .with_for_update(skip_locked=True)
            .execution_options(populate_existing=True)
        )

    def listed(
        self, tenant_id: str | None, *, states: Sequence[str], after: str | None, limit: int
    ) -> Page[RemovalRequest]:
        """Return requests, newest first."""
        statement = self.visible(tenant_id)
        if states:
            statement = statement.where(RemovalRequest.state.in_(states))
        return self.page(statement, RemovalRequest.id, after=after, limit=limit)

    def counts(self, tenant_id: str | None) -> dict[str, int]:
        """Return how many requests are in each state that has any."""
        statement = select(RemovalRequest.state, func.count()).group_by(RemovalRequest.state)
        if tenant_id is not None:
            statement = statement.where(RemovalRequest.tenant_id == tenant_id)
        return {row[0]: row[1] for row in self.session.execute(statement)}

    def open_for_subject(self, tenant_id: str, subject_token: str) -> RemovalRequest | None:
        """Return the request that already stands for this subject, locked."""
        asked = {"tenant_id": tenant_id, "subject_token": subject_token}
        request_id = self.session.execute(_OPEN_FOR_SUBJECT, asked).scalar()
        return None if request_id is None else self.get(request_id)

    def followers(self, request_id: str) -> Sequence[RemovalRequest]:
        """Return the requests linked to this one that still stand, locked, oldest first."""
        return self.all(
            select(RemovalRequest)
            .where(RemovalRequest.linked_to_id == request_id, RemovalRequest.state.not_in(_ENDED))
            .order_by(RemovalRequest.id)
            .with_for_update()
            .execution_options(populate_existing=True)
        )

    def several(self, request_ids: Sequence[str]) -> Sequence[RemovalRequest]:
        """Return these requests, as they are in the database now."""
        return self.all(
            select(RemovalRequest)
            .where(RemovalRequest.id.in_(request_ids))
            .execution_options(populate_existing=True)
        )

    def linked_ids(self, request_ids: Sequence[str]) -> list[tuple[str, str]]:
        """Return (id, whom it follows) of the requests linked to these that still stand, oldest first."""
        rows = self.session.execute(
            select(_REQUESTS.c.id, _REQUESTS.c.linked_to_id)
            .where(_REQUESTS.c.linked_to_id.in_(request_ids), _REQUESTS.c.state.not_in(_ENDED))
            .order_by(_REQUESTS.c.id)
        )
        return [(row[0], row[1]) for row in rows]

    def create(self, request: RemovalRequest, **values: object) -> None:
        """Insert a request, with `values` in place of what is set; it is no object of the session's."""
        written = values_of(request) | values
        computed = {name: value for name, value in written.items() if isinstance(value, ColumnElement)}
        given = {name: value for name, value in written.items() if name not in computed}
        self.session.execute(insert(_REQUESTS).values(computed), given)

    def move(self, request_id: str, from_state: str, to_state: str, **values: object) -> bool:
        """Change the state, and other columns with it, if it still is `from_state`; tell whether it was."""
        changed = self.session.execute(
            update(_REQUESTS)
            .where(_REQUESTS.c.id == request_id, _REQUESTS.c.state == from_state)
            .values(**values, state=to_state, updated_at=func.clock_timestamp())
            .returning(_REQUESTS.c.id)
        )
        return changed.first() is not None

    def patch(self, request_id: str, **values: object) -> None:
        """Set columns other than `state`."""
        self.session.execute(
            update(_REQUESTS)
            .where(_REQUESTS.c.id == request_id)
            .values(**values, updated_at=func.clock_timestamp())
        )

    def lease_token(self, request_id: str) -> int | None:
        """Return the current fencing token and keep it from changing until the transaction ends."""
        return self.session.execute(
            select(LeaseRow.token).where(LeaseRow.request_id == request_id).with_for_update()
        ).scalar_one_or_none()

    def newest_expert(self, request_id: str) -> Expert | None:
        """Return the newest expert that was published for the request."""
        return self.session.scalars(
            select(Expert).where(Expert.request_id == request_id).order_by(Expert.version.desc()).limit(1)
        ).first()

    def audit_trail(self, request_id: str) -> tuple[int, str | None]:
        """Return how many audit events are about the request, and the hash of the last."""
        rows = self.session.execute(
            select(AuditEvent.hash).where(AuditEvent.subject_id == request_id).order_by(AuditEvent.seq)
        ).all()
        return len(rows), rows[-1][0] if rows else None

    def serving_fingerprint(self) -> str | None:
        """Return the fingerprint of the base model that the replica with the newest heartbeat serves."""
        return self.session.execute(_SERVING_FINGERPRINT).scalar_one_or_none()

    def erase(self, request_id: str, subject_token: str, now: datetime) -> None:
        """Forget whom the request was about, and what people wrote about it."""
        self.patch(
            request_id,
            subject_sealed=None,
            subject_token=subject_token,
            message="",
            reason=None,
            evidence_purged_at=now,
        )
        for table in (Evidence, StageCheckpoint, DataKey):
            self.session.execute(delete(table).where(table.request_id == request_id))
        self.session.execute(
            update(RequestEvent)
            .where(RequestEvent.request_id == request_id)
            .values(message="", data={})
            .execution_options(synchronize_session=False)
        )


class OutboxRepository(Repository[OutboxMessage]):
    """Jobs, written beside the state changes that want them."""

    model = OutboxMessage


class EventRepository(Repository[RequestEvent]):
    """A request's events, in order."""

    model = RequestEvent

    def of(self, request_id: str, *, after: int = 0, limit: int = 500) -> Sequence[RequestEvent]:
        """Return events with a `seq` above `after`."""
        return self.all(
            select(RequestEvent)
            .where(RequestEvent.request_id == request_id, RequestEvent.seq > after)
            .order_by(RequestEvent.seq)
            .limit(limit)
        )

    def recent(self, request_id: str, limit: int) -> Sequence[RequestEvent]:
        """Return the newest events, oldest first."""
        newest = self.all(
            select(RequestEvent)
            .where(RequestEvent.request_id == request_id)
            .order_by(RequestEvent.seq.desc())
            .limit(limit)
        )
        return newest[::-1]

    def transitions(self, request_id: str) -> Sequence[RequestEvent]:
        """Return the state changes alone."""
        return self.all(
            select(RequestEvent)
            .where(RequestEvent.request_id == request_id, RequestEvent.to_state.is_not(None))
            .order_by(RequestEvent.seq)
        )


class EvidenceRepository(Repository[Evidence]):
    """Encrypted pictures."""

    model = Evidence

    def of(self, request_ids: Sequence[str]) -> Sequence[Evidence]:
        """Return the pictures of these requests, oldest first."""
        return self.all(select(Evidence).where(Evidence.request_id.in_(request_ids)).order_by(Evidence.id))

    def one(self, request_id: str, evidence_id: str) -> Evidence | None:
        """Return one picture of a request."""
        return self.first(
            select(Evidence).where(Evidence.id == evidence_id, Evidence.request_id == request_id)
        )

    def count(self, request_id: str, *, kept: bool = False) -> int:
        """Return how many pictures were sent with a request, or how many of them are kept."""
        statement = select(func.count()).select_from(Evidence).where(Evidence.request_id == request_id)
        if kept:
            statement = statement.where(Evidence.sealed.is_not(None))
        return self.session.execute(statement).scalar_one()

    def purgeable(
        self, states: Sequence[str], days: float, limit: int, *, only: str | None = None
    ) -> Sequence[str]:
        """Return requests in one of `states`, unchanged for `days`, that have pictures left; oldest first."""
        ago = type_coerce(func.make_interval(0, 0, 0, 0, 0, 0, days * 86_400), Interval())
        kept = exists().where(Evidence.request_id == RemovalRequest.id, Evidence.sealed.is_not(None))
        statement = select(RemovalRequest.id).where(
            RemovalRequest.state.in_(states), RemovalRequest.updated_at <= func.clock_timestamp() - ago, kept
        )
        if only is not None:
            statement = statement.where(RemovalRequest.id == only)
        return self.session.scalars(statement.order_by(RemovalRequest.id).limit(limit)).all()

    def purge(self, request_id: str, now: datetime) -> int:
        """Delete the pictures, not the hashes of the files, and return how many there were."""
        purged = self.session.execute(
            update(Evidence)
            .where(Evidence.request_id == request_id, Evidence.sealed.is_not(None))
            .values(sealed=None, purged_at=now)
            .returning(Evidence.id)
            .execution_options(synchronize_session=False)
        )
        return len(purged.all())


class WorkRepository(Repository[StageCheckpoint]):
    """What the worker leaves behind: checkpoints and scores."""

    model = StageCheckpoint

    def checkpoint(self, request_id: str, stage: str) -> StageCheckpoint | None:
        """Return a finished stage's checkpoint."""
        return self.first(
            select(StageCheckpoint)
            .where(StageCheckpoint.request_id == request_id, StageCheckpoint.stage == stage)
            .execution_options(populate_existing=True)
        )

    def save_checkpoint(
        self, request_id: str, stage: str, artifact: dict[str, JsonValue], sha256: str, token: int
    ) -> None:
        """Write the checkpoint, in place of an earlier attempt's."""
        values = {
            "artifact": artifact,
            "sha256": sha256,
            "token": token,
            "created_at": func.clock_timestamp(),
        }
        self.session.execute(
            insert(StageCheckpoint)
            .values(request_id=request_id, stage=stage, **values)
            .on_conflict_do_update(index_elements=["request_id", "stage"], set_=values)
        )

    def forget_checkpoints(self, request_id: str, stages: Sequence[str] | None = None) -> None:
        """Drop checkpoints (None: all), because what they were made from has changed."""
        statement = delete(StageCheckpoint).where(StageCheckpoint.request_id == request_id)
        if stages is not None:
            statement = statement.where(StageCheckpoint.stage.in_(stages))
        self.session.execute(statement)

    def save_score(self, row: VerificationScore) -> None:
        """Write one score, in place of the same attempt's earlier one."""
        columns = ("value", "n", "low", "high", "threshold", "passed", "reason", "details")
        values = {name: getattr(row, name) for name in columns}
        self.session.execute(
            insert(VerificationScore)
            .values(id=row.id, request_id=row.request_id, attempt=row.attempt, metric=row.metric, **values)
            .on_conflict_do_update(index_elements=["request_id", "attempt", "metric"], set_=values)
        )

    def scores(self, request_id: str) -> Sequence[VerificationScore]:
        """Return the newest attempt's scores in the order in which they were measured."""
        newest = (
            select(func.max(VerificationScore.attempt))
            .where(VerificationScore.request_id == request_id)
            .scalar_subquery()
        )
        return self.session.scalars(
            select(VerificationScore)
            .where(VerificationScore.request_id == request_id, VerificationScore.attempt == newest)
            .order_by(VerificationScore.id)
        ).all()


class MeasurementRepository(Repository[Remeasurement]):
    """Examples behind scores, and what was measured again after later publishes."""

    model = Remeasurement

    def example(self, request_id: str, kind: str) -> VerificationExample | None:
        """Return the request's examples of a kind."""
        return self.session.scalars(
            select(VerificationExample).where(
                VerificationExample.request_id == request_id, VerificationExample.kind == kind
            )
        ).one_or_none()

    def add_example(self, row: VerificationExample) -> None:
        """Write examples."""
        self.session.add(row)
        self.session.flush()

    def forget_examples(self, request_id: str, kind: str | None = None) -> None:
        """Delete the request's examples of a kind (None: of all)."""
        statement = delete(VerificationExample).where(VerificationExample.request_id == request_id)
        if kind is not None:
            statement = statement.where(VerificationExample.kind == kind)
        self.session.execute(statement)

    def save_remeasured(self, row: Remeasurement) -> None:
        """Write one figure, in place of an earlier one of the same generation."""
        columns = ("value", "n", "low", "high", "threshold", "passed", "reason")
        values = {name: getattr(row, name) for name in columns}
        self.session.execute(
            insert(Remeasurement)
            .values(
                id=row.id, request_id=row.request_id, generation=row.generation, metric=row.metric, **values
            )
            .on_conflict_do_update(index_elements=["request_id", "generation", "metric"], set_=values)
        )

    def remeasured(self, request_id: str, limit: int) -> Sequence[tuple[Remeasurement, str | None]]:
        """Return figures of the newest `limit` generations, each with the request that was published then."""
        newest = (
            select(Remeasurement.generation)
            .where(Remeasurement.request_id == request_id)
            .distinct()
            .order_by(Remeasurement.generation.desc())
            .limit(limit)
        )
        rows = self.session.execute(
            select(Remeasurement, Generation.request_id)
            .join(Generation, Generation.number == Remeasurement.generation)
            .where(Remeasurement.request_id == request_id, Remeasurement.generation.in_(newest))
            .order_by(Remeasurement.id)
            .execution_options(populate_existing=True)
        ).all()
        return [(row[0], row[1]) for row in rows]

    def last_measured(self, request_ids: Sequence[str]) -> dict[str, int]:
        """Return the newest generation in which each of these was measured."""
        rows = self.session.execute(
            select(Remeasurement.request_id, func.max(Remeasurement.generation))
            .where(Remeasurement.request_id.in_(request_ids))
            .group_by(Remeasurement.request_id)
        ).all()
        return {row[0]: row[1] for row in rows}


class IdempotencyRepository(Repository[IdempotencyKey]):
    """Answers already given."""

    model = IdempotencyKey

    def get(self, client: str, key: str, now: datetime) -> IdempotencyKey | None:
        """Return the answer given to this client's key, if it has not expired (expired ones go)."""
        self.session.execute(
            delete(IdempotencyKey).where(IdempotencyKey.client == client, IdempotencyKey.expires_at < now)
        )
        return self.first(
            select(IdempotencyKey).where(IdempotencyKey.client == client, IdempotencyKey.key == key)
        )
