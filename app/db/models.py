"""All tables. Anything personal is either encrypted or a keyed token."""

from datetime import datetime

from sqlalchemy import (
    ARRAY,
    JSON,
    CheckConstraint,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    String,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

import app.db.policy_models
import app.db.webhook_models  # noqa: F401  its tables belong to the same schema
from app.db.base import Base, Document, Id, JsonObject, Long, Moment, Sealed, Sha256, Words

REQUEST_STATES = (
    "received", "in_review", "approved", "queued", "preparing", "training", "calibrating", "verifying",
    "publishing", "active", "rejected", "cancelled", "failed", "revoked", "needs_evidence", "needs_attention",
)  # fmt: skip
"""Every state a removal request can be in, as the database's own check knows them."""

_ENDED = "('rejected', 'cancelled', 'failed', 'revoked')"


def _now() -> Mapped[datetime]:
    return mapped_column(DateTime(timezone=True), server_default=func.clock_timestamp())


class Tenant(Base):
    """Whoever the keys and the requests belong to. The tenant named `root` sees all tenants."""

    __tablename__ = "tenants"

    id: Mapped[Id] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(100), unique=True)
    created_at: Mapped[datetime] = _now()


class ApiKey(Base):
    """An API key: only the SHA-256 of its (random, 256-bit) text is kept."""

    __tablename__ = "api_keys"

    id: Mapped[Id] = mapped_column(primary_key=True)
    tenant_id: Mapped[Id] = mapped_column(ForeignKey("tenants.id"), index=True)
    name: Mapped[str] = mapped_column(String(100))
    prefix: Mapped[str] = mapped_column(String(16))
    key_hash: Mapped[Sha256] = mapped_column(unique=True)
    scopes: Mapped[list[str]] = mapped_column(ARRAY(String(16)))
    created_at: Mapped[datetime] = _now()
    expires_at: Mapped[Moment | None]
    last_used_at: Mapped[Moment | None]
    revoked_at: Mapped[Moment | None]


class BrowserSession(Base):
    """A browser that logged in with an API key: valid until it ends, expires, or the key does."""

    __tablename__ = "browser_sessions"

    id: Mapped[Id] = mapped_column(primary_key=True)
    key_id: Mapped[Id] = mapped_column(ForeignKey("api_keys.id"), index=True)
    created_at: Mapped[datetime] = _now()
    expires_at: Mapped[Moment] = mapped_column(index=True)
    ended_at: Mapped[Moment | None]


class RemovalRequest(Base):
    """One removal request. `subject_sealed` is encrypted JSON; `subject_token` finds it again unread."""

    __tablename__ = "removal_requests"
    __table_args__ = (
        CheckConstraint(f"state IN ({', '.join(repr(s) for s in REQUEST_STATES)})", name="state"),
        CheckConstraint("percent >= 0 AND percent <= 100", name="percent"),
        Index(
            "uq_removal_requests_open_subject",
            "tenant_id",
            "subject_token",
            unique=True,
            postgresql_where=text(f"linked_to_id IS NULL AND state NOT IN {_ENDED}"),
        ),
        Index("ix_removal_requests_tenant_id_id", "tenant_id", "id"),
        Index("ix_removal_requests_tenant_id_subject_token", "tenant_id", "subject_token"),
    )

    id: Mapped[Id] = mapped_column(primary_key=True)
    tenant_id: Mapped[Id] = mapped_column(ForeignKey("tenants.id"))
    created_by: Mapped[Id] = mapped_column(ForeignKey("api_keys.id"))
    state: Mapped[str] = mapped_column(String(32), index=True)
    stage: Mapped[str | None] = mapped_column(String(32))
    percent: Mapped[int] = mapped_column(server_default="0")
    message: Mapped[Words] = mapped_column(server_default="")
    attempt: Mapped[int] = mapped_column(server_default="0")
    klass: Mapped[str] = mapped_column(String(32))
    legal_ground: Mapped[str] = mapped_column(String(64))
    subject_sealed: Mapped[Sealed | None]
    subject_token: Mapped[Sha256]
    linked_to_id: Mapped[Id | None] = mapped_column(ForeignKey("removal_requests.id"), index=True)
    base_knows_subject: Mapped[bool | None]
    policy: Mapped[Document | None]
    reason_code: Mapped[str | None] = mapped_column(String(64))
    reason: Mapped[Words | None]
    cancel_requested_at: Mapped[Moment | None]
    created_at: Mapped[datetime] = _now()
    updated_at: Mapped[datetime] = _now()
    queued_at: Mapped[Moment | None]
    expected_by: Mapped[Moment]
    evidence_purged_at: Mapped[Moment | None]


