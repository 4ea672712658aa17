"""SQL of the registry."""

from collections.abc import Sequence

from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.sql.elements import ColumnElement

from app.db.models import (
    Acknowledgement,
    Expert,
    Generation,
    GenerationExpert,
    LeaseRow,
    RemovalRequest,
    Replica,
)
from app.db.repository import Page, Repository


class GenerationRepository(Repository[Generation]):
    """Generations and the experts in them."""

    model = Generation

    def newest(self) -> int:
        """Return the newest generation's number; 0, the empty one, before the first publish."""
        return self.session.execute(select(func.coalesce(func.max(Generation.number), 0))).scalar_one()

    def exists(self, number: int) -> bool:
        """Tell whether there is such a generation."""
        return self.session.get(Generation, number) is not None

    def experts(self, number: int) -> Sequence[Expert]:
        """Return the experts of a generation, in order of id."""
        return self.session.scalars(
            select(Expert)
            .join(
                GenerationExpert,
                (GenerationExpert.expert_id == Expert.id) & (GenerationExpert.version == Expert.version),
            )
            .where(GenerationExpert.generation == number)
            .order_by(Expert.id)
        ).all()

    def create(self, generation: Generation, members: Sequence[tuple[str, int]]) -> None:
        """Write a generation and its members, (expert id, version) each."""
        self.add(generation)
        if members:
            self.session.execute(
                insert(GenerationExpert),
                [
                    {"generation": generation.number, "expert_id": id, "version": version}
                    for id, version in members
                ],
            )

    def add_expert(self, expert: Expert) -> None:
        """Write an expert version unless it is already there."""
        columns = ("id", "version", "request_id", "path", "manifest_sha256", "bytes", "model_fingerprint")
        self.session.execute(
            insert(Expert)
            .values({name: getattr(expert, name) for name in columns})
            .on_conflict_do_nothing(index_elements=["id", "version"])
        )

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
        live = (
            select(GenerationExpert.expert_id, GenerationExpert.version)
            .where(GenerationExpert.generation == self.newest())
            .subquery()
        )
        statement = select(Expert).join(
            live, (live.c.expert_id == Expert.id) & (live.c.version == Expert.version)
        )
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
        self.session.execute(
            update(Replica)
            .where(Replica.id == replica_id)
            .values(
                generation=generation, error=None, error_generation=None, heartbeat_at=func.clock_timestamp()
            )
        )
        if generation > 0:
            self.session.execute(
                insert(Acknowledgement)
                .values(generation=generation, replica_id=replica_id)
                .on_conflict_do_nothing()
            )

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
