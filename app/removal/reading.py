"""What can be read about requests: lists, status, events, report."""

from collections.abc import Sequence

from sqlalchemy.orm import Session

from app.accounts.principal import Principal
from app.db.models import RemovalRequest, RequestEvent
from app.db.repository import Page
from app.kit.canonical import JsonValue
from app.kit.clock import rfc3339
from app.removal.records import Score
from app.removal.repository import EventRepository, RequestRepository
from app.removal.schemas import (
    EvidenceView,
    Links,
    RequestView,
    StatusView,
    SubjectView,
)
from app.removal.service import RemovalService
from app.removal.states import FINAL, State
from app.removal.status import read_status
from app.settings import Settings

SCOPE = (
    "Suppressed at this endpoint, not erased from the weights: the base model is unchanged, and whoever "
    "holds its weights can still ask it. The next full retraining must leave out what the exclusion "
    "manifest lists."
)


class ReadingService:
    """One transaction's view of requests for people. Reading a subject is audited, so it writes too."""

    def __init__(self, session: Session, settings: Settings) -> None:
        self._session = session
        self._removal = RemovalService(session, settings)
        self._requests = RequestRepository(session)
        self._events = EventRepository(session)

    def listed(
        self, principal: Principal, *, states: Sequence[str], after: str | None, limit: int
    ) -> Page[RemovalRequest]:
        """Return requests this key may see, newest first."""
        return self._requests.listed(principal.sees, states=states, after=after, limit=limit)

    def view(self, principal: Principal, request_id: str, *, with_subject: bool = False) -> RequestView:
        """Return one request, with its decrypted subject if asked for.

        Raises:
            RequestNotFound: no such request, or another tenant's.
        """
        request = self._removal.get(request_id, principal.sees)
        view = request_view(request)
        view.pictures = self._removal.evidence.count(request_id)
        if with_subject:
            subject = self._removal.evidence.open_subject(request, actor=principal.key_id)
            view.subject = SubjectView(
                name=subject.name,
                aliases=list(subject.aliases),
                note=subject.note,
                facts=dict(subject.facts),
                requester=subject.requester,
            )
        return view

    def status(self, principal: Principal, request_id: str) -> StatusView:
        """Return where a request is; a linked one shows stage, attempt and scores of the one it follows.

        Raises:
            RequestNotFound: no such request, or another tenant's.
        """
        self._session.flush()  # the ORM does so before its own statements alone
        return read_status(self._session.connection(), principal, request_id)

    def events(
        self, principal: Principal, request_id: str, *, after: int
    ) -> tuple[Sequence[RequestEvent], bool]:
        """Return the events after `after`, and whether there will be no more for now.

        Raises:
            RequestNotFound: no such request, or another tenant's.
        """
        request = self._removal.get(request_id, principal.sees)  # read before the events: none is missed
        found = self._events.of(request_id, after=after)
        return found, State(request.state) in FINAL

    def log(self, principal: Principal, request_id: str, *, limit: int = 200) -> Sequence[RequestEvent]:
        """Return the newest events, oldest first. A linked request's work is in the log of its lead.

        Raises:
            RequestNotFound: no such request, or another tenant's.
        """
        request = self._removal.get(request_id, principal.sees)
        return self._events.recent(request.id, limit)

    def counts(self, principal: Principal) -> dict[State, int]:
        """Return how many of the requests this key may see are in each state that has any."""
        found = self._requests.counts(principal.sees)
        return {state: found[state] for state in State if state in found}

    def evidence(self, principal: Principal, request_id: str) -> list[EvidenceView]:
        """Return what pictures there are or were, without looking at them.

        Raises:
            RequestNotFound: no such request, or another tenant's.
        """
        request = self._removal.get(request_id, principal.sees)
        return [
            EvidenceView(
                id=row.id,
                sha256=row.content_sha256,
                width=row.width,
                height=row.height,
                created_at=row.created_at,
                purged_at=row.purged_at,
            )
            for row in self._removal.evidence.listed(request.id)
        ]

    def picture(self, principal: Principal, request_id: str, evidence_id: str) -> bytes:
        """Return one decrypted picture as PNG; the access is audited.

        Raises:
            RequestNotFound: no such request, or another tenant's.
            EvidenceNotFound, EvidenceGone: it has no such picture, or no longer.
        """
        request = self._removal.get(request_id, principal.sees)
        return self._removal.evidence.open_picture(request, evidence_id, actor=principal.key_id)

    def report(self, principal: Principal, request_id: str) -> dict[str, JsonValue]:
        """Return what was asked (without the evidence), what was measured, and what that means.

        Raises:
            RequestNotFound: no such request, or another tenant's.
        """
        request = self._removal.get(request_id, principal.sees)
        lead = self._lead(request)
        manifest = sorted(
            {*self._removal.evidence.manifest(request.id), *self._removal.evidence.manifest(lead.id)}
        )
        events, head = self._requests.audit_trail(request.id)
        expert = self._requests.newest_expert(lead.id)
        scores = self._removal.scores(lead.id)
        return {
            "request": {
                "id": request.id,
                "class": request.klass,
                "legal_ground": request.legal_ground,
                "state": request.state,
                "linked_to": request.linked_to_id,
                "created_at": rfc3339(request.created_at),
                "transitions": [
                    {"state": event.to_state, "at": rfc3339(event.created_at)}
                    for event in self._events.transitions(request.id)
                ],
                "reason_code": request.reason_code,
            },
            "scope": SCOPE,
            "base_model": {
                "knows_subject": lead.base_knows_subject,
                "statement": knowledge(lead.base_knows_subject),
            },
            "policy": lead.policy,
            "attempt": lead.attempt,
            "measured": [measured(score) for score in scores],
            "passed": all(score.passed is not False for score in scores) if scores else None,
            "expert": None
            if expert is None
            else {
                "id": expert.id,
                "version": expert.version,
                "manifest_sha256": expert.manifest_sha256,
                "bytes": expert.bytes,
                "model_fingerprint": expert.model_fingerprint,
            },
            "exclusion_manifest": {"algorithm": "sha256", "pictures": list(manifest)},
            "audit": {"events": events, "last_hash": head},
        }

    def _lead(self, request: RemovalRequest) -> RemovalRequest:
        return self._removal.get(request.linked_to_id, None) if request.linked_to_id else request