class RequestEvent(Base):
    """What happened to a request, for its owner: transitions and progress; streamed by SSE in `seq` order."""

    __tablename__ = "request_events"
    __table_args__ = (
        Index("ix_request_events_request_id_seq", "request_id", "seq"),
        Index("ix_request_events_activated", "seq", postgresql_where=text("event = 'activate'")),
        Index("ix_request_events_changes", "created_at", postgresql_where=text("kind = 'state'")),
    )

    seq: Mapped[Long] = mapped_column(Identity(always=True), primary_key=True)
    id: Mapped[Id] = mapped_column(unique=True)
    request_id: Mapped[Id] = mapped_column(ForeignKey("removal_requests.id"))
    kind: Mapped[str] = mapped_column(String(32))
    event: Mapped[str | None] = mapped_column(String(32))
    from_state: Mapped[str | None] = mapped_column(String(32))
    to_state: Mapped[str | None] = mapped_column(String(32))
    stage: Mapped[str | None] = mapped_column(String(32))
    percent: Mapped[int | None]
    message: Mapped[Words] = mapped_column(server_default="")
    actor: Mapped[str] = mapped_column(String(128))
    data: Mapped[Document] = mapped_column(server_default="{}")
    created_at: Mapped[datetime] = _now()


class Evidence(Base):
    """One encrypted picture of the subject, re-encoded, with the hash of the bytes as they were sent."""

    __tablename__ = "evidence"

    id: Mapped[Id] = mapped_column(primary_key=True)
    request_id: Mapped[Id] = mapped_column(ForeignKey("removal_requests.id"), index=True)
    content_sha256: Mapped[Sha256]
    sealed: Mapped[Sealed | None]
    width: Mapped[int]
    height: Mapped[int]
    created_at: Mapped[datetime] = _now()
    purged_at: Mapped[Moment | None]


class DataKey(Base):
    """A key that encrypts the files of one request, itself encrypted under the evidence key.

    `id` is the key's own, as ciphertexts name it. Without a request: an evidence key of earlier, kept for
    files from before there were data keys.
    """

    __tablename__ = "data_keys"

    id: Mapped[str] = mapped_column(String(16, collation="C"), primary_key=True)
    request_id: Mapped[Id | None] = mapped_column(ForeignKey("removal_requests.id"), unique=True)
    sealed: Mapped[Sealed]
    created_at: Mapped[datetime] = _now()


class OutboxMessage(Base):
    """A job to publish, written with the state change that wants it. Its id is the task id."""

    __tablename__ = "outbox"
    __table_args__ = (
        Index("ix_outbox_unpublished", "created_at", postgresql_where=text("published_at IS NULL")),
        Index("ix_outbox_request_id_published_at", "request_id", "published_at"),
    )

    id: Mapped[Id] = mapped_column(primary_key=True)
    request_id: Mapped[Id] = mapped_column(ForeignKey("removal_requests.id"))
    task: Mapped[str] = mapped_column(String(128))
    created_at: Mapped[datetime] = _now()
    published_at: Mapped[Moment | None]
    tries: Mapped[int] = mapped_column(server_default="0")
    last_error: Mapped[Words | None]
    traceparent: Mapped[str | None] = mapped_column(String(64))


class LeaseRow(Base):
    """Who works on a request, until when. `token` grows by one with every acquisition (fencing)."""

    __tablename__ = "leases"

    request_id: Mapped[Id] = mapped_column(ForeignKey("removal_requests.id"), primary_key=True)
    token: Mapped[Long]
    holder: Mapped[str] = mapped_column(String(128))
    acquired_at: Mapped[Moment]
    heartbeat_at: Mapped[Moment]
    expires_at: Mapped[Moment]


class StageCheckpoint(Base):
    """A finished stage's artifact, so that a later attempt goes on after it."""

    __tablename__ = "stage_checkpoints"

    request_id: Mapped[Id] = mapped_column(ForeignKey("removal_requests.id"), primary_key=True)
    stage: Mapped[str] = mapped_column(String(32), primary_key=True)
    artifact: Mapped[JsonObject] = mapped_column(JSON)
    sha256: Mapped[Sha256]
    token: Mapped[Long]
    created_at: Mapped[datetime] = _now()


