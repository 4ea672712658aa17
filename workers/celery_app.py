"""The Celery application: how jobs get to a worker, and what a worker process keeps warm.

    python -m celery -A workers.celery_app:app worker

Postgres is the truth, Redis only wakes workers (see workers/outbox.py): a task that is delivered twice finds
the lease taken, one that is lost is published again by the sweeper.
"""

from __future__ import annotations

import logging
import os
from typing import Any

from celery import Celery
from celery.signals import setup_logging, worker_process_init, worker_ready, worker_shutdown

from app.db.session import create_engine_from, session_factory
from app.kit.errors import ConfigurationError
from app.kit.logging import configure_logging, get_logger
from app.kit.tracing import configure_tracing
from app.settings import Settings, get_settings
from workers.outbox import OutboxLoop, celery_publisher
from workers.webhooks import WebhookLoop

_log = get_logger("worker")

VISIBILITY_SECONDS = 6 * 3600
"""Longer than the longest stage. The Redis transport hands an unacknowledged task out again after it."""

MODEL_LOADING_SECONDS = 1800
"""How long a fresh child may take to load the base model before the pool replaces it."""

SOFT_SHUTDOWN_SECONDS = 15.0
"""How long a stopping worker waits for its task; below compose's stop_grace_period."""


def create_celery(settings: Settings) -> Celery:
    """Return the application for these settings."""
    celery = Celery("lethe", broker=settings.redis_url, include=["workers.tasks"])
    celery.conf.update(
        task_default_queue="lethe",
        task_ignore_result=True,
        task_serializer="json",
        accept_content=["json"],
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=1,
        worker_concurrency=1,
        worker_pool="prefork",
        worker_pool_start_method="spawn",  # fork and CUDA do not mix
        worker_proc_alive_timeout=MODEL_LOADING_SECONDS,
        worker_soft_shutdown_timeout=SOFT_SHUTDOWN_SECONDS,
        worker_enable_soft_shutdown_on_idle=False,
        worker_hijack_root_logger=False,
        worker_send_task_events=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "visibility_timeout": VISIBILITY_SECONDS,
            "socket_timeout": 30,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
            "retry_on_timeout": True,
            "health_check_interval": 10,
        },
        # The Redis documentation names three places; all must agree.
        result_backend_transport_options={"visibility_timeout": VISIBILITY_SECONDS},
        visibility_timeout=VISIBILITY_SECONDS,
        redis_socket_timeout=30,
        redis_socket_connect_timeout=5,
        redis_socket_keepalive=True,
    )
    return celery


app = create_celery(get_settings())
_outbox: OutboxLoop | None = None
_webhooks: WebhookLoop | None = None


def _logging(loglevel: int | str | None = None, **_: Any) -> None:
    level = logging.getLevelName(loglevel) if isinstance(loglevel, str) else loglevel
    configure_logging(level=level if isinstance(level, int) else logging.INFO)


def _start_outbox(**_: Any) -> None:
    """Start the loops of the worker's main process, once: a reconnected consumer is ready again."""
    global _outbox, _webhooks
    if _outbox is None:
        settings = get_settings()
        sessions = session_factory(create_engine_from(settings, connections=4))
        _outbox = OutboxLoop(sessions, settings, celery_publisher(app))
        _outbox.start()
        _webhooks = WebhookLoop(session_factory(create_engine_from(settings, connections=8)), settings)
        _webhooks.start()


def _stop_outbox(**_: Any) -> None:
    global _outbox, _webhooks
    if _outbox is not None:
        _outbox.stop()
        _outbox = None
    if _webhooks is not None:
        _webhooks.stop()
        _webhooks = None


def _warm(**_: Any) -> None:
    """Load the base model in the child that will work, before the first request pays for it."""
    from workers.aftercare import BUDGET
    from workers.tasks import runtime

    configure_logging()
    configure_tracing(get_settings().otlp_endpoint, "lethe-worker")
    try:
        warm = runtime()
    except Exception as error:  # said once here, and again by every task until somebody corrects it
        _log.error("the base model cannot be loaded", error=str(error))
        return
    _log.info("base model is warm", pid=os.getpid(), model=warm.mllm.fingerprint[:12])
    try:
        warm.negatives()
        warm.utility(BUDGET.utility)
    except ConfigurationError as error:  # every request says so, too, and waits for a person
        _log.warning("neither negative nor utility set", error=str(error))


setup_logging.connect(_logging)
worker_ready.connect(_start_outbox)
worker_shutdown.connect(_stop_outbox)
worker_process_init.connect(_warm)
