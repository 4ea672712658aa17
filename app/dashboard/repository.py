"""What the pages count. Numbers only: no page shows who asked or who is forgotten."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import Interval, case, func, literal, select, type_coerce
from sqlalchemy.orm import Session

from app.db.models import LeaseRow, OutboxMessage, RemovalRequest, RequestEvent, VerificationScore
from app.db.webhook_models import Webhook, WebhookAttempt, WebhookMessage


@dataclass(frozen=True, slots=True)
class StageTimes:
    """How long requests were in one of the worker's states, of those that left it lately; seconds."""

    state: str
    n: int
    median: float
    p95: float


@dataclass(frozen=True, slots=True)
class ScoreFigures:
    """One metric's verifications lately: how many, their mean, the worst cases, and how many fell short."""

    metric: str
    n: int
    mean: float
    least: float
    most: float
    failed: int


class FigureRepository:
    """Counts over all tenants."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def requests_by_state(self) -> dict[str, int]:
        """Return how many requests are in each state that has any."""
        rows = self.session.execute(select(RemovalRequest.state, func.count()).group_by(RemovalRequest.state))
        return {row.state: row[1] for row in rows}

    def jobs_waiting(self) -> tuple[int, float]:
        """Return how many jobs have not reached the broker, and the oldest's age in seconds (0 for none)."""
        age = func.extract("epoch", func.clock_timestamp() - func.min(OutboxMessage.created_at))
        row = self.session.execute(
            select(func.count(), func.coalesce(age, 0)).where(OutboxMessage.published_at.is_(None))
        ).one()
        return row[0], float(row[1])

    def live_leases(self) -> int:
        """Return how many requests a worker holds at the moment."""
        return self.session.execute(
            select(func.count()).where(LeaseRow.expires_at > func.clock_timestamp())
        ).scalar_one()

    def stage_times(self, states: Sequence[str], hours: int) -> list[StageTimes]:
        """Return how long requests stayed in each of `states`, of those that left it within `hours`."""
        left = func.lead(RequestEvent.created_at).over(
            partition_by=RequestEvent.request_id, order_by=RequestEvent.seq
        )
        lately = func.clock_timestamp() - type_coerce(func.make_interval(0, 0, 0, 0, hours), Interval())
        longest = literal(timedelta(days=7), Interval())  # in one state: so far back for when it came into it
        changes = (
            select(RequestEvent.to_state, RequestEvent.created_at, left.label("left_at"))
            .where(RequestEvent.kind == "state", RequestEvent.created_at > lately - longest)
            .subquery()
        )
        seconds = func.extract("epoch", changes.c.left_at - changes.c.created_at)
        rows = self.session.execute(
            select(
                changes.c.to_state,
                func.count(),
                func.percentile_cont(0.5).within_group(seconds),
                func.percentile_cont(0.95).within_group(seconds),
            )
            .where(changes.c.left_at > lately, changes.c.to_state.in_(states))
            .group_by(changes.c.to_state)
        )
        return [StageTimes(row[0], row[1], float(row[2]), float(row[3])) for row in rows]

    def scores(self, days: int) -> list[ScoreFigures]:
        """Return what was measured before publishing within `days`, by metric."""
        lately = func.clock_timestamp() - type_coerce(func.make_interval(0, 0, 0, days), Interval())
        value = VerificationScore.value
        rows = self.session.execute(
            select(
                VerificationScore.metric,
                func.count(),
                func.avg(value),
                func.min(value),
                func.max(value),
                func.sum(case((VerificationScore.passed.is_(False), 1), else_=0)),
            )
            .where(VerificationScore.created_at > lately, value.is_not(None))
            .group_by(VerificationScore.metric)
            .order_by(VerificationScore.metric)
        )
        return [
            ScoreFigures(row[0], row[1], float(row[2]), float(row[3]), float(row[4]), row[5]) for row in rows
        ]

    def webhooks(self) -> dict[bool, int]:
        """Return how many webhooks are enabled (True) and disabled (False)."""
        enabled = Webhook.disabled_at.is_(None)
        rows = self.session.execute(select(enabled, func.count()).group_by(enabled))
        return {bool(row[0]): row[1] for row in rows}

    def messages_waiting(self) -> tuple[int, float]:
        """Return how many messages wait for webhooks that are enabled, and the oldest's age in seconds."""
        age = func.extract("epoch", func.clock_timestamp() - func.min(WebhookMessage.created_at))
        row = self.session.execute(
            select(func.count(), func.coalesce(age, 0))
            .join(Webhook, Webhook.id == WebhookMessage.webhook_id)
            .where(WebhookMessage.delivered_at.is_(None), Webhook.disabled_at.is_(None))
        ).one()
        return row[0], float(row[1])

    def deliveries(self, hours: int) -> dict[bool, int]:
        """Return how many attempts at delivering a message succeeded (True) and failed within `hours`."""
        lately = func.clock_timestamp() - type_coerce(func.make_interval(0, 0, 0, 0, hours), Interval())
        delivered = WebhookAttempt.error.is_(None)
        rows = self.session.execute(
            select(delivered, func.count()).where(WebhookAttempt.created_at > lately).group_by(delivered)
        )
        return {bool(row[0]): row[1] for row in rows}
