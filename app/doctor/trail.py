"""The audit trail: unbroken, signed for in time, and with nothing personal under a hash."""

import re
from collections.abc import Iterator, Mapping, Sequence

from app.audit.checkpoints import CheckpointService
from app.audit.repository import CheckpointRepository
from app.db.models import AuditEvent
from app.doctor.findings import Check, Finding
from app.doctor.repository import DoctorRepository
from app.kit.canonical import JsonValue
from app.settings import Settings

_LATE = 3
_MOST = 20
_ID = re.compile(r"[a-z]{2,4}_[0-9a-f]{32}|[0-9a-f]{64}")
_CODE = re.compile(r"[a-z][a-z0-9_]{0,63}")
_ACTOR = re.compile(
    r"key_[0-9a-f]{32}|(worker|policy|system|replica|api)(:[A-Za-z0-9_.:@/+-]{0,120})?|rep_[0-9a-f]{32}"
)

ID, CODE, NUMBER, CODES = "id", "code", "number", "codes"
_PAYLOAD: Mapping[str, str] = {
    "from": CODE, "to": CODE, "reason_code": CODE, "kind": CODE, "by": CODE, "what": CODE,
    "reason_token": ID, "data_token": ID, "expert": ID, "manifest_sha256": ID,
    "generation": NUMBER, "experts": NUMBER, "restored": NUMBER, "version": NUMBER, "replicas": NUMBER,
    "n": NUMBER, "answers": NUMBER, "requests": NUMBER, "measured": NUMBER, "because": CODE,
    "kept": NUMBER, "dropped": NUMBER,
    "scopes": CODES,
    "review": CODE, "recipe": CODE, "max_attempts": NUMBER, "min_forget_quality": NUMBER, "max_leak": NUMBER,
    "min_neighbour_utility": NUMBER, "min_base_identity": NUMBER, "max_gate_fpr": NUMBER,
    "min_gate_tpr": NUMBER,
    "changed": CODES,
}  # fmt: skip
"""What an event's payload may say, and in what form. Words that people wrote have none of these."""

_PHRASES = frozenset({"subject and pictures"})


def check_trail(repository: DoctorRepository, settings: Settings) -> tuple[list[Finding], int]:
    """Return what is wrong with the trail, and how many events it has."""
    session = repository.session
    personal: list[Finding] = []

    def look(event: AuditEvent) -> None:
        member = None if len(personal) >= _MOST else suspicious(event)
        if member is not None:
            detail = f"Its {member} is not an id, a code, a figure or a salted token."
            personal.append(Finding(Check.PERSONAL, f"event {event.seq}", detail))

    report = CheckpointService(session, settings).verify(look=look)
    found: list[Finding] = []
    if not report.intact:
        where = f"event {report.broken_at}" if report.broken_at is not None else "system"
        found.append(Finding(Check.CHAIN, where, f"{(report.breach or '')}: {report.reason}."))
    newest = CheckpointRepository(session).newest()
    age = repository.oldest_uncovered(newest.seq if newest is not None else 0)
    if age is not None and age > _LATE * settings.checkpoint_seconds:
        detail = f"Nothing was signed for since an event {age:.0f} s ago."
        found.append(Finding(Check.CHECKPOINT, "system", detail))
    return [*found, *personal], report.events


def suspicious(event: AuditEvent) -> str | None:
    """Return which member of an event may be personal: it is not of a form that only ids and codes have."""
    if not _ACTOR.fullmatch(event.actor):
        return "actor"
    if event.subject_id is not None and not _ID.fullmatch(event.subject_id):
        return "subject_id"
    return next((name for name in event.payload if not _fits(name, event.payload[name])), None)


def _fits(name: str, value: JsonValue) -> bool:
    form = _PAYLOAD.get(name)
    if value is None or isinstance(value, bool | int | float):
        return form is not None
    if isinstance(value, str):
        if form == ID:
            return _ID.fullmatch(value) is not None
        return form == CODE and (_CODE.fullmatch(value) is not None or value in _PHRASES)
    if form == CODES and isinstance(value, Sequence):
        return all(isinstance(one, str) and _CODE.fullmatch(one) for one in value)
    return False


def known_payload() -> Iterator[str]:
    """Yield the members that events may have."""
    yield from _PAYLOAD
