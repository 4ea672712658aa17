"""HTTP for the registry: operators only, since it is the list of the forgotten."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field

from app.accounts.principal import Principal
from app.api.deps import SessionDep, SettingsDep, require
from app.api.pagination import Cursor, Limit, PageOf, decode_cursor, decode_number, encode_cursor
from app.api.problems import responses
from app.api.routes import CommittingRoute
from app.kit.ids import expert_id_of
from app.kit.whole import WholeNumber
from app.registry.errors import GenerationNotFound, RootAlone
from app.registry.service import RegistryService, roll_back

router = APIRouter(tags=["registry"], route_class=CommittingRoute)
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


class GenerationView(BaseModel):
    """One generation of the registry."""

    model_config = ConfigDict(from_attributes=True)

    number: int
    cause: str = Field(description="`publish`, `revoke`, `rollback`, `protect`, ...")
    request_id: str | None = Field(description="For which request; null also for one of another tenant.")
    restored_from: int | None = Field(description="Which one a rollback went back to.")
    created_at: datetime


class Rollback(BaseModel):
    """Which generation's experts shall be served again."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"generation": 41}})

    generation: WholeNumber = Field(
        ge=0, le=2**53 - 1, description="The newest puts right what is not so in it."
    )


class RegistryView(BaseModel):
    """The newest generation, its experts, and the replicas that serve it."""

    generation: int
    acknowledged: bool = Field(description="Whether every live replica serves it, and there is one.")
    items: list[ExpertView]
    next: str | None
    interim: int = Field(description="How many subjects are refused without an expert; see /experts/interim.")
    replicas: list[ReplicaView]


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


@router.get("/experts/generations", summary="How the registry changed", responses=responses())
def list_generations(
    principal: Operators,
    session: SessionDep,
    settings: SettingsDep,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> PageOf[GenerationView]:
    """List generations, newest first; whose request made one is said only of one's own."""
    page = RegistryService(session, settings).history(
        principal.sees, after=decode_number(cursor), limit=limit
    )
    return PageOf(
        items=[GenerationView.model_validate(step) for step in page.items],
        next=encode_cursor(page.items[-1].number) if page.more else None,
    )


@router.post(
    "/experts/rollback",
    summary="Serve an earlier generation's experts again",
    responses=responses(GenerationNotFound, RootAlone),
)
def rollback(
    principal: Operators, session: SessionDep, settings: SettingsDep, body: Rollback
) -> GenerationView:
    """Make a new generation with the experts of an earlier one, as far as today's requests allow.

    Experts of requests that have ended never come back; whoever is active keeps an expert. For operators of
    the tenant `root`: it concerns everybody's experts.
    """
    registry = RegistryService(session, settings)
    number = roll_back(registry, principal, body.generation)
    step = registry.history(None, after=number + 1, limit=1).items[0]
    return GenerationView.model_validate(step)


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
