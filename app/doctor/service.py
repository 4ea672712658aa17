"""All checks together, on one snapshot of the database."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import redis
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from app.db.schema import revision_of, revisions
from app.db.session import SessionFactory
from app.doctor.findings import Check, Finding, Report
from app.doctor.registry import Live, check_files, check_registry, check_replicas
from app.doctor.repository import DoctorRepository
from app.doctor.requests import check_requests
from app.doctor.trail import check_trail
from app.kit.wake import wake_client
from app.removal.datakeys import DataKeys
from app.settings import Settings


@dataclass(frozen=True, slots=True)
class Looked:
    """What the database said: findings, how much there is, and the live experts, whose files come next."""

    findings: tuple[Finding, ...]
    requests: int = 0
    replicas: int = 0
    events: int = 0
    live: Live = ()


def examine(session_factory: SessionFactory, settings: Settings) -> Report:
    """Look at database, experts directory, audit trail, replicas and broker; say what is not as it must be.

    It only reads. What is on its way (a job just published, a generation just made) is given the time it may
    take.
    """
    broker = tuple(_broker(settings))
    try:
        with session_factory() as session:
            session.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))
            looked = look(session, settings)
            session.expunge_all()
    except OperationalError as error:
        said = str(error.orig).splitlines()[0] if error.orig is not None else type(error).__name__
        down = Finding(Check.DATABASE, "system", f"It does not answer: {said}")
        return Report((*broker, down), 0, 0, 0, 0)
    files = tuple(check_files(settings, looked.live, DataKeys(session_factory, settings)))
    return Report(
        (*broker, *looked.findings, *files),
        looked.requests,
        len(looked.live),
        looked.replicas,
        looked.events,
    )


def look(session: Session, settings: Settings) -> Looked:
    """Look at everything that is in the database, in the session's transaction."""
    repository = DoctorRepository(session)
    outdated = tuple(_schema(repository))
    if outdated:  # the other checks would ask for tables and columns that are not there
        return Looked(outdated)
    requests = repository.requests()
    newest = repository.newest()
    live = repository.live_experts(newest[0])
    replicas = repository.live_replicas(settings.replica_lease_seconds)
    trail, events = check_trail(repository, settings)
    findings = (
        *check_requests(repository, settings, requests),
        *check_registry(repository, requests, live, newest[0]),
        *check_replicas(repository, settings, live, newest, replicas),
        *trail,
    )
    return Looked(findings, len(requests), len(replicas), events, live)


def _schema(repository: DoctorRepository) -> Iterator[Finding]:
    head, found = revisions()[0], revision_of(repository.session)
    if found != head:
        yield Finding(
            Check.SCHEMA, "system", f"The database has revision {found or 'none'}; {head} is needed."
        )


def _broker(settings: Settings) -> Iterator[Finding]:
    try:
        with contextlib.closing(wake_client(settings.redis_url)) as client:
            client.ping()
    except redis.RedisError as error:
        yield Finding(Check.BROKER, "system", f"Redis does not answer ({type(error).__name__}).")
