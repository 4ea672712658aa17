"""How the subject's own held-out views score at the gate: the other side of the negatives' distribution."""

from __future__ import annotations

import math

from app.kit.canonical import JsonValue
from app.lumoe.gate.pictures import recognition
from app.lumoe.router import Router
from workers.verification.suite import Suite

DETAIL = "own_views"
"""Under this name among the details of `gate_tpr`."""


def own_views(router: Router, expert_id: str, suite: Suite) -> dict[str, JsonValue]:
    """Score every picture of the subject in the suite: views that neither training nor calibration saw.

    Those that the base model takes for somebody else are among them: the gate need not claim them.

    Returns:
        ``own_views``: decimal logarithms of the chance that the base model names the subject, one for each
        picture; ``claimed_from``: the threshold on that scale. Empty where there is no picture, or no
        identity that the model could name.
    """
    record = router.experts[expert_id].gate
    asked = [*suite.subject, *suite.mistaken]
    pictures = {id(i): i for r in asked for message in r.prompt.conversation for i in message.images}
    if not pictures or not record.identity:
        return {}
    found = recognition(router.mllm, [(picture, record.identity) for picture in pictures.values()])
    scores: list[JsonValue] = [round(nats / math.log(10), 3) for nats in found]
    limit = router.gate.thresholds.of(record) / math.log(10)
    return {DETAIL: scores, "claimed_from": round(limit, 3) if math.isfinite(limit) else None}
