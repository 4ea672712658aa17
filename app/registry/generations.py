"""New generations: the newest one, or an earlier one, with one request's expert or protection changed."""

from collections.abc import Mapping, Sequence

import redis
from sqlalchemy import event
from sqlalchemy.orm import Session

from app.audit.service import AuditService
from app.db.models import Generation
from app.db.repository import lock_ledger
from app.kit.canonical import JsonValue
from app.kit.logging import get_logger
from app.kit.wake import shared_wake_client
from app.registry.repository import GenerationRepository, InterimRepository
from app.registry.rollback import Standing

CHANNEL = "lethe:generation"
_PENDING = "lethe.registry.announce"
_log = get_logger("registry")


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
        self._interims = InterimRepository(session)
        self._audit = AuditService(session)

    def create(
        self,
        *,
        cause: str,
        actor: str,
        request_id: str | None,
        tenant_id: str | None,
        without: str | None = None,
        add: tuple[str, int] | None = None,
        members: Sequence[tuple[str, int]] | None = None,
        payload: Mapping[str, JsonValue] | None = None,
        restored_from: int | None = None,
    ) -> int:
        """Write the next generation, with the newest one's experts, and return its number.

        The caller holds the ledger's lock.

        Args:
            cause: `publish`, `protect`, `revoke`, ...; the audit event is `registry.` and this.
            actor: who did it, as in the audit trail.
            request_id: the request it is about.
            tenant_id: whose auditors may read of it.
            without: request whose expert is left out.
            add: (expert id, version) that it has besides.
            members: all the (expert id, version) it has, whatever the newest one had.
            payload: further facts for the audit trail.
            restored_from: the generation whose experts it brings back.
        """
        newest, size = self._generations.newest_size()
        number = newest + 1
        generation = Generation(
            number=number, cause=cause, request_id=request_id, restored_from=restored_from
        )
        experts = self._generations.create(generation, size, without=without, add=add, members=members)
        self._audit.append(
            f"registry.{cause}",
            actor=actor,
            subject_id=request_id,
            tenant_id=tenant_id,
            payload={"generation": number, "experts": experts, **(payload or {})},
        )
        if self._redis_url is not None:
            announce_after_commit(self._session, self._redis_url, number)
        return number

    def protect(
        self,
        request_id: str,
        *,
        actor: str,
        tenant_id: str | None,
        renew: bool = False,
        fresh: bool = False,
    ) -> int | None:
        """Make a generation in which the request's subject is refused; None if it is protected already.

        Whoever else was refused for the same subject is found before the ledger is locked: another request
        for it would follow this one, so nobody is added, and one that has ended since is ended already.

        Args:
            request_id: an approved request.
            actor: who approved it.
            tenant_id: whose request it is.
            renew: its evidence has changed, so replicas must read it again.
            fresh: this transaction has made the request, so nothing protects it yet.
        """
        earlier = self._interims.of_same_subject(request_id)
        lock_ledger(self._session)
        held = None if fresh else self._interims.current(request_id)
        served = not fresh and self._generations.serves(request_id)
        if served or (held is not None and not renew):
            return None
        number = self.create(cause="protect", actor=actor, request_id=request_id, tenant_id=tenant_id)
        if held is not None:
            self._interims.end(held, number, "renew")
        for other in earlier:
            self.end_interim(other, number, by="superseded", actor=actor, tenant_id=tenant_id)
        self.start_interim(request_id, number, actor=actor, tenant_id=tenant_id)
        return number

    def take_out(
        self, request_id: str, *, actor: str, tenant_id: str | None, by: str = "revoked", refuse: bool = False
    ) -> int | None:
        """Make a generation without the request's expert and without its interim protection.

        Args:
            request_id: which request.
            actor: who ended it.
            tenant_id: whose request it is.
            by: what ended it, for the audit trail.
            refuse: the subject stays protected: interim protection takes the expert's place.

        Returns:
            The generation; None, and nothing done, if there was nothing to take out.
        """
        lock_ledger(self._session)
        live = self._generations.serves(request_id)
        held = self._interims.current(request_id)
        if not live and (held is None or refuse):
            return None
        number = self.create(
            cause="revoke" if live else "unprotect",
            actor=actor,
            request_id=request_id,
            tenant_id=tenant_id,
            without=request_id,
        )
        if refuse:
            self.start_interim(request_id, number, actor=actor, tenant_id=tenant_id)
        else:
            self.end_interim(request_id, number, by=by, actor=actor, tenant_id=tenant_id)
        return number

    def start_interim(self, request_id: str, number: int, *, actor: str, tenant_id: str | None) -> None:
        """Protect the request's subject from generation `number` on, on the record."""
        self._interims.start(request_id, number)
        self._audit.append(
            "protection.start",
            actor=actor,
            subject_id=request_id,
            tenant_id=tenant_id,
            payload={"generation": number, "kind": "interim"},
        )

    def settle_interims(self, refused: Sequence[Standing], number: int, *, actor: str) -> None:
        """Make these requests, and no others, be refused without an expert from generation `number` on."""
        wanted = {request.request_id: request for request in refused}
        held = {request_id for _, request_id in self._interims.members(number)}
        ended = sorted(held - wanted.keys())
        tenants = self._interims.tenants_of(ended)
        for request_id in ended:
            served = self._generations.serves(request_id)
            by = "publish" if served else "ended"
            self.end_interim(request_id, number, by=by, actor=actor, tenant_id=tenants[request_id])
        superseded = self._interims.superseded(wanted.keys() - held)
        for request_id in sorted(wanted.keys() - held):
            request = wanted[request_id]
            if request.state != "failed" or request_id not in superseded:
                self.start_interim(request_id, number, actor=actor, tenant_id=request.tenant_id)

    def end_interim(
        self, request_id: str, number: int, *, by: str, actor: str, tenant_id: str | None
    ) -> None:
        """End the request's interim protection, if it has one, with generation `number`, on the record."""
        held = self._interims.current(request_id)
        if held is None:
            return
        self._interims.end(held, number, by)
        self._audit.append(
            "protection.end",
            actor=actor,
            subject_id=request_id,
            tenant_id=tenant_id,
            payload={"generation": number, "kind": "interim", "by": by},
        )


def announce_after_commit(session: Session, redis_url: str, generation: int) -> None:
    """Wake the replicas once this transaction is committed. Redis only wakes: they poll as well."""
    session.info[_PENDING] = redis_url, generation


@event.listens_for(Session, "after_commit")
def _announce(committed: Session) -> None:
    redis_url, number = committed.info.pop(_PENDING, (None, 0))
    if redis_url is None:
        return
    try:
        shared_wake_client(redis_url).publish(CHANNEL, str(number))
    except redis.RedisError as error:
        _log.warning("replicas not woken, they will poll", generation=number, error=type(error).__name__)


@event.listens_for(Session, "after_rollback")
def _forget(rolled_back: Session) -> None:
    rolled_back.info.pop(_PENDING, None)
