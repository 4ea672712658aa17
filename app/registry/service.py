"""Publishing, revoking and rolling back experts, and knowing when every replica serves them."""

import contextlib
from dataclasses import dataclass
from pathlib import PurePath
from typing import Protocol

import redis
from sqlalchemy import event
from sqlalchemy.orm import Session

from app.audit.service import AuditService
from app.db.models import Expert, Generation, Replica
from app.db.repository import Page, lock_ledger
from app.kit.canonical import JsonValue
from app.kit.logging import get_logger
from app.kit.wake import wake_client
from app.registry.errors import GenerationNotFound, NotLive, NotPublishing
from app.registry.repository import GenerationRepository, ReplicaRepository
from app.settings import Settings

CHANNEL = "lethe:generation"
_PENDING = "lethe.registry.announce"
_log = get_logger("registry")


class StalePublish(NotPublishing):
    """The fencing token is not the current one: another attempt has taken over."""

    TYPE = "stale-lease"
    TITLE = "The lease was lost"
    HINT = "Stop working on this request; another attempt has taken over."


class ExpertRefLike(Protocol):
    """What `app.lumoe.expert.write_expert` returns, as far as the registry needs it."""

    @property
    def expert_id(self) -> str:
        """Id of the expert, the same for all its versions."""

    @property
    def version(self) -> int:
        """Version, from 1."""

    @property
    def path(self) -> str | PurePath:
        """Directory, relative to the experts directory."""

    @property
    def manifest_sha256(self) -> str:
        """SHA-256 of the manifest, which holds those of the files."""

    @property
    def bytes(self) -> int:
        """Size of all files together."""


@dataclass(frozen=True, slots=True)
class ExpertRow:
    """One live expert: where its files are and what the manifest must hash to."""

    id: str
    version: int
    path: str
    manifest_sha256: str
    request_id: str
    model_fingerprint: str | None = None


class GenerationWriter:
    """Makes new generations, each in the audit trail; wakes the replicas after the commit.

    Args:
        session: the caller's transaction.
        redis_url: where replicas listen; None leaves it to their polling.
    """

    def __init__(self, session: Session, redis_url: str | None) -> None:
        self._session = session
        self._redis_url = redis_url
        self._generations = GenerationRepository(session)
        self._audit = AuditService(session)

    def create(
        self,
        members: list[tuple[str, int]],
        *,
        cause: str,
        actor: str,
        request_id: str | None,
        tenant_id: str | None,
        payload: dict[str, JsonValue],
        restored_from: int | None = None,
    ) -> int:
        """Write the next generation with these (expert id, version) and return its number."""
        number = self._generations.newest() + 1
        self._generations.create(
            Generation(number=number, cause=cause, request_id=request_id, restored_from=restored_from),
            members,
        )
        self._audit.append(
            f"registry.{cause}",
            actor=actor,
            subject_id=request_id,
            tenant_id=tenant_id,
            payload={"generation": number, "experts": len(members), **payload},
        )
        if self._redis_url is not None:
            announce_after_commit(self._session, self._redis_url, number)
        return number

    def take_out(self, request_id: str, *, actor: str, tenant_id: str | None) -> int | None:
        """Make a generation without the request's expert; None, and nothing done, if it has no live one."""
        lock_ledger(self._session)
        current = self._generations.experts(self._generations.newest())
        members = [(e.id, e.version) for e in current if e.request_id != request_id]
        if len(members) == len(current):
            return None
        return self.create(
            members, cause="revoke", actor=actor, request_id=request_id, tenant_id=tenant_id, payload={}
        )