class VerificationScore(Base):
    """One measured metric of one attempt, with its sample size and interval."""

    __tablename__ = "verification_scores"
    __table_args__ = (
        UniqueConstraint("request_id", "attempt", "metric"),
        Index("ix_verification_scores_created_at", "created_at"),
    )

    id: Mapped[Id] = mapped_column(primary_key=True)
    request_id: Mapped[Id] = mapped_column(ForeignKey("removal_requests.id"))
    attempt: Mapped[int]
    metric: Mapped[str] = mapped_column(String(64))
    value: Mapped[float | None]
    n: Mapped[int]
    low: Mapped[float | None]
    high: Mapped[float | None]
    threshold: Mapped[float | None]
    passed: Mapped[bool | None]
    reason: Mapped[Words | None]
    details: Mapped[Document] = mapped_column(server_default="{}")
    created_at: Mapped[datetime] = _now()


class VerificationExample(Base):
    """Prompts and answers behind an attempt's scores, encrypted: what failed, or a few before and after.

    `kind`: `failure`, `regression` (of others, after publishing) or `before_after`; `n` examples in `sealed`.
    """

    __tablename__ = "verification_examples"
    __table_args__ = (UniqueConstraint("request_id", "kind"),)

    id: Mapped[Id] = mapped_column(primary_key=True)
    request_id: Mapped[Id] = mapped_column(ForeignKey("removal_requests.id"))
    kind: Mapped[str] = mapped_column(String(16))
    attempt: Mapped[int]
    n: Mapped[int]
    sealed: Mapped[Sealed]
    created_at: Mapped[datetime] = _now()


class Remeasurement(Base):
    """One figure of one request, measured again when `generation` was published.

    Of the request that was published with it, there are also the figures of the utility set.
    """

    __tablename__ = "remeasurements"
    __table_args__ = (
        UniqueConstraint("request_id", "generation", "metric"),
        Index("ix_remeasurements_generation", "generation"),
    )

    id: Mapped[Id] = mapped_column(primary_key=True)
    request_id: Mapped[Id] = mapped_column(ForeignKey("removal_requests.id"))
    generation: Mapped[Long] = mapped_column(ForeignKey("generations.number"))
    metric: Mapped[str] = mapped_column(String(64))
    value: Mapped[float | None]
    n: Mapped[int]
    low: Mapped[float | None]
    high: Mapped[float | None]
    threshold: Mapped[float | None]
    passed: Mapped[bool | None]
    reason: Mapped[Words | None]
    created_at: Mapped[datetime] = _now()


class Expert(Base):
    """One immutable version of one request's expert: where its files are and what they must hash to."""

    __tablename__ = "experts"

    id: Mapped[Id] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True)
    request_id: Mapped[Id] = mapped_column(ForeignKey("removal_requests.id"), index=True)
    path: Mapped[Words]
    manifest_sha256: Mapped[Sha256]
    bytes: Mapped[Long]
    model_fingerprint: Mapped[str | None] = mapped_column(String(64))
    created_at: Mapped[datetime] = _now()


class Generation(Base):
    """One immutable set of live experts. Numbers only grow; a rollback is a new generation.

    `experts`: how many it has.
    """

    __tablename__ = "generations"

    number: Mapped[Long] = mapped_column(primary_key=True, autoincrement=False)
    cause: Mapped[str] = mapped_column(String(32))
    request_id: Mapped[Id | None] = mapped_column(ForeignKey("removal_requests.id"))
    restored_from: Mapped[Long | None]
    experts: Mapped[int] = mapped_column(server_default=text("0"))
    created_at: Mapped[datetime] = _now()


class GenerationExpert(Base):
    """An expert version in the generations from `from_` until before `until_` (NULL: in the newest one).

    A generation thus costs what it changes, however many experts it has.
    """

    __tablename__ = "generation_experts"
    __table_args__ = (
        Index(
            "uq_generation_experts_current",
            "expert_id",
            unique=True,
            postgresql_where=text("until_generation IS NULL"),
        ),
    )

    expert_id: Mapped[Id] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True)
    from_generation: Mapped[Long] = mapped_column(ForeignKey("generations.number"), primary_key=True)
    until_generation: Mapped[Long | None] = mapped_column(ForeignKey("generations.number"))


