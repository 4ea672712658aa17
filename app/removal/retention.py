"""How long pictures are kept: until the request is done, and a while longer in case it must be done again."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from sqlalchemy.orm import Session

from app.audit.service import AuditService
from app.db.models import RemovalRequest
from app.kit.clock import utcnow
from app.removal.lifecycle import Lifecycle
from app.removal.repository import EvidenceRepository, MeasurementRepository, RequestRepository
from app.removal.states import FINAL, State
from app.settings import Settings

PURGED_IN: Final = FINAL - {State.FAILED}
"""States in which no picture is needed any more. A failed request is refused by its pictures, and whoever
waits for a person may be trained again with them."""


class RetentionService:
    """Purges pictures by policy, within the caller's transaction. What was purged once is left alone."""

    def __init__(self, session: Session, settings: Settings) -> None:
        self._requests = RequestRepository(session)
        self._evidence = EvidenceRepository(session)
        self._measurements = MeasurementRepository(session)
        self._lifecycle = Lifecycle(session)
        self._audit = AuditService(session)
        self._days = settings.evidence_retention_days

    def due(self, limit: int) -> Sequence[str]:
        """Return requests whose pictures have been kept long enough, oldest first."""
        return self._evidence.purgeable([state.value for state in PURGED_IN], self._days, limit)

    def purge(self, request_id: str, *, actor: str) -> int:
        """Purge a request's pictures if it still is time to, and return how many there were.

        The row of each picture stays, with the hash of the file for the exclusion manifest; so do the names,
        without which nobody could tell whom the request was about, until `lethe erase`. Examples of failures
        go with the pictures; the few before and after belong to the report and go when the request ends.
        """
        request = self._requests.lock_idle(request_id)
        if request is None or State(request.state) not in PURGED_IN or request_id not in self._due(request):
            return 0
        now = utcnow()
        n = self._evidence.purge(request_id, now)
        self._requests.patch(request_id, evidence_purged_at=now)
        for kind in ("failure", "regression"):
            self._measurements.forget_examples(request_id, kind)
        if request.state != State.ACTIVE:
            self._measurements.forget_examples(request_id)
        words = f"{n} picture(s) deleted, {self._days:g} day(s) after the request was {request.state}"
        self._lifecycle.note(request_id, "evidence_purged", actor=actor, message=words, data={"pictures": n})
        self._audit.append(
            "evidence.purged",
            actor=actor,
            subject_id=request_id,
            tenant_id=request.tenant_id,
            payload={"n": n, "because": request.state},
        )
        return n

    def _due(self, request: RemovalRequest) -> Sequence[str]:
        return self._evidence.purgeable([request.state], self._days, 1, only=request.id)


def retention_words(state: str, kept: int, purged_at: datetime | None, days: float) -> str:
    """Return one sentence about what becomes of a request's pictures."""
    if kept == 0:
        return "None is kept." if purged_at is None else f"Deleted on {purged_at:%Y-%m-%d}; none is kept."
    after = f"{days:g} day(s) after the request is active, rejected, cancelled or revoked"
    still = "; it is none of these yet" if State(state) not in PURGED_IN else ""
    return f"{kept} kept, encrypted. They are deleted {after}{still}."
