"""The report of a request: what was asked, what the model knew, what it says now, and what is not claimed."""

from collections.abc import Sequence
from typing import cast

from sqlalchemy.orm import Session

from app.accounts.principal import Principal
from app.db.models import RemovalRequest
from app.kit.canonical import JsonValue
from app.kit.clock import rfc3339, utcnow
from app.removal.errors import EvidenceGone
from app.removal.measurements import MeasurementService, Remeasured
from app.removal.reading import ReadingService
from app.removal.records import Score
from app.removal.report_words import elicited_words, not_claimed, score_words
from app.removal.repository import RequestRepository
from app.removal.retention import retention_words
from app.removal.service import RemovalService
from app.settings import Settings

Document = dict[str, JsonValue]


class ReportService:
    """One transaction's view of a request for those who have to prove something. Reading is audited."""

    def __init__(self, session: Session, settings: Settings) -> None:
        self._reading = ReadingService(session, settings)
        self._removal = RemovalService(session, settings)
        self._measurements = MeasurementService(session, settings)
        self._requests = RequestRepository(session)

    def report(self, principal: Principal, request_id: str, *, with_subject: bool = False) -> Document:
        """Return the report; with the subject and a few questions and answers only if asked for (audited).

        Raises:
            RequestNotFound: no such request, or another tenant's.
        """
        document = self._reading.report(principal, request_id)
        request = self._removal.get(request_id, principal.sees)
        lead = self._removal.get(request.linked_to_id, None) if request.linked_to_id else request
        scores = self._removal.scores(lead.id)
        prepared = self._removal.checkpoint(lead.id, "prepare")
        pictures = cast("dict[str, list[str]]", document["exclusion_manifest"])["pictures"]
        return document | {
            "generated_at": rfc3339(utcnow()),
            "asked": {
                "class": request.klass,
                "legal_ground": request.legal_ground,
                "filed_at": rfc3339(request.created_at),
                "pictures": len(pictures),
                "pictures_kept": retention_words(
                    request.state,
                    self._removal.evidence.count(request.id, kept=True),
                    request.evidence_purged_at,
                    self._removal.settings.evidence_retention_days,
                ),
                "subject": self._subject(request, principal) if with_subject else None,
            },
            "model_knew": {
                "known": lead.base_knows_subject,
                "statements": cast(
                    "JsonValue", elicited_words(prepared.artifact.get("elicited") if prepared else None)
                ),
            },
            "before_and_after": cast("JsonValue", self._examples(lead, principal) if with_subject else None),
            "findings": [cast("JsonValue", finding) for finding in score_words(scores)],
            "attacks": _attacks(scores),
            "measured_again": [_again(row) for row in self._measurements.remeasured(lead.id)],
            "not_claimed": cast("JsonValue", not_claimed(scores)),
        }

    def failures(self, principal: Principal, request_id: str) -> tuple[list[Document], int]:
        """Return the failing examples of the newest verification, and how many are not for this key.

        An example that concerns an earlier request is shown to those who may see that request.

        Raises:
            RequestNotFound: no such request, or another tenant's.
        """
        request = self._removal.get(request_id, principal.sees)
        found: list[Document] = []
        for kind in ("failure", "regression"):
            rows = self._measurements.examples(
                request, "failure" if kind == "failure" else "regression", actor=principal.key_id
            )
            found += [{"kind": kind, **row} for row in rows]
        shown = [row for row in found if self._may_see(principal, row.get("concerns"))]
        return shown, len(found) - len(shown)

    def _may_see(self, principal: Principal, concerns: JsonValue) -> bool:
        return concerns is None or self._requests.get(str(concerns), principal.sees) is not None

    def _subject(self, request: RemovalRequest, principal: Principal) -> Document | None:
        try:
            subject = self._removal.evidence.open_subject(request, actor=principal.key_id)
        except EvidenceGone:
            return None
        return {"name": subject.name, "aliases": list(subject.aliases)}

    def _examples(self, lead: RemovalRequest, principal: Principal) -> list[Document]:
        return self._measurements.examples(lead, "before_after", actor=principal.key_id)


def _attacks(scores: Sequence[Score]) -> JsonValue:
    """Return what each attack gained, by name; None if none was tried."""
    tried = next((score for score in scores if score.metric == "attack_delta"), None)
    return None if tried is None else dict(tried.details)


def _again(row: Remeasured) -> Document:
    return {
        "generation": row.generation,
        "after_request": row.after,
        "at": rfc3339(row.at),
        "measured": [
            {
                "metric": score.metric,
                "value": score.value,
                "n": score.n,
                "interval_95": [score.low, score.high],
                "threshold": score.threshold,
                "passed": score.passed,
                "reason": score.reason,
            }
            for score in row.scores
        ],
    }
