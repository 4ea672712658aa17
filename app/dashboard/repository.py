"""What the pages count. Numbers only: no page shows who asked or who is forgotten."""

from __future__ import annotations

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.db.models import RemovalRequest


class FigureRepository:
    """Counts over all tenants."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def requests_by_state(self) -> dict[str, int]:
        """Return how many requests are in each state that has any."""
        rows = self.session.execute(select(RemovalRequest.state, func.count()).group_by(RemovalRequest.state))
        return {row.state: row[1] for row in rows}
