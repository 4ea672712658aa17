"""HTTP for the audit trail."""

from typing import Annotated, Literal, cast

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import StreamingResponse

from app.accounts.principal import Principal
from app.accounts.service import Scope
from app.api.deps import SessionDep, SettingsDep, require
from app.api.pagination import Cursor, Limit, PageOf, decode_number, encode_cursor
from app.api.problems import responses
from app.api.routes import CommittingRoute
from app.audit.checkpoints import CheckpointService
from app.audit.errors import ChainBroken, NotCovered
from app.audit.export import AuditExport
from app.audit.repository import AuditRepository
from app.audit.schemas import (
    AuditEventView,
    ChainView,
    CheckpointView,
    ConsistencyView,
    Kept,
    ProofView,
)
from app.audit.signing import Signer
from app.db.session import SessionFactory
from app.kit.clock import utcnow

router = APIRouter(tags=["audit"], route_class=CommittingRoute)
AUDITORS: tuple[Scope, ...] = ("auditor", "operator")
_AUDITORS = Depends(require(*AUDITORS))
Auditors = Annotated[Principal, _AUDITORS]
_LARGEST = 2**63 - 1
Number = Annotated[int, Path(ge=1, le=_LARGEST, description="Number of an event: its `seq`.")]
Size = Annotated[int, Query(ge=1, le=_LARGEST, description="A checkpoint, by its `seq`.")]


@router.get("/audit/events", summary="Read the audit trail", responses=responses())
def list_events(
    principal: Auditors,
    session: SessionDep,
    subject_id: Annotated[str | None, Query(max_length=64, description="About this object only.")] = None,
    kind: Annotated[str | None, Query(max_length=64, description="Kinds that begin like this.")] = None,
    order: Annotated[Literal["oldest", "newest"], Query(description="What comes first.")] = "oldest",
    limit: Limit = 100,
    cursor: Cursor = None,
) -> PageOf[AuditEventView]:
    """List events in chain order: this tenant's, or everybody's for the root tenant."""
    page = AuditRepository(session).visible(
        principal.sees,
        after=decode_number(cursor),
        limit=limit,
        subject_id=subject_id.replace("\0", "") if subject_id else None,
        kind=kind.replace("\0", "") if kind else None,
        newest_first=order == "newest",
    )
    items = [AuditEventView.of(event) for event in page.items]
    return PageOf(items=items, next=encode_cursor(page.items[-1].seq) if page.more else None)


@router.get(
    "/audit/events/{seq}/proof",
    summary="Prove that an event is in the log",
    responses=responses(NotCovered),
)
def prove_event(
    seq: Number,
    principal: Auditors,
    session: SessionDep,
    settings: SettingsDep,
    size: Annotated[
        int | None,
        Query(ge=1, le=_LARGEST, description="Under this checkpoint; by default the first that covers it."),
    ] = None,
) -> ProofView:
    """Return the event, a signed checkpoint, and the Merkle path between them (RFC 6962)."""
    proof = CheckpointService(session, settings).prove(seq, principal.sees, size)
    return ProofView(
        event=AuditEventView.of(proof.event),
        index=seq - 1,
        path=proof.path,
        checkpoint=CheckpointView.of(proof.checkpoint),
    )


@router.get(
    "/audit/export",
    summary="The whole log as JSON lines",
    response_class=StreamingResponse,
    responses={
        200: {"description": "One JSON object a line.", "content": {"application/jsonl": {}}},
        **responses(ChainBroken),
    },
)
def export_log(request: Request, principal: Auditors, settings: SettingsDep) -> StreamingResponse:
    """Stream the log from the first event on, and every signed checkpoint.

    `lethe audit verify` checks it without the service. Events of other tenants come as
    their hashes alone, so that the chain can be followed through them.
    """
    factory = cast("SessionFactory", request.app.state.session_factory)
    export = AuditExport(
        factory,
        settings,
        actor=principal.key_id,
        home_tenant=principal.tenant_id,
        tenant_id=principal.sees,
    )
    headers = {
        "Content-Disposition": f'attachment; filename="audit-{export.size}.jsonl"',
        "Cache-Control": "no-store",
    }
    return StreamingResponse(export.lines(), media_type="application/jsonl", headers=headers)


@router.post("/audit/verify", summary="Recompute the chain", dependencies=[_AUDITORS], responses=responses())
def verify_chain(session: SessionDep, settings: SettingsDep, body: Kept | None = None) -> ChainView:
    """Recompute every hash and link of the whole chain, and hold it against every stored checkpoint.

    A database that was restored from a backup agrees with its own checkpoints: send those that you kept.
    """
    report = CheckpointService(session, settings).verify(body.checkpoints if body else ())
    return ChainView.of(report, utcnow())


@router.get(
    "/audit/checkpoint",
    summary="The chain's signed head",
    dependencies=[_AUDITORS],
    responses=responses(ChainBroken),
)
def checkpoint(session: SessionDep, settings: SettingsDep) -> CheckpointView:
    """Return a signed checkpoint over all events there are, issued and stored now if there are new ones."""
    return CheckpointView.of(CheckpointService(session, settings).issue())


@router.get("/audit/checkpoints", summary="Every checkpoint", dependencies=[_AUDITORS], responses=responses())
def list_checkpoints(
    session: SessionDep, settings: SettingsDep, limit: Limit = 100, cursor: Cursor = None
) -> PageOf[CheckpointView]:
    """List the checkpoints that were issued, newest first."""
    page = CheckpointService(session, settings).listed(after=decode_number(cursor), limit=limit)
    items = [CheckpointView.of(row) for row in page.items]
    return PageOf(items=items, next=encode_cursor(page.items[-1].seq) if page.more else None)


@router.get(
    "/audit/consistency",
    summary="Prove that the log only grew",
    dependencies=[_AUDITORS],
    responses=responses(NotCovered),
)
def prove_consistency(
    session: SessionDep, settings: SettingsDep, older: Size, newer: Size
) -> ConsistencyView:
    """Return the proof that the log under the newer checkpoint begins with that under the older."""
    first, second, path = CheckpointService(session, settings).prove_consistent(older, newer)
    return ConsistencyView(older=CheckpointView.of(first), newer=CheckpointView.of(second), path=path)


@router.get("/.well-known/jwks.json", summary="Public keys of our signatures")
def keys(settings: SettingsDep) -> dict[str, list[dict[str, str]]]:
    """Return the public keys of checkpoints and certificates as a JWK set, the current one first.

    Keys that were current earlier stay here, so that what they signed can still be checked.
    """
    return {"keys": Signer(settings).public_keys()}
