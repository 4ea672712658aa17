"""HTTP for the registry: operators only, since it is the list of the forgotten."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Path
from pydantic import BaseModel, Field

from app.accounts.principal import Principal
from app.api.deps import SessionDep, SettingsDep, require
from app.api.pagination import Cursor, Limit, PageOf, decode_cursor, decode_number, encode_cursor
from app.api.problems import responses
from app.kit.errors import Forbidden
from app.kit.ids import expert_id_of
from app.registry.errors import GenerationNotFound
from app.registry.service import RegistryService

router = APIRouter(tags=["registry"])
Operators = Annotated[Principal, Depends(require("operator"))]


class ExpertView(BaseModel):
    """A live expert."""

    id: str
    version: int
    request_id: str
    path: str
    manifest_sha256: str
    bytes: int
    fingerprint: str | None = Field(description="Of the base model it was trained for.")
    created_at: datetime


class InterimView(BaseModel):
    """A subject that is refused without an expert, because its request was approved and has none yet."""

    id: str
    expert_id: str = Field(description="That the expert will have.")
    request_id: str
    since_generation: int
    created_at: datetime
    protected_at: datetime | None = Field(description="When every live replica had acknowledged it.")


class InterimPage(BaseModel):
    """Interim protections, newest first."""

    items: list[InterimView]
    next: str | None


class ReplicaView(BaseModel):
    """A live replica and what it serves."""

    id: str
    name: str
    fingerprint: str | None = Field(description="Of the base model it serves.")
    generation: int = Field(description="-1 before the first one was loaded.")
    error: str | None
    heartbeat_at: datetime


class RegistryView(BaseModel):
    """The newest generation, its experts, and the replicas that serve it."""

    generation: int
    acknowledged: bool = Field(description="Whether every live replica serves it, and there is one.")
    items: list[ExpertView]
    next: str | None
    interim: int = Field(description="How many subjects are refused without an expert; see /experts/interim.")
    replicas: list[ReplicaView]


class GenerationView(BaseModel):
    """One set of live experts there was."""

    number: int
    cause: str = Field(description="`protect`, `publish`, `revoke`, `rollback`, ...")
    restored_from: int | None = Field(description="The generation that a rollback went back to.")
    created_at: datetime
    request_id: str | None = Field(description="The request it is about; null also for another tenant's.")
    experts: int = Field(description="How many it has, of all tenants.")


class RestoredView(BaseModel):
    """What a rollback made."""

    generation: int = Field(description="The new generation.")
    restored: int = Field(description="The one that it goes back to.")
    experts: int
    interim: int = Field(description="How many subjects it refuses without an expert.")


@router.get("/experts", summary="Live experts", responses=responses())
def list_experts(
    principal: Operators,
    session: SessionDep,
    settings: SettingsDep,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> RegistryView:
    """List the newest generation's experts: this tenant's, or everybody's for the root tenant."""
    registry = RegistryService(session, settings)
    generation = registry.newest()
    page = registry.listed(principal.sees, after=decode_cursor(cursor), limit=limit)
    return RegistryView(
        generation=generation,
        acknowledged=registry.acknowledged(generation),
        items=[
            ExpertView(
                id=expert.id,
                version=expert.version,
                request_id=expert.request_id,
                path=expert.path,
                manifest_sha256=expert.manifest_sha256,
                bytes=expert.bytes,
                fingerprint=expert.model_fingerprint,
                created_at=expert.created_at,
            )
            for expert in page.items
        ],
        next=encode_cursor(page.items[-1].id) if page.more else None,
        interim=len(registry.live_interims(generation)),
        replicas=[
            ReplicaView(
                id=replica.id,
                name=replica.name,
                fingerprint=replica.model_fingerprint,
                generation=replica.generation,
                error=replica.error,
                heartbeat_at=replica.heartbeat_at,
            )
            for replica in registry.live_replicas()
        ],
    )


@router.get("/experts/interim", summary="Subjects protected without an expert yet", responses=responses())
def list_interims(
    principal: Operators,
    session: SessionDep,
    settings: SettingsDep,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> InterimPage:
    """List who is refused until an expert is live: this tenant's, or everybody's for the root tenant."""
    page = RegistryService(session, settings).listed_interims(
        principal.sees, after=decode_cursor(cursor), limit=limit
    )
    return InterimPage(
        items=[
            InterimView(
                id=row.id,
                expert_id=expert_id_of(row.request_id),
                request_id=row.request_id,
                since_generation=row.from_generation,
                created_at=row.created_at,
                protected_at=row.protected_at,
            )
            for row in page.items
        ],
        next=encode_cursor(page.items[-1].id) if page.more else None,
    )


@router.get("/generations", summary="The registry's history", responses=responses())
def list_generations(
    principal: Operators,
    session: SessionDep,
    settings: SettingsDep,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> PageOf[GenerationView]:
    """List the generations there were, newest first."""
    found, more = RegistryService(session, settings).history(
        principal.sees, after=decode_number(cursor), limit=limit
    )
    return PageOf(
        items=[
            GenerationView(
                number=row.number,
                cause=row.cause,
                restored_from=row.restored_from,
                created_at=row.created_at,
                request_id=row.request_id if visible else None,
                experts=experts,
            )
            for row, experts, visible in found
        ],
        next=encode_cursor(found[-1][0].number) if more else None,
    )


@router.post(
    "/generations/{generation}/restore",
    summary="Roll the registry back",
    responses=responses(GenerationNotFound),
)
def restore_generation(
    generation: Annotated[int, Path(ge=0, le=2**63 - 1, description="Its number.")],
    principal: Operators,
    session: SessionDep,
    settings: SettingsDep,
) -> RestoredView:
    """Make a new generation with an earlier one's experts, as far as today's requests allow it.

    It concerns every tenant, so it takes an operator's key of the root tenant. Experts of requests that have
    ended never come back; whoever is active keeps an expert; the newest generation's number repairs it.
    """
    if not principal.root:
        raise Forbidden(
            "A rollback concerns every tenant.",
            "Use an operator's key of the root tenant, or `lethe rollback`.",
        )
    registry = RegistryService(session, settings)
    number = registry.rollback(generation, actor=principal.key_id)
    return RestoredView(
        generation=number,
        restored=generation,
        experts=len(registry.live_experts()),
        interim=len(registry.live_interims()),
    )