class RegistryService:
    """One transaction's view of the registry. It never commits; replicas are woken after the commit."""

    def __init__(self, session: Session, settings: Settings) -> None:
        self._session = session
        self._settings = settings
        self._generations = GenerationRepository(session)
        self._replicas = ReplicaRepository(session)
        self._writer = GenerationWriter(session, settings.redis_url)

    def newest(self) -> int:
        """Return the newest generation's number (0 before the first publish)."""
        return self._generations.newest()

    def live_experts(self, generation: int | None = None) -> list[ExpertRow]:
        """Return the experts of a generation, by default of the newest."""
        number = self.newest() if generation is None else generation
        return [_row(expert) for expert in self._generations.experts(number)]

    def listed(self, tenant_id: str | None, *, after: str | None, limit: int) -> Page[Expert]:
        """Return the newest generation's experts of a tenant (None: of all), newest first."""
        return self._generations.listed(tenant_id, after=after, limit=limit)

    def publish(
        self, *, request_id: str, ref: ExpertRefLike, token: int, model_fingerprint: str | None = None
    ) -> int:
        """Make a new generation: the newest one with this request's expert in its place.

        Publishing the same expert version again changes nothing and returns the newest generation.

        Args:
            request_id: a request in state `publishing`.
            ref: the expert's files as they were written.
            token: fencing token of the worker's lease.
            model_fingerprint: the base model the expert was trained for.

        Returns:
            The generation that replicas must acknowledge.

        Raises:
            StalePublish: another attempt has taken over.
            NotPublishing: the request is in another state.
        """
        if self._generations.lease_token(request_id) != token:
            raise StalePublish(f"Token {token} is not the current one for {request_id}.")
        locked = self._generations.lock_request(request_id)
        if locked is None or locked[0] != "publishing":
            raise NotPublishing(
                f"{request_id} is {locked[0] if locked else 'unknown'}, not publishing.",
                "Start the publish stage first.",
            )
        lock_ledger(self._session)
        newest = self.newest()
        current = self._generations.experts(newest)
        if any((e.id, e.version) == (ref.expert_id, ref.version) for e in current):
            return newest
        self._generations.add_expert(
            Expert(
                id=ref.expert_id,
                version=ref.version,
                request_id=request_id,
                path=str(ref.path),
                manifest_sha256=ref.manifest_sha256,
                bytes=ref.bytes,
                model_fingerprint=model_fingerprint,
            )
        )
        members = [(e.id, e.version) for e in current if e.request_id != request_id]
        return self._writer.create(
            [*members, (ref.expert_id, ref.version)],
            cause="publish",
            actor="worker",
            request_id=request_id,
            tenant_id=locked[1],
            payload={
                "expert": ref.expert_id,
                "version": ref.version,
                "manifest_sha256": ref.manifest_sha256,
            },
        )

    def revoke(self, request_id: str, *, actor: str = "system:registry", tenant_id: str | None = None) -> int:
        """Make a new generation without this request's expert and return its number.

        Raises:
            NotLive: the request has no live expert.
        """
        number = self._writer.take_out(request_id, actor=actor, tenant_id=tenant_id)
        if number is None:
            raise NotLive(f"{request_id} has no live expert.")
        return number

    def rollback(self, generation: int, *, actor: str = "system:registry") -> int:
        """Make a new generation with the experts of an earlier one and return its number.

        Raises:
            GenerationNotFound: there is no such generation.
        """
        lock_ledger(self._session)
        if generation != 0 and not self._generations.exists(generation):
            raise GenerationNotFound(f"There is no generation {generation}.")
        members = [(e.id, e.version) for e in self._generations.experts(generation)]
        return self._writer.create(
            members,
            cause="rollback",
            actor=actor,
            request_id=None,
            tenant_id=None,
            payload={"restored": generation},
            restored_from=generation,
        )

    def acknowledged(self, generation: int) -> bool:
        """Tell whether a replica lives, and every one that does serves `generation` or a later one."""
        live = self.live_replicas()
        return bool(live) and all(replica.generation >= generation for replica in live)

    def live_replicas(self) -> list[Replica]:
        """Return the replicas whose heartbeat is within `replica_lease_seconds`."""
        return list(self._replicas.live(self._settings.replica_lease_seconds))


def announce_after_commit(session: Session, redis_url: str, generation: int) -> None:
    """Wake the replicas once this transaction is committed. Redis only wakes: they poll as well."""
    session.info[_PENDING] = generation

    def announce(committed: Session) -> None:
        number = committed.info.pop(_PENDING, None)
        if number is None:
            return
        try:
            with contextlib.closing(wake_client(redis_url)) as client:
                client.publish(CHANNEL, str(number))
        except redis.RedisError as error:
            _log.warning("replicas not woken, they will poll", generation=number, error=type(error).__name__)

    def forget(rolled_back: Session) -> None:
        rolled_back.info.pop(_PENDING, None)

    event.listen(session, "after_commit", announce, once=True)
    event.listen(session, "after_rollback", forget, once=True)


def _row(expert: Expert) -> ExpertRow:
    return ExpertRow(
        id=expert.id,
        version=expert.version,
        path=expert.path,
        manifest_sha256=expert.manifest_sha256,
        request_id=expert.request_id,
        model_fingerprint=expert.model_fingerprint,
    )
