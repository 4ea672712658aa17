"""SQL of the registry."""

from collections.abc import Collection, Sequence
from datetime import datetime

from sqlalchemy import (
    BindParameter,
    Exists,
    ScalarSelect,
    Select,
    bindparam,
    delete,
    func,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.sql.elements import ColumnElement

from app.db.models import (
    Acknowledgement,
    Expert,
    Generation,
    GenerationExpert,
    InterimProtection,
    LeaseRow,
    RemovalRequest,
    Replica,
)
from app.db.repository import Page, Repository
from app.kit.ids import new_id
from app.registry.rollback import Standing

MEMBER = (GenerationExpert.expert_id == Expert.id) & (GenerationExpert.version == Expert.version)
"""An expert and its spans."""
_CURRENT = GenerationExpert.until_generation.is_(None)


def _members() -> Select[Expert]:
    return select(Expert).join(GenerationExpert, MEMBER)


def _serving(request_id: str | ColumnElement[str]) -> Select[str]:
    """Return the ids of the experts that a request has in the newest generation."""
    return select(Expert.id).join(GenerationExpert, MEMBER).where(Expert.request_id == request_id, _CURRENT)


def in_generation(
    span: type[GenerationExpert] | type[InterimProtection], number: int | BindParameter[int]
) -> ColumnElement[bool]:
    """Return whether a span of generations had begun by this one and not ended by it."""
    return (span.from_generation <= number) & or_(
        span.until_generation.is_(None), span.until_generation > number
    )


_GENERATIONS, _INTERIMS = Generation.__table__, InterimProtection.__table__
_NUMBER: BindParameter[int] = bindparam("number")
# What every replica executes at every generation is made once.
_OF = Expert.__table__.c
_ROWS = (
    select(_OF.id, _OF.version, _OF.path, _OF.manifest_sha256, _OF.request_id, _OF.model_fingerprint)
    .join(GenerationExpert, MEMBER)
    .where(in_generation(GenerationExpert, _NUMBER))
    .order_by(_OF.id)
)
_REFUSED = (
    select(_INTERIMS.c.id, _INTERIMS.c.request_id)
    .where(in_generation(InterimProtection, _NUMBER))
    .order_by(_INTERIMS.c.id)
)
_NEWEST_SIZE = (
    select(_GENERATIONS.c.number, _GENERATIONS.c.experts).order_by(_GENERATIONS.c.number.desc()).limit(1)
)


class GenerationRepository(Repository[Generation]):
    """Generations and the experts in them."""

    model = Generation

    def newest(self) -> int:
        """Return the newest generation's number; 0, the empty one, before the first publish."""
        return self.newest_size()[0]

    def newest_size(self) -> tuple[int, int]:
        """Return the newest generation's number and how many experts it has; (0, 0) before the first."""
        row = self.session.execute(_NEWEST_SIZE).first()
        return (row[0], row[1]) if row else (0, 0)

    def history(self, *, after: int | None, limit: int) -> Page[Generation]:
        """Return generations, newest first."""
        return self.page(select(Generation), Generation.number, after=after, limit=limit)

    def every_path(self) -> list[str]:
        """Return where every version of every expert lies."""
        return list(self.session.scalars(select(Expert.path).order_by(Expert.id, Expert.version)))

    def owned(self, request_ids: Collection[str], tenant_id: str) -> set[str]:
        """Return those of these requests that are this tenant's."""
        return set(
            self.session.scalars(
                select(RemovalRequest.id).where(
                    RemovalRequest.id.in_(request_ids), RemovalRequest.tenant_id == tenant_id
                )
            )
        )

    def exists(self, number: int) -> bool:
        """Tell whether there is such a generation."""
        return self.session.get(Generation, number) is not None

    def experts(self, number: int) -> Sequence[Expert]:
        """Return the experts of a generation, in order of id."""
        return self.session.scalars(
            _members().where(in_generation(GenerationExpert, number)).order_by(Expert.id)
        ).all()

    def rows(self, number: int) -> list[tuple[str, int, str, str, str, str | None]]:
        """Return what replicas read of each expert of a generation, in order of id.

        Id, version, path, manifest's SHA-256, request and base model. No objects of the session's: there may
        be thousands, and every replica reads them at every generation.
        """
        return [tuple(row) for row in self.session.execute(_ROWS, {"number": number})]

    def serves(self, request_id: str) -> bool:
        """Tell whether the newest generation has an expert of this request."""
        return self.session.execute(_serving(request_id).limit(1)).first() is not None

    def published_in(self, request_id: str, number: int) -> int:
        """Return the newest generation up to `number` that published an expert of the request; 0 if none."""
        return self.session.execute(
            select(func.coalesce(func.max(Generation.number), 0)).where(
                Generation.request_id == request_id,
                Generation.cause == "publish",
                Generation.number <= number,
            )
        ).scalar_one()

    def live_expert(self, number: int, request_id: str) -> Expert | None:
        """Return the request's expert in a generation."""
        return self.session.scalars(
            _members()
            .where(in_generation(GenerationExpert, number), Expert.request_id == request_id)
            .limit(1)
        ).first()

    def first_with(self, expert_id: str, version: int) -> int:
        """Return the generation that brought an expert version in."""
        return self.session.execute(
            select(func.min(GenerationExpert.from_generation)).where(
                GenerationExpert.expert_id == expert_id, GenerationExpert.version == version
            )
        ).scalar_one()

    def has(self, number: int, expert_id: str, version: int) -> bool:
        """Tell whether a generation has this expert version."""
        found = select(GenerationExpert.version).where(
            GenerationExpert.expert_id == expert_id,
            GenerationExpert.version == version,
            in_generation(GenerationExpert, number),
        )
        return self.session.execute(found.limit(1)).first() is not None

    def create(
        self,
        generation: Generation,
        size: int,
        *,
        without: str | None = None,
        add: tuple[str, int] | None = None,
        members: Collection[tuple[str, int]] | None = None,
    ) -> int:
        """Write the next generation, with the experts of the newest one, and return how many it has.

        Args:
            generation: the new one.
            size: how many experts the newest one has.
            without: request whose experts are left out.
            add: (expert id, version) that it has besides.
            members: all the (expert id, version) it has, whatever the newest one had.
        """
        ending = [] if without is None else self._current(Expert.request_id == without)
        starting = [] if add is None else [add]
        if members is not None:
            now, wanted = set(self._current()), set(members)
            ending, starting = sorted(now - wanted), sorted(wanted - now)
            size = len(now)
        generation.experts = size - len(ending) + len(starting)
        self.insert(generation)
        if ending:
            self.session.execute(
                update(GenerationExpert)
                .where(
                    GenerationExpert.until_generation.is_(None),
                    GenerationExpert.expert_id.in_([expert_id for expert_id, _ in ending]),
                )
                .values(until_generation=generation.number)
                .execution_options(synchronize_session=False)
            )
        if starting:
            rows = [
                {"expert_id": expert_id, "version": version, "from_generation": generation.number}
                for expert_id, version in starting
            ]
            self.session.execute(insert(GenerationExpert), rows)
        return generation.experts

    def _current(self, *only: ColumnElement[bool]) -> list[tuple[str, int]]:
        """Return (id, version) of the newest generation's experts."""
        rows = select(GenerationExpert.expert_id, GenerationExpert.version).where(_CURRENT)
        if only:
            rows = rows.join(Expert, MEMBER).where(*only)
        return [(row[0], row[1]) for row in self.session.execute(rows)]

    def add_expert(self, expert: Expert) -> None:
        """Write an expert version unless it is already there."""
        columns = ("id", "version", "request_id", "path", "manifest_sha256", "bytes", "model_fingerprint")
        self.session.execute(
            insert(Expert)
            .values({name: getattr(expert, name) for name in columns})
            .on_conflict_do_nothing(index_elements=["id", "version"])
        )

    def standing(self) -> list[Standing]:
        """Return every request that was approved and has not ended, oldest first; none that only follows."""
        rows = self.session.execute(
            select(RemovalRequest.id, RemovalRequest.tenant_id, RemovalRequest.state)
            .where(
                RemovalRequest.policy.is_not(None),
                RemovalRequest.linked_to_id.is_(None),
                RemovalRequest.state.not_in(("rejected", "cancelled", "revoked")),
            )
            .order_by(RemovalRequest.id)
        )
        return [Standing(row[0], row[1], row[2]) for row in rows]

    def newest_versions(self) -> Sequence[Expert]:
        """Return the newest version of every request's expert, whether it is live or not."""
        newest = select(Expert.request_id, func.max(Expert.version).label("version")).group_by(
            Expert.request_id
        )
        top = newest.subquery()
        return self.session.scalars(
            select(Expert)
            .join(top, (top.c.request_id == Expert.request_id) & (top.c.version == Expert.version))
            .order_by(Expert.request_id)
        ).all()

    def lease_token(self, request_id: str) -> int | None:
        """Return the current fencing token and keep it from changing until the transaction ends."""
        return self.session.execute(
            select(LeaseRow.token).where(LeaseRow.request_id == request_id).with_for_update()
        ).scalar_one_or_none()

    def lock_request(self, request_id: str) -> tuple[str, str] | None:
        """Return the request's state and tenant, locked until the transaction ends."""
        row = self.session.execute(
            select(RemovalRequest.state, RemovalRequest.tenant_id)
            .where(RemovalRequest.id == request_id)
            .with_for_update()
        ).one_or_none()
        return (row[0], row[1]) if row else None

    def listed(self, tenant_id: str | None, *, after: str | None, limit: int) -> Page[Expert]:
        """Return the newest generation's experts of a tenant (None: of all), newest first."""
        statement = _members().where(_CURRENT)
        if tenant_id is not None:
            statement = statement.join(RemovalRequest, RemovalRequest.id == Expert.request_id).where(
                RemovalRequest.tenant_id == tenant_id
            )
        rows = self.session.scalars(
            (statement if after is None else statement.where(Expert.id < after))
            .order_by(Expert.id.desc())
            .limit(limit + 1)
        ).all()
        # `Page` is generic over the row, not over this repository's model.
        return Page(rows[:limit], len(rows) > limit)


class InterimRepository(Repository[InterimProtection]):
    """Subjects that are refused without an expert."""

    model = InterimProtection

    def members(self, number: int) -> Sequence[tuple[str, str]]:
        """Return ids and requests of a generation's, oldest first: what every replica reads of each."""
        return [(row[0], row[1]) for row in self.session.execute(_REFUSED, {"number": number})]

    def current(self, request_id: str) -> InterimProtection | None:
        """Return the request's own one, if it stands."""
        return self.first(
            select(InterimProtection)
            .where(InterimProtection.request_id == request_id, InterimProtection.until_generation.is_(None))
            .execution_options(populate_existing=True)
        )

    def of_same_subject(self, request_id: str) -> Sequence[str]:
        """Return other requests for the same subject, failed since, whose protection stands."""
        return self.session.scalars(_OF_SAME_SUBJECT, {"request_id": request_id}).all()

    def tenants_of(self, request_ids: Collection[str]) -> dict[str, str]:
        """Return whose requests these are."""
        table = RemovalRequest.__table__.c
        rows = self.session.execute(select(table.id, table.tenant_id).where(table.id.in_(request_ids)))
        return {row[0]: row[1] for row in rows}

    def superseded(self, request_ids: Collection[str]) -> set[str]:
        """Return those of these requests whose protection another for the same subject took over."""
        return set(
            self.session.scalars(
                select(InterimProtection.request_id).where(
                    InterimProtection.request_id.in_(request_ids), InterimProtection.ended_by == "superseded"
                )
            )
        )

    def start(self, request_id: str, generation: int) -> None:
        """Protect from `generation` on."""
        self.insert(InterimProtection(id=new_id("prt"), request_id=request_id, from_generation=generation))

    def end(self, protection: InterimProtection, generation: int, by: str) -> None:
        """Protect no longer from `generation` on."""
        protection.until_generation, protection.ended_by = generation, by
        self.session.flush()

    def unconfirmed(self) -> bool:
        """Tell whether some replica may still have to acknowledge one."""
        return self.session.execute(_ANY_UNCONFIRMED).first() is not None

    def confirm(self, generation: int) -> list[tuple[str, str]]:
        """Note that every live replica serves `generation`.

        Returns (request, tenant) of those that protect since now, oldest request first.
        """
        request = RemovalRequest.__table__.c
        rows = self.session.execute(
            update(_INTERIMS)
            .where(
                *_UNCONFIRMED,
                _INTERIMS.c.from_generation <= generation,
                request.id == _INTERIMS.c.request_id,
            )
            .values(protected_at=func.clock_timestamp())
            .returning(_INTERIMS.c.request_id, request.tenant_id)
        )
        return sorted((row[0], row[1]) for row in rows)

    def listed(self, tenant_id: str | None, *, after: str | None, limit: int) -> Page[InterimProtection]:
        """Return those of a tenant's requests (None: of all) that stand, newest first."""
        statement = select(InterimProtection).where(InterimProtection.until_generation.is_(None))
        if tenant_id is not None:
            statement = statement.join(
                RemovalRequest, RemovalRequest.id == InterimProtection.request_id
            ).where(RemovalRequest.tenant_id == tenant_id)
        return self.page(statement, InterimProtection.id, after=after, limit=limit)


def _of_same_subject() -> Select[str]:
    held = _INTERIMS
    mine, other = RemovalRequest.__table__.alias(), RemovalRequest.__table__.alias()
    same = (mine.c.tenant_id == other.c.tenant_id) & (mine.c.subject_token == other.c.subject_token)
    return (
        select(held.c.request_id)
        .join(other, other.c.id == held.c.request_id)
        .join(mine, same)
        .where(
            mine.c.id == bindparam("request_id"), other.c.id != mine.c.id, held.c.until_generation.is_(None)
        )
        .order_by(held.c.request_id)
    )


_OF_SAME_SUBJECT = _of_same_subject()
_UNCONFIRMED = (
    _INTERIMS.c.protected_at.is_(None),
    or_(_INTERIMS.c.until_generation.is_(None), _INTERIMS.c.ended_by == "publish"),
)
_ANY_UNCONFIRMED = select(_INTERIMS.c.id).where(*_UNCONFIRMED).limit(1)


def protection_of(request_id: ColumnElement[str]) -> tuple[ScalarSelect[datetime | None], Exists, Exists]:
    """Return columns: since when a request's subject is protected, and by what in the newest generation.

    The latter are whether the request has an expert there, and whether it is refused without one.
    """
    mine = InterimProtection.request_id == request_id
    refused = select(InterimProtection.id).where(mine, InterimProtection.until_generation.is_(None))
    since = select(func.min(InterimProtection.protected_at)).where(mine).scalar_subquery()
    return since, _serving(request_id).exists(), refused.exists()


_REPLICAS = Replica.__table__
_SERVES = (
    update(_REPLICAS)
    .where(_REPLICAS.c.id == bindparam("replica"))
    .values(
        generation=bindparam("served"), error=None, error_generation=None, heartbeat_at=func.clock_timestamp()
    )
)
_ACKNOWLEDGES = (
    insert(Acknowledgement.__table__)
    .values(generation=bindparam("served"), replica_id=bindparam("replica"))
    .on_conflict_do_nothing()
)


class ReplicaRepository(Repository[Replica]):
    """Replicas and their acknowledgements, by the database's clock."""

    model = Replica

    def register(self, replica: Replica) -> None:
        """Write a replica that has just started."""
        self.add(replica)

    def beat(self, replica_id: str) -> None:
        """Note that the replica is alive."""
        self.session.execute(
            update(Replica).where(Replica.id == replica_id).values(heartbeat_at=func.clock_timestamp())
        )

    def acknowledge(self, replica_id: str, generation: int) -> None:
        """Note that the replica serves `generation`."""
        served = {"served": generation, "replica": replica_id}
        self.session.execute(_SERVES, served)
        if generation > 0:
            self.session.execute(_ACKNOWLEDGES, served)

    def failed(self, replica_id: str, generation: int, error: str) -> None:
        """Note that the replica could not load `generation`."""
        self.session.execute(
            update(Replica)
            .where(Replica.id == replica_id)
            .values(error=error, error_generation=generation, heartbeat_at=func.clock_timestamp())
        )

    def stop(self, replica_id: str) -> None:
        """Note that the replica has stopped of its own accord."""
        self.session.execute(
            update(Replica).where(Replica.id == replica_id).values(stopped_at=func.clock_timestamp())
        )

    def live(self, within_seconds: float) -> Sequence[Replica]:
        """Return replicas whose last heartbeat is at most `within_seconds` old."""
        return self.session.scalars(
            select(Replica)
            .where(Replica.stopped_at.is_(None), _recent(within_seconds))
            .order_by(Replica.id)
            .execution_options(populate_existing=True)
        ).all()

    def get(self, replica_id: str) -> Replica | None:
        """Return one replica as it is in the database now."""
        return self.first(
            select(Replica).where(Replica.id == replica_id).execution_options(populate_existing=True)
        )

    def forget_long_gone(self, seconds: float) -> None:
        """Drop replicas without a heartbeat for `seconds`, and their acknowledgements."""
        gone = select(Replica.id).where(~_recent(seconds)).scalar_subquery()
        self.session.execute(delete(Acknowledgement).where(Acknowledgement.replica_id.in_(gone)))
        self.session.execute(delete(Replica).where(~_recent(seconds)))


def _recent(seconds: float) -> ColumnElement[bool]:
    return Replica.heartbeat_at > func.clock_timestamp() - func.make_interval(0, 0, 0, 0, 0, 0, seconds)