class InterimProtection(Base):
    """A subject that is refused without an expert, in the generations from `from_` until before `until_`.

    More evidence ends one and starts the next, so that replicas read the evidence again. `protected_at`: when
    every live replica had acknowledged it, or the expert that took its place.
    """

    __tablename__ = "interim_protections"
    __table_args__ = (
        Index(
            "uq_interim_protections_current",
            "request_id",
            unique=True,
            postgresql_where=text("until_generation IS NULL"),
        ),
        Index("ix_interim_protections_unconfirmed", "id", postgresql_where=text("protected_at IS NULL")),
    )

    id: Mapped[Id] = mapped_column(primary_key=True)
    request_id: Mapped[Id] = mapped_column(ForeignKey("removal_requests.id"), index=True)
    from_generation: Mapped[Long] = mapped_column(ForeignKey("generations.number"))
    until_generation: Mapped[Long | None] = mapped_column(ForeignKey("generations.number"))
    ended_by: Mapped[str | None] = mapped_column(String(32))
    protected_at: Mapped[Moment | None]
    created_at: Mapped[datetime] = _now()


class Replica(Base):
    """A process that answers `/chat`: alive while its heartbeat is recent."""

    __tablename__ = "replicas"

    id: Mapped[Id] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(128))
    model_fingerprint: Mapped[str | None] = mapped_column(String(64))
    generation: Mapped[Long] = mapped_column(server_default="-1")
    error: Mapped[Words | None]
    error_generation: Mapped[Long | None]
    started_at: Mapped[datetime] = _now()
    heartbeat_at: Mapped[datetime] = _now()
    stopped_at: Mapped[Moment | None]


class Acknowledgement(Base):
    """A replica's word that it serves a generation."""

    __tablename__ = "acknowledgements"

    generation: Mapped[Long] = mapped_column(ForeignKey("generations.number"), primary_key=True)
    replica_id: Mapped[Id] = mapped_column(ForeignKey("replicas.id"), primary_key=True)
    acknowledged_at: Mapped[datetime] = _now()


class IdempotencyKey(Base):
    """The answer that was given to one `Idempotency-Key` of one client."""

    __tablename__ = "idempotency_keys"

    client: Mapped[Id] = mapped_column(ForeignKey("api_keys.id"), primary_key=True)
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    fingerprint: Mapped[Sha256]
    status: Mapped[int]
    location: Mapped[Words]
    body: Mapped[JsonObject] = mapped_column(JSON)
    created_at: Mapped[datetime] = _now()
    expires_at: Mapped[Moment]


class AuditEvent(Base):
    """One link of the audit chain. `payload` is kept as text-preserving JSON, since it is hashed."""

    __tablename__ = "audit_events"
    __table_args__ = (Index("ix_audit_events_subject_id_seq", "subject_id", "seq"),)

    seq: Mapped[Long] = mapped_column(primary_key=True, autoincrement=False)
    id: Mapped[Id] = mapped_column(unique=True)
    tenant_id: Mapped[Id | None] = mapped_column(index=True)
    kind: Mapped[str] = mapped_column(String(64))
    actor: Mapped[str] = mapped_column(String(128))
    subject_id: Mapped[Id | None]
    payload: Mapped[JsonObject] = mapped_column(JSON)
    created_at: Mapped[Moment]
    prev_hash: Mapped[Sha256] = mapped_column(unique=True)
    hash: Mapped[Sha256] = mapped_column(unique=True)


class AuditCheckpoint(Base):
    """The signed root of the Merkle tree over the first `seq` events.

    `peaks` are the roots of its full subtrees, so that the next checkpoint reads the newer events alone.
    """

    __tablename__ = "audit_checkpoints"

    seq: Mapped[Long] = mapped_column(primary_key=True, autoincrement=False)
    head_hash: Mapped[Sha256]
    root: Mapped[Sha256]
    peaks: Mapped[list[str]] = mapped_column(ARRAY(String(64, collation="C")))
    key_id: Mapped[str] = mapped_column(String(64))
    jws: Mapped[Words]
    issued_at: Mapped[Moment]


class AuditSalt(Base):
    """The salt of a subject's personal tokens in the chain; deleting the row erases their meaning."""

    __tablename__ = "audit_salts"

    subject_id: Mapped[Id] = mapped_column(primary_key=True)
    salt: Mapped[Sealed]
    created_at: Mapped[datetime] = _now()