def request_view(request: RemovalRequest) -> RequestView:
    """Return the wire form of a request, without its subject."""
    return RequestView(
        id=request.id,
        tenant_id=request.tenant_id,
        state=request.state,
        final=State(request.state) in FINAL,
        percent=100 if request.state == State.ACTIVE else request.percent,
        klass=request.klass,
        legal_ground=request.legal_ground,
        linked_to=request.linked_to_id,
        base_knows_subject=request.base_knows_subject,
        reason_code=request.reason_code,
        reason=request.reason,
        created_at=request.created_at,
        updated_at=request.updated_at,
        expected_by=request.expected_by,
        links=Links.of(request.id, request.linked_to_id),
    )


def event_json(event: RequestEvent) -> dict[str, JsonValue]:
    """Return the wire form of an event."""
    return {
        "id": event.seq,
        "kind": event.kind,
        "event": event.event,
        "from": event.from_state,
        "state": event.to_state,
        "stage": event.stage,
        "percent": event.percent,
        "message": event.message,
        "data": event.data,
        "at": rfc3339(event.created_at),
    }


def measured(score: Score) -> dict[str, JsonValue]:
    """Return a score as reports and certificates have it."""
    return {
        "metric": score.metric,
        "value": score.value,
        "n": score.n,
        "interval_95": [score.low, score.high],
        "threshold": score.threshold,
        "passed": score.passed,
        "reason": score.reason,
        "details": score.details,
    }


def knowledge(knows: bool | None) -> str:
    """Return what was found out about the base model, as a sentence."""
    if knows is None:
        return "Not examined yet."
    if knows:
        return "The base model showed knowledge of the subject before the expert was trained."
    return "The base model showed no knowledge of the subject; the request is protected all the same."
