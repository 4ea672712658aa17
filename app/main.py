"""The application: settings, every room's routes, and the engine's life."""

import importlib
import importlib.util
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import cast

from fastapi import APIRouter, FastAPI
from starlette.concurrency import run_in_threadpool

from app.accounts.lately import LatelySeen
from app.accounts.service import authenticate
from app.api import health, problems
from app.api.context import RequestContext
from app.api.engine import ServingEngine
from app.api.limits import SMALL_BODY_BYTES, BodyLimit, HeadLimit, SecurityHeaders
from app.api.rates import RateLimits
from app.audit.checkpoints import CheckpointLoop
from app.dashboard.rendering import error_page
from app.db.session import SessionFactory, create_engine_from, reading_engine, session_factory
from app.kit.logging import configure_logging, get_logger
from app.kit.tracing import configure_tracing
from app.settings import Settings, get_settings

ROOMS = ("removal", "chat", "registry", "audit", "accounts", "webhooks", "dashboard")
_WITH_PICTURES = (
    "/unlearn-requests", "/requests/", "/chat", "/v1/", "/dashboard/requests", "/dashboard/playground",
)  # fmt: skip
_log = get_logger("main")

DESCRIPTION = """\
Owners file removal requests; a worker trains one expert for each; verified experts go live in every replica;
`/chat` then no longer gives the content away and answers everything else as before.

Authorise with an API key (`lethe keys create`). Errors are RFC 9457 problem documents with a `hint`.
"""


def create_app(settings: Settings | None = None, *, with_engine: bool = True) -> FastAPI:
    """Return the application.

    Args:
        settings: by default this process's, from the environment.
        with_engine: load the base model and answer `/chat`; without it the process only serves the rest.

    Raises:
        ConfigurationError: a setting is missing or unusable; the message names the variable.
    """
    settings = settings or get_settings()
    configure_logging(json=settings.env == "production")
    configure_tracing(settings.otlp_endpoint, "lethe-api")

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        if with_engine:
            app.state.engine = await run_in_threadpool(_start_engine, settings, app.state.session_factory)
        checkpoints = CheckpointLoop(app.state.session_factory, settings)
        checkpoints.start()
        _log.info("started", env=settings.env, engine=settings.engine if with_engine else "none")
        try:
            yield
        finally:
            await run_in_threadpool(checkpoints.stop)
            engine = cast("ServingEngine | None", app.state.engine)
            if engine is not None:
                await run_in_threadpool(engine.close)
            database.dispose()

    app = FastAPI(
        title="Lethe",
        version=_version(),
        description=DESCRIPTION,
        lifespan=lifespan,
        generate_unique_id_function=lambda route: route.name,
    )
    database = create_engine_from(settings)
    app.state.settings = settings
    app.state.session_factory = session_factory(database)
    app.state.reading_engine = reading_engine(database)
    app.state.keys = LatelySeen(partial(authenticate, session_factory(app.state.reading_engine)))
    app.state.with_engine = with_engine
    app.state.rates = RateLimits(settings)
    app.state.engine = None

    def limit_of(path: str) -> int:
        return settings.max_body_bytes if path.startswith(_WITH_PICTURES) else SMALL_BODY_BYTES

    app.add_middleware(BodyLimit, limit_of=limit_of, seconds=settings.body_seconds)
    app.add_middleware(HeadLimit)
    app.add_middleware(SecurityHeaders, strict_transport=settings.env == "production")
    app.add_middleware(RequestContext)
    problems.install(app)
    app.state.error_pages = {"/dashboard": error_page}
    app.include_router(health.router)
    for room in ROOMS:
        if (with_engine or room != "chat") and (router := _router(room)) is not None:
            app.include_router(router)
    return app


def _router(room: str) -> APIRouter | None:
    """Return a room's routes, or None for a room without any."""
    try:
        found = importlib.util.find_spec(f"app.{room}.endpoints")
    except ModuleNotFoundError:
        return None
    if found is None:
        return None
    return cast("APIRouter", importlib.import_module(found.name).router)


def _start_engine(settings: Settings, sessions: SessionFactory) -> ServingEngine:
    # Imported late: torch and transformers take seconds, and only this process needs them.
    from app.chat.service import ChatEngine

    return ChatEngine.start(settings, sessions)


def _version() -> str:
    try:
        return version("lethe")
    except PackageNotFoundError:
        return "0"
