"""The certificate of an active request: what was measured, signed, and what it does not mean."""

from sqlalchemy.orm import Session

from app.accounts.principal import Principal
from app.audit.repository import AuditRepository
from app.audit.signing import CERTIFICATE, Signer
from app.db.models import AuditEvent, RemovalRequest
from app.kit.canonical import JsonValue, json_sha256
from app.registry.service import RegistryService
from app.removal.errors import ExpertNotLive, NotMeasuredYet
from app.removal.lifecycle import FOLLOW
from app.removal.reading import knowledge, measured
from app.removal.service import RemovalService
from app.removal.states import Event, State
from app.settings import Settings

FORMAT = 1
CLAIMED = (
    "Suppressed at this endpoint: since the request became active, every replica of this service serves the "
    "expert named here, which declines to talk about the subject. `measured` lists what it was verified on "
    "before that, how often, and with what result."
)
NOT_CLAIMED = (
    "Not erased from the weights: the base model is unchanged, and whoever holds its weights can still ask "
    "it.",
    "Nothing about other services, other models, or copies of this model elsewhere.",
    "Nothing beyond what was measured: an interval of 95 % confidence is no bound.",
    "Nothing about the time after a withdrawal: ask the service whether the request is still active.",
)


class CertificateService:
    """One transaction's view of what can be certified."""

    def __init__(self, session: Session, settings: Settings) -> None:
        self._settings = settings
        self._removal = RemovalService(session, settings)
        self._registry = RegistryService(session, settings)
        self._audit = AuditRepository(session)

    def issue(self, principal: Principal, request_id: str) -> str:
        """Return a compact JWS, the same every time for the same request, expert and signing key.

        Nothing in it is personal: the subject appears as the request's id, its pictures as one digest.

        Raises:
            RequestNotFound: no such request, or another tenant's.
            NotMeasuredYet: 409, it is not active.
            ExpertNotLive: 409, its expert was taken out past the service.
        """
        request = self._removal.get(request_id, principal.sees)
        event = self._activation(request)
        if request.state != State.ACTIVE or event is None:
            raise NotMeasuredYet(f"The request is `{request.state}`.")
        lead = self._removal.get(request.linked_to_id, None) if request.linked_to_id else request
        found = self._registry.live_expert(lead.id)
        if found is None:
            raise ExpertNotLive("The newest registry generation has no expert of this request.")
        expert, generation = found
        scores = self._removal.scores(lead.id)
        pictures = sorted(
            {*self._removal.evidence.manifest(request.id), *self._removal.evidence.manifest(lead.id)}
        )
        claims: dict[str, JsonValue] = {
            "iss": "lethe",
            "sub": request.id,
            "iat": int(event.created_at.timestamp()),
            "format": FORMAT,
            "claimed": CLAIMED,
            "not_claimed": list(NOT_CLAIMED),
            "request": {
                "id": request.id,
                "state": request.state,
                "class": request.klass,
                "legal_ground": request.legal_ground,
                "linked_to": request.linked_to_id,
            },
            "expert": {
                "id": expert.id,
                "version": expert.version,
                "manifest_sha256": expert.manifest_sha256,
                "generation": generation,
            },
            "base_model": {
                "fingerprint": expert.model_fingerprint,
                "knows_subject": lead.base_knows_subject,
                "statement": knowledge(lead.base_knows_subject),
            },
            "measured": [measured(score) for score in scores],
            "passed": all(score.passed is not False for score in scores) if scores else None,
            "policy": _thresholds(lead),
            "exclusion_manifest": {"pictures": len(pictures), "sha256": json_sha256(pictures)},
            "audit": {"seq": event.seq, "hash": event.hash},
        }
        return Signer(self._settings).sign(claims | {"digest": json_sha256(claims)}, type=CERTIFICATE)

    def _activation(self, request: RemovalRequest) -> AuditEvent | None:
        """Return the event by which the request became active, alone or with the one it follows."""
        kind = FOLLOW if request.linked_to_id else Event.ACTIVATE.value
        return self._audit.last_of(request.id, f"request.{kind}")


def _thresholds(lead: RemovalRequest) -> dict[str, JsonValue]:
    """Return the policy that was in force at approval, without where this installation keeps its model."""
    return {name: value for name, value in (lead.policy or {}).items() if name != "model"}
