"""Every request: somebody works on it, its history is legal and audited, and it was verified."""

from collections.abc import Iterator, Mapping, Sequence

from app.doctor.findings import Check, Finding
from app.doctor.repository import DoctorRepository, RequestRow, Step
from app.removal.lifecycle import FOLLOW
from app.removal.sealed import COLUMNS, SealedRepository
from app.removal.states import ENDED, FINAL, TRANSITIONS, WAITING, Event, State
from app.settings import Settings

_RECEIVE = Step("receive", None, State.RECEIVED.value)
_SETTLED = tuple(state.value for state in (*FINAL, *WAITING))
_ENDED = frozenset(state.value for state in ENDED)


def check_requests(
    repository: DoctorRepository, settings: Settings, requests: Sequence[RequestRow]
) -> Iterator[Finding]:
    """Yield what is wrong with requests as such."""
    patience = settings.redelivery_seconds + 3 * settings.sweep_seconds
    for request_id, state in repository.stuck(_SETTLED, patience):
        yield Finding(
            Check.STUCK,
            request_id,
            f"It is `{state}`, but has neither a job on its way nor a live lease, for over {patience:.0f} s.",
        )
    for request_id, error in repository.unpublished(settings.redelivery_seconds):
        yield Finding(
            Check.JOB_UNPUBLISHED,
            request_id,
            f"Its job has waited for the broker over {settings.redelivery_seconds:.0f} s"
            + (f" (last error: {error})." if error else "."),
        )
    yield from _histories(requests, repository.history(), repository.audited())
    yield from _links(requests)
    yield from _attempts(requests)
    yield from _keys(repository, settings)
    yield from _verdicts(requests, repository.verdicts())


def _histories(
    requests: Sequence[RequestRow],
    history: Mapping[str, Sequence[Step]],
    audited: Mapping[str, Sequence[Step]],
) -> Iterator[Finding]:
    """Every change of state is a legal one, is the last one's successor, and has its audit event."""
    for request in requests:
        steps = history.get(request.id, ())
        reached = steps[-1].after if steps else None
        if reached != request.state:
            yield Finding(
                Check.HISTORY, request.id, f"It is `{request.state}`, but its history ends in `{reached}`."
            )
            continue
        illegal = next((step for step, before in _pairs(steps) if not _legal(step, before)), None)
        if illegal is not None:
            yield Finding(
                Check.HISTORY,
                request.id,
                f"Its history says `{illegal.event}` from `{illegal.before}` to `{illegal.after}`, "
                "which is not possible there.",
            )
        elif list(steps) != list(audited.get(request.id, ())):
            yield Finding(
                Check.HISTORY,
                request.id,
                f"Its history has {len(steps)} changes of state, the audit log "
                f"{len(audited.get(request.id, ()))}, and they are not the same ones.",
            )
    for unknown in sorted(set(audited) - {request.id for request in requests}):
        yield Finding(Check.HISTORY, unknown, "The audit log tells of it, but there is no such request.")


def _pairs(steps: Sequence[Step]) -> Iterator[tuple[Step, str | None]]:
    """Yield each step with the state that the one before led to."""
    before: str | None = None
    for step in steps:
        yield step, before
        before = step.after


def _legal(step: Step, before: str | None) -> bool:
    if step.before != before:
        return False
    if before is None:
        return step == _RECEIVE
    if step.event == FOLLOW:
        return True
    try:
        return TRANSITIONS.get((State(before), Event(step.event or ""))) == step.after
    except ValueError:
        return False


def _links(requests: Sequence[RequestRow]) -> Iterator[Finding]:
    """A linked request follows one of the same tenant that follows nobody, and is in the same state."""
    by_id = {request.id: request for request in requests}
    for request in requests:
        if request.linked_to is None:
            continue
        lead = by_id.get(request.linked_to)
        if lead is None or lead.linked_to is not None or lead.tenant_id != request.tenant_id:
            detail = (
                f"It follows {request.linked_to}, which is missing, another tenant's, or follows one itself."
            )
        elif request.state != lead.state and request.state not in _ENDED:
            detail = f"It is `{request.state}`, but {lead.id}, which it follows, is `{lead.state}`."
        else:
            continue
        yield Finding(Check.LINK, request.id, detail)


def _attempts(requests: Sequence[RequestRow]) -> Iterator[Finding]:
    for request in requests:
        if request.max_attempts is not None and request.attempt > request.max_attempts:
            yield Finding(
                Check.ATTEMPTS,
                request.id,
                f"It was taken up {request.attempt} times; its policy allows {request.max_attempts}.",
            )


def _keys(repository: DoctorRepository, settings: Settings) -> Iterator[Finding]:
    """Whatever is encrypted can be decrypted with a key that is configured."""
    known = settings.evidence_cipher().key_ids
    sealed = SealedRepository(repository.session)
    for column in COLUMNS:
        for key, concerned in sealed.located(column):
            if key not in known:
                yield Finding(
                    Check.EVIDENCE_KEY,
                    concerned,
                    f"Its {column.name.replace('_', ' ')} are encrypted under key {key}, which is not "
                    "configured.",
                )


def _verdicts(
    requests: Sequence[RequestRow], verdicts: Mapping[str, Sequence[bool | None]]
) -> Iterator[Finding]:
    """What is active was measured, and met its policy."""
    for request in requests:
        if request.state != State.ACTIVE or request.linked_to is not None:
            continue
        found = verdicts.get(request.id, ())
        if not any(verdict is not None for verdict in found):
            yield Finding(Check.UNVERIFIED, request.id, "It is active, but nothing was measured.")
        elif False in found:
            below = sum(verdict is False for verdict in found)
            yield Finding(
                Check.UNVERIFIED, request.id, f"It is active with {below} figure(s) below its policy."
            )
