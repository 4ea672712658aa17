"""Publishing, revoking and rolling back experts, and knowing when every replica serves them."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePath
from typing import Protocol

from sqlalchemy.orm import Session

from app.accounts.principal import Principal
from app.audit.service import AuditService
from app.db.models import Expert, InterimProtection, Replica
from app.db.repository import Page, lock_ledger
from app.kit.canonical import JsonValue
from app.kit.errors import Example
from app.kit.ids import expert_id_of
from app.registry.errors import GenerationNotFound, NotLive, NotPublishing, RootAlone
from app.registry.generations import GenerationWriter
from app.registry.repository import GenerationRepository, InterimRepository, ReplicaRepository
from app.registry.rollback import restore
from app.settings import Settings


class StalePublish(NotPublishing):
    """The fencing token is not the current one: another attempt has taken over."""

    TYPE = "stale-lease"
    TITLE = "The lease was lost"
    HINT = "Stop working on this request; another attempt has taken over."
    EXAMPLE = Example("Token 4 is not the current one for req_01a20a91610c7527afee37a6345c8f6a.")


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


@dataclass(frozen=True, slots=True)
class InterimRow:
    """One subject that is refused without an expert. Another `id` means that its evidence has changed."""

    id: str
    request_id: str

    @property
    def expert_id(self) -> str:
        """Id that the request's expert will have."""
        return expert_id_of(self.request_id)


@dataclass(frozen=True, slots=True)
class Step:
    """One generation: what made it, for which request (None also for one that is not shown), and when."""

    number: int
    cause: str
    request_id: str | None
    restored_from: int | None
    created_at: datetime


