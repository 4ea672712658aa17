"""HTTP for the audit trail."""

from datetime import datetime
from typing import Annotated, cast

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, Field, JsonValue

from app.accounts.principal import Principal
from app.api.deps import SessionDep, SettingsDep, require
from app.api.pagination import Cursor, Limit, PageOf, decode_number, encode_cursor
from app.api.problems import responses
from app.audit.repository import AuditRepository
from app.audit.service import AuditService
from app.audit.signing import Signer
from app.kit.clock import rfc3339, utcnow

router = APIRouter(tags=["audit"])
_AUDITORS = Depends(require("auditor", "operator"))
Auditors = Annotated[Principal, _AUDITORS]


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


class ChainView(BaseModel):
    """What recomputing the whole chain found."""

    intact: bool
    events: int = Field(description="How many events fit, from the first on.")
    head_seq: int
    head_hash: str
    broken_at: int | None = Field(description="The first event that does not fit.")
    reason: str | None
    checked_at: datetime


class CheckpointView(BaseModel):
    """The chain's head, signed: keep it elsewhere, and a cut-off tail will show."""

    seq: int
    hash: str
    issued_at: str
    jws: str = Field(description="The same three as a compact JWS (Ed25519).")


@router.get("/audit/events", summary="Read the audit trail", responses=responses())
def list_events(
    principal: Auditors,
    session: SessionDep,
    subject_id: Annotated[str | None, Query(max_length=64, description="About this object only.")] = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> PageOf[AuditEventView]:
    """List events in chain order, oldest first: this tenant's, or everybody's for the root tenant."""
    page = AuditRepository(session).visible(
        principal.sees,
        after=decode_number(cursor),
        limit=limit,
        subject_id=subject_id.replace("\0", "") if subject_id else None,
    )
    items = [
        AuditEventView(
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
        for event in page.items
    ]
    return PageOf(items=items, next=encode_cursor(page.items[-1].seq) if page.more else None)


@router.post("/audit/verify", summary="Recompute the chain", dependencies=[_AUDITORS], responses=responses())
def verify_chain(session: SessionDep) -> ChainView:
    """Recompute every hash and link of the whole chain."""
    report = AuditService(session).verify()
    return ChainView(
        intact=report.intact,
        events=report.events,
        head_seq=report.head_seq,
        head_hash=report.head_hash,
        broken_at=report.broken_at,
        reason=report.reason,
        checked_at=utcnow(),
    )


@router.get(
    "/audit/checkpoint", summary="The chain's signed head", dependencies=[_AUDITORS], responses=responses()
)
def checkpoint(session: SessionDep, settings: SettingsDep) -> CheckpointView:
    """Return number and hash of the newest event, signed."""
    seq, digest = AuditService(session).head()
    issued_at = rfc3339(utcnow())
    token = Signer(settings).sign(
        {"seq": seq, "hash": digest, "issued_at": issued_at}, type="lethe-checkpoint+jws"
    )
    return CheckpointView(seq=seq, hash=digest, issued_at=issued_at, jws=token)


@router.get("/.well-known/jwks.json", summary="Public keys of our signatures")
def keys(settings: SettingsDep) -> dict[str, list[dict[str, str]]]:
    """Return the public keys that checkpoints and certificates are signed with, as a JWK set."""
    return {"keys": Signer(settings).public_keys()}
