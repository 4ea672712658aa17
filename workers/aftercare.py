"""After a publish: measure a sample of all active requests again, and take the publish back if it did harm.

Runs in state `publishing`, before the request becomes `active`, so that a crash in between repeats it.
"""

from __future__ import annotations

from dataclasses import asdict

from app.kit.canonical import JsonValue
from app.kit.logging import get_logger
from app.lumoe.expert import LoadedExpert
from app.lumoe.router import Router
from app.registry.service import RegistryService
from app.removal.measurements import MeasurementService
from app.removal.service import RemovalService
from app.removal.states import Event
from workers.attempt import Attempt
from workers.verification.remeasure import (
    Again,
    Budget,
    Outcome,
    choose,
    fixed_references,
    remeasure,
    share_of,
)
from workers.verification.verify import Failure

_log = get_logger("aftercare")

BUDGET = Budget()


def measure_again(attempt: Attempt, before: Router, expert: LoadedExpert, generation: int) -> Outcome:
    """Measure the sample in ``generation``, keep the figures in SQL, and return them.

    Args:
        attempt: the one that has published.
        before: a router over the other live experts.
        expert: what was published.
        generation: that replicas serve it in.

    Raises:
        LeaseLost, StaleLease: another attempt has taken over.
        ConfigurationError: there is no retain data.
    """
    own = attempt.request_id
    after = before.with_expert(expert, generation)
    by_request = {held.request_id: held for held in after.experts.values()}
    with attempt.session() as session:
        last = MeasurementService(session, attempt.runtime.settings).last_measured(list(by_request))
    chosen = choose(list(by_request), last, own, BUDGET)
    each = share_of(BUDGET, len(chosen))
    asked = [_again(attempt, request_id, by_request[request_id], each) for request_id in chosen]
    utility = attempt.runtime.utility(BUDGET.utility)
    outcome = remeasure(after, before, asked[1:], utility, asked[0], attempt.lease.check)
    with attempt.session() as session:
        RemovalService(session, attempt.runtime.settings).lifecycle.check_token(own, attempt.lease.token)
        MeasurementService(session, attempt.runtime.settings).save_remeasured(generation, outcome.scores)
    return outcome


def take_back(attempt: Attempt, generation: int, outcome: Outcome) -> None:
    """Roll the registry back and hand the request to a person, with what went wrong; one transaction.

    The subject stays refused: interim protection takes the expert's place.
    """
    failures = [failure_json(f) for f in outcome.regressions]
    why = (
        f"Publishing it made {len(failures)} answers worse, those of {len(outcome.harmed)} earlier requests "
        "among them; it was taken back by itself, and the subject is refused as before."
    )
    figures: dict[str, JsonValue] = {
        "answers": len(failures),
        "requests": len(outcome.harmed),
        "measured": outcome.n,
    }
    with attempt.session() as session:
        settings, token = attempt.runtime.settings, attempt.lease.token
        restored = RegistryService(session, settings).take_back(
            attempt.request_id, generation, token=token, actor=attempt.actor, payload=figures
        )
        service = RemovalService(session, settings)
        MeasurementService(session, settings).save_examples(
            attempt.request_id,
            "regression",
            failures,
            attempt=service.attempt(attempt.request_id),
            token=token,
        )
        service.transition(
            attempt.request_id,
            Event.NEED_ATTENTION,
            actor=attempt.actor,
            token=token,
            reason=why,
            reason_code="regression",
            data={**figures, "generation": restored},
        )
    _log.warning("publish taken back", request=attempt.request_id, generation=restored, **figures)


def failure_json(failure: Failure) -> dict[str, JsonValue]:
    """Return a failing example as it is kept: `concerns` is a request's id instead of its expert's."""
    document = asdict(failure)
    if failure.concerns is not None:
        document["concerns"] = "req_" + failure.concerns.removeprefix("exp_").removeprefix("req_")
    return document


def _again(attempt: Attempt, request_id: str, expert: LoadedExpert, each: int) -> Again:
    """Return a request's fixed prompts; its evidence is read, and the reading audited, once per process."""
    runtime = attempt.runtime
    key = expert.key
    with attempt.session() as session:
        service = RemovalService(session, runtime.settings)
        policy = service.policy(request_id)
        sealed = None
        if key not in runtime.references:
            sealed = service.sealed_evidence(request_id, actor=attempt.actor)
    if sealed is not None:
        pictures = list(sealed.pictures())
        runtime.references[key] = fixed_references(
            runtime.mllm, expert.gate.aliases, expert.gate.klass, pictures, request_id, BUDGET.each
        )
    return Again(request_id, runtime.references[key][:each], policy)
