"""What the pages count. Numbers only: no page shows who asked or who is forgotten."""

from __future__ import annotations

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.db.models import LeaseRow, OutboxMessage, RemovalRequest


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
