"""SQL of what was measured of all requests together."""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import ColumnElement, and_, func, select, true

from app.db.models import Generation, Remeasurement, RemovalRequest, VerificationScore
from app.db.repository import Repository
from app.removal.states import State

Measured = tuple[str, int, float | None, int, bool | None]
"""Request, generation, value, n, whether it met its threshold."""

POOLED = ("forget_quality", "leak", "changed_answers")


class Pooled(NamedTuple):
    """The mean of one metric over everything asked in a generation, and how much that was."""

    generation: int
    metric: str
    mean: float
    n: int


class LifelongRepository(Repository[Remeasurement]):
    """Figures of many requests at once, filtered by who asks (`tenant_id` None: everybody's)."""

    model = Remeasurement

    def measured_requests(self, tenant_id: str | None, metric: str, limit: int) -> Sequence[str]:
        """Return the newest requests that were published and of which this was measured."""
        statement = (
            select(RemovalRequest.id)
            .where(
                select(VerificationScore.id)
                .where(VerificationScore.request_id == RemovalRequest.id, VerificationScore.metric == metric)
                .exists(),
                RemovalRequest.id.in_(select(Generation.request_id).where(Generation.cause == "publish")),
            )
            .order_by(RemovalRequest.id.desc())
            .limit(limit)
        )
        if tenant_id is not None:
            statement = statement.where(RemovalRequest.tenant_id == tenant_id)
        return self.session.scalars(statement).all()

    def verified(self, request_ids: Sequence[str], metric: str) -> list[Measured]:
        """Return what the newest verification of each found, at the generation that published it last."""
        published = (
            select(Generation.request_id, func.max(Generation.number).label("number"))
            .where(Generation.cause == "publish", Generation.request_id.in_(request_ids))
            .group_by(Generation.request_id)
            .subquery()
        )
        newest = (
            select(VerificationScore.request_id, func.max(VerificationScore.attempt).label("attempt"))
            .where(VerificationScore.request_id.in_(request_ids))
            .group_by(VerificationScore.request_id)
            .subquery()
        )
        score = VerificationScore
        rows = self.session.execute(
            select(score.request_id, published.c.number, score.value, score.n, score.passed)
            .join(published, published.c.request_id == score.request_id)
            .join(
                newest,
                and_(newest.c.request_id == score.request_id, newest.c.attempt == score.attempt),
            )
            .where(score.metric == metric)
        )
        return [(row[0], row[1], row[2], row[3], row[4]) for row in rows]

    def remeasured(self, request_ids: Sequence[str], metric: str, generations: int) -> list[Measured]:
        """Return what was measured again of these requests, in the newest generations in which any was."""
        again = Remeasurement
        newest = (
            select(again.generation)
            .where(again.request_id.in_(request_ids), again.metric == metric)
            .distinct()
            .order_by(again.generation.desc())
            .limit(generations)
        )
        rows = self.session.execute(
            select(again.request_id, again.generation, again.value, again.n, again.passed).where(
                again.request_id.in_(request_ids), again.metric == metric, again.generation.in_(newest)
            )
        )
        return [(row[0], row[1], row[2], row[3], row[4]) for row in rows]

    def measured_generations(self, tenant_id: str | None) -> Sequence[int]:
        """Return the generations in which anything was measured again, the oldest first."""
        again = Remeasurement.generation
        return self.session.scalars(select(again).where(_of(tenant_id)).distinct().order_by(again)).all()

    def pooled(self, tenant_id: str | None, generations: Sequence[int]) -> list[Pooled]:
        """Return the mean over all prompts of each of these generations, by metric, the oldest first."""
        again = Remeasurement
        statement = (
            select(again.generation, again.metric, func.sum(again.value * again.n), func.sum(again.n))
            .where(
                again.generation.in_(generations),
                again.metric.in_(POOLED),
                again.value.is_not(None),
                again.n > 0,
                _of(tenant_id),
            )
            .group_by(again.generation, again.metric)
            .order_by(again.generation, again.metric)
        )
        rows = self.session.execute(statement)
        return [Pooled(row[0], row[1], (row[2] or 0.0) / row[3], row[3]) for row in rows]

    def own_views(self, tenant_id: str | None, requests: int) -> list[list[float]]:
        """Return, of each of the newest active requests, what its own held-out views scored."""
        score = VerificationScore
        newest = (
            select(score.request_id, func.max(score.attempt).label("attempt"))
            .group_by(score.request_id)
            .subquery()
        )
        statement = (
            select(score.details["own_views"])
            .join(newest, and_(newest.c.request_id == score.request_id, newest.c.attempt == score.attempt))
            .join(RemovalRequest, RemovalRequest.id == score.request_id)
            .where(
                score.metric == "gate_tpr",
                score.details.has_key("own_views"),
                RemovalRequest.state == State.ACTIVE,
            )
            .order_by(score.request_id.desc())
            .limit(requests)
        )
        if tenant_id is not None:
            statement = statement.where(RemovalRequest.tenant_id == tenant_id)
        return [[float(one) for one in row] for row in self.session.scalars(statement)]

    def experts_in(self, generations: Sequence[int]) -> dict[int, int]:
        """Return how many experts each of these generations has."""
        rows = self.session.execute(
            select(Generation.number, Generation.experts).where(Generation.number.in_(generations))
        )
        return {row[0]: row[1] for row in rows}


def _of(tenant_id: str | None) -> ColumnElement[bool]:
    """Return what narrows measurements down to a tenant's requests."""
    if tenant_id is None:
        return true()
    return Remeasurement.request_id.in_(
        select(RemovalRequest.id).where(RemovalRequest.tenant_id == tenant_id)
    )
