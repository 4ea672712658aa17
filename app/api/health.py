"""Liveness and readiness."""

import contextlib
from typing import cast

import redis
from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from sqlalchemy.exc import SQLAlchemyError

from app.api.deps import SettingsDep
from app.api.engine import ServingEngine
from app.api.problems import responses
from app.db.schema import revision_of, too_old
from app.db.session import SessionFactory
from app.kit.canonical import JsonValue
from app.kit.errors import Example, ServiceUnavailable
from app.kit.wake import wake_client
from app.registry.service import RegistryService
from app.settings import Settings

router = APIRouter(tags=["health"])


class NotReady(ServiceUnavailable):
    """Something this process needs is not there; `checks` says what."""

    TYPE = "not-ready"
    TITLE = "Not ready"
    HINT = "Look at `checks`; a starting process is ready within seconds."
    EXAMPLE = Example(
        "Not ready: engine.", extra={"checks": {"database": "ok", "broker": "ok", "engine": "not loaded"}}
    )


class Alive(BaseModel):
    """The process answers."""

    status: str = "ok"


class Ready(BaseModel):
    """Everything this process needs is there."""

    status: str = "ready"
    checks: dict[str, str] = Field(description="`ok`, or what is wrong.")
    generation: int | None = Field(description="Registry generation this process serves.")


@router.get("/healthz", summary="Is the process alive")
def healthz() -> Alive:
    """Answer as long as the process can."""
    return Alive()


@router.get("/readyz", summary="Can the process do its work", responses=responses(NotReady))
def readyz(request: Request, settings: SettingsDep) -> Ready:
    """Check database, schema and Redis, and that this replica has its model and serves the newest generation.

    A process whose database lacks a migration is not ready; one whose database is newer goes on.
    """
    engine = cast("ServingEngine | None", getattr(request.app.state, "engine", None))
    wanted = getattr(request.app.state, "with_engine", True)
    newest, found = _database(cast("SessionFactory", request.app.state.session_factory), settings)
    checks = {**found, "redis": _redis(settings)}
    serves = engine.generation if engine is not None else None
    if wanted:
        troubles = engine.troubles if engine is not None else ["not loaded"]
        checks["engine"] = "; ".join(troubles) or "ok"
        checks["registry"] = (
            "ok" if newest is not None and serves is not None and serves >= newest else f"serves {serves}"
        )
    bad = [name for name, found in checks.items() if found != "ok"]
    if bad:
        listed: dict[str, JsonValue] = dict(checks)
        raise NotReady(
            f"Not ready: {', '.join(bad)}.", extra={"checks": listed}, headers={"Retry-After": "1"}
        )
    return Ready(checks=checks, generation=serves)


def _database(factory: SessionFactory, settings: Settings) -> tuple[int | None, dict[str, str]]:
    """Return the newest generation, and what is to be said of the database and of its schema."""
    try:
        with factory.begin() as session:
            revision = revision_of(session)
            if too_old(revision):
                outdated = f"revision {revision or 'none'}; run `lethe migrate`"
                return None, {"database": "ok", "schema": outdated}
            return RegistryService(session, settings).newest(), {"database": "ok", "schema": "ok"}
    except SQLAlchemyError as error:
        return None, {"database": f"not reachable ({type(error).__name__})"}


def _redis(settings: Settings) -> str:
    try:
        with contextlib.closing(wake_client(settings.redis_url)) as client:
            client.ping()
    except redis.RedisError as error:
        return f"not reachable ({type(error).__name__})"
    return "ok"
