"""What goes over the wire about the audit trail."""

from datetime import datetime
from typing import Annotated, Self, cast

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from app.audit.chain import ChainReport
from app.db.models import AuditCheckpoint, AuditEvent
from app.kit.clock import rfc3339


class AuditEventView(BaseModel):
    """One link of the chain, with everything its hash covers."""

    seq: int
    id: str
    tenant_id: str | None
    kind: str
    actor: str
    subject_id: str | None
    payload: dict[str, JsonValue]
    created_at: str = Field(description="With six fractional digits, as it was hashed.")
    prev_hash: str
    hash: str

    @classmethod
    def of(cls, event: AuditEvent) -> Self:
        """Return the wire form of an event."""
        return cls(
            seq=event.seq,
            id=event.id,
            tenant_id=event.tenant_id,
            kind=event.kind,
            actor=event.actor,
            subject_id=event.subject_id,
            payload=cast("dict[str, JsonValue]", event.payload),
            created_at=rfc3339(event.created_at),
            prev_hash=event.prev_hash,
            hash=event.hash,
        )


class Kept(BaseModel):
    """Checkpoints that were kept outside this service."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"checkpoints": []}})

    checkpoints: list[Annotated[str, Field(max_length=4000)]] = Field(
        default_factory=list,
        max_length=1000,
        description="Compact JWS, as `GET /audit/checkpoint` gave them.",
    )


class ChainView(BaseModel):
    """What recomputing the whole chain found."""

    intact: bool
    events: int = Field(description="How many events fit, from the first on.")
    head_seq: int
    head_hash: str
    broken_at: int | None = Field(description="The first event that does not fit.")
    breach: str | None = Field(
        description="`edited`, `missing`, `out_of_order`, `unlinked`, `truncated`, `diverged` or `unsigned`."
    )
    reason: str | None
    checkpoints: int = Field(description="How many signed checkpoints the chain agrees with.")
    checked_at: datetime

    @classmethod
    def of(cls, report: ChainReport, checked_at: datetime) -> Self:
        """Return the wire form of a report."""
        return cls(
            intact=report.intact,
            events=report.events,
            head_seq=report.head_seq,
            head_hash=report.head_hash,
            broken_at=report.broken_at,
            breach=report.breach,
            reason=report.reason,
            checkpoints=report.checkpoints,
            checked_at=checked_at,
        )


class CheckpointView(BaseModel):
    """The chain at one moment, signed: keep it elsewhere, and whatever is changed later will show."""

    seq: int = Field(description="How many events it covers.")
    hash: str = Field(description="Of the last of them.")
    root: str = Field(description="Of the Merkle tree (RFC 6962) over the events' hashes.")
    issued_at: str
    jws: str = Field(description="The same four as a compact JWS (Ed25519).")

    @classmethod
    def of(cls, row: AuditCheckpoint) -> Self:
        """Return the wire form of a checkpoint."""
        return cls(
            seq=row.seq, hash=row.head_hash, root=row.root, issued_at=rfc3339(row.issued_at), jws=row.jws
        )


class ProofView(BaseModel):
    """An event and its way up to a signed root: leaf `SHA-256(0x00 | hash)`, node `SHA-256(0x01 | l | r)`."""

    event: AuditEventView
    index: int = Field(description="Of the leaf, from 0.")
    path: list[str] = Field(description="Siblings from the bottom up (RFC 9162, section 2.1.3.2).")
    checkpoint: CheckpointView


class ConsistencyView(BaseModel):
    """Proof that the log under the newer checkpoint begins with the one under the older."""

    older: CheckpointView
    newer: CheckpointView
    path: list[str] = Field(description="As RFC 9162, section 2.1.4.2, reads it.")