class RegistryService:
    """One transaction's view of the registry. It never commits; replicas are woken after the commit."""

    def __init__(self, session: Session, settings: Settings) -> None:
        self._session = session
        self._settings = settings
        self._generations = GenerationRepository(session)
        self._interims = InterimRepository(session)
        self._replicas = ReplicaRepository(session)
        self._writer = GenerationWriter(session, settings.redis_url)

    def newest(self) -> int:
        """Return the newest generation's number (0 before the first publish)."""
        return self._generations.newest()

    def live_experts(self, generation: int | None = None) -> list[ExpertRow]:
        """Return the experts of a generation, by default of the newest."""
        number = self.newest() if generation is None else generation
        return [ExpertRow(*row) for row in self._generations.rows(number)]

    def every_path(self) -> list[str]:
        """Return where every version of every expert lies, live or not, below the experts directory."""
        return self._generations.every_path()

    def live_expert(self, request_id: str) -> tuple[Expert, int] | None:
        """Return the request's expert in the newest generation, and the generation that brought it in."""
        expert = self._generations.live_expert(self.newest(), request_id)
        if expert is None:
            return None
        return expert, self._generations.first_with(expert.id, expert.version)

    def serves(self, request_id: str, ref: ExpertRefLike) -> bool:
        """Tell whether the newest generation has this version of the request's expert."""
        expert = self._generations.live_expert(self.newest(), request_id)
        return expert is not None and (expert.id, expert.version) == (ref.expert_id, ref.version)

    def live_interims(self, generation: int | None = None) -> list[InterimRow]:
        """Return the subjects that a generation, by default the newest, refuses without an expert."""
        number = self.newest() if generation is None else generation
        return [InterimRow(*member) for member in self._interims.members(number)]

    def listed_interims(
        self, tenant_id: str | None, *, after: str | None, limit: int
    ) -> Page[InterimProtection]:
        """Return the interim protections of a tenant (None: of all) that stand, newest first."""
        return self._interims.listed(tenant_id, after=after, limit=limit)

    def acknowledge(self, replica_id: str, generation: int) -> None:
        """Note that a replica serves `generation`, and what is protected with that; see `confirm`.

        The ledger is locked first where anything may be, so that no heartbeat waits for it behind this.
        """
        awaited = self._interims.unconfirmed()
        if awaited:
            lock_ledger(self._session)
        self._replicas.acknowledge(replica_id, generation)
        if awaited:
            self._confirm()

    def confirm(self) -> None:
        """Note, with the time and in the audit trail, which protections every live replica serves by now.

        Whoever comes last of several replicas that acknowledge at once finds all of them: the ledger's lock
        makes them look one after another.
        """
        if self._interims.unconfirmed():
            lock_ledger(self._session)
            self._confirm()

    def _confirm(self) -> None:
        live = self.live_replicas()
        if not live:
            return
        served = min(replica.generation for replica in live)
        audit = AuditService(self._session)
        for request_id, tenant_id in self._interims.confirm(served):
            audit.append(
                "protection.confirmed",
                actor="system:registry",
                subject_id=request_id,
                tenant_id=tenant_id,
                payload={"generation": served, "replicas": len(live)},
            )

    def listed(self, tenant_id: str | None, *, after: str | None, limit: int) -> Page[Expert]:
        """Return the newest generation's experts of a tenant (None: of all), newest first."""
        return self._generations.listed(tenant_id, after=after, limit=limit)

    def history(self, tenant_id: str | None, *, after: int | None, limit: int) -> Page[Step]:
        """Return how the registry changed, newest first; whose request it was only where one may see it."""
        page = self._generations.history(after=after, limit=limit)
        about = {row.request_id for row in page.items if row.request_id is not None}
        seen = about if tenant_id is None else self._generations.owned(about, tenant_id)
        items = [
            Step(
                row.number,
                row.cause,
                row.request_id if row.request_id in seen else None,
                row.restored_from,
                row.created_at,
            )
            for row in page.items
        ]
        return Page(items, page.more)

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
        if self._generations.has(newest, ref.expert_id, ref.version):
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
        number = self._writer.create(
            without=request_id,
            add=(ref.expert_id, ref.version),
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
        self._writer.end_interim(request_id, number, by="publish", actor="worker", tenant_id=locked[1])
        return number

    def revoke(self, request_id: str, *, actor: str = "system:registry", tenant_id: str | None = None) -> int:
        """Make a new generation without this request's expert and return its number.

        Raises:
            NotLive: the request has no live expert.
        """
        lock_ledger(self._session)
        live = self._generations.serves(request_id)
        number = self._writer.take_out(request_id, actor=actor, tenant_id=tenant_id) if live else None
        if number is None:
            raise NotLive(f"{request_id} has no live expert.")
        return number

    def rollback(self, generation: int, *, actor: str = "system:registry") -> int:
        """Make a new generation with the experts of an earlier one, as far as today's requests allow it.

        Whatever has ended since does not come back; whoever is active now stays protected, by the expert of
        then or else by the one of now; everybody else who was approved is refused without an expert. See
        `app.registry.rollback`. Rolling back to the newest generation puts right what is not so in it.

        Returns:
            The new generation's number.

        Raises:
            GenerationNotFound: there is no such generation.
        """
        lock_ledger(self._session)  # every change of state waits for it before it touches the registry
        if generation != 0 and not self._generations.exists(generation):
            raise GenerationNotFound(f"There is no generation {generation}.")
        restored = restore(
            self._generations.standing(),
            self._generations.experts(generation),
            self._generations.experts(self.newest()),
            self._generations.newest_versions(),
        )
        number = self._writer.create(
            members=restored.experts,
            cause="rollback",
            actor=actor,
            request_id=None,
            tenant_id=None,
            payload={"restored": generation, "kept": restored.kept, "dropped": restored.dropped},
            restored_from=generation,
        )
        self._writer.settle_interims(restored.refused, number, actor=actor)
        return number

    def take_back(
        self, request_id: str, generation: int, *, token: int, actor: str, payload: Mapping[str, JsonValue]
    ) -> int:
        """Undo what publishing the request's expert in `generation` changed, and return the new generation.

        The new generation is the newest one with what the request had before in the expert's place: an
        earlier version, or else interim protection. If nothing came in between, its experts are those of
        the generation before. Nothing that others published meanwhile is lost.

        Args:
            request_id: a request in state `publishing`.
            generation: the one in which it was found out, that of the publish or a later one.
            token: fencing token of the worker's lease.
            actor: who found out why.
            payload: why, for the audit trail.

        Raises:
            StalePublish: another attempt has taken over.
            NotLive: the request's expert is not in the newest generation.
        """
        if self._generations.lease_token(request_id) != token:
            raise StalePublish(f"Token {token} is not the current one for {request_id}.")
        locked = self._generations.lock_request(request_id)
        lock_ledger(self._session)
        if locked is None or not self._generations.serves(request_id):
            raise NotLive(f"{request_id} has no live expert.")
        published = self._generations.published_in(request_id, generation)
        before = self._generations.live_expert(published - 1, request_id)
        own = (before.id, before.version) if before is not None else None
        number = self._writer.create(
            without=request_id,
            add=own,
            cause="rollback",
            actor=actor,
            request_id=request_id,
            tenant_id=locked[1],
            payload={"restored": published - 1, "because": "regression", **payload},
            restored_from=published - 1 if published > 1 else None,
        )
        if own is None:
            self._writer.start_interim(request_id, number, actor=actor, tenant_id=locked[1])
        return number

    def acknowledged(self, generation: int) -> bool:
        """Tell whether a replica lives, and every one that does serves `generation` or a later one."""
        live = self.live_replicas()
        return bool(live) and all(replica.generation >= generation for replica in live)

    def live_replicas(self) -> list[Replica]:
        """Return the replicas whose heartbeat is within `replica_lease_seconds`."""
        return list(self._replicas.live(self._settings.replica_lease_seconds))


def roll_back(registry: RegistryService, principal: Principal, generation: int) -> int:
    """Roll the registry back on somebody's word, and return the new generation's number.

    Raises:
        RootAlone: 403, the key is not of the tenant that sees all requests.
        GenerationNotFound: 404, there is no such generation.
    """
    if not principal.root:
        raise RootAlone("A rollback concerns the experts of every tenant.")
    return registry.rollback(generation, actor=principal.key_id)
