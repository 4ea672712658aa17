"""What the API takes and returns, as it is on the wire; a test holds every field to the server's schemas."""

from __future__ import annotations

from typing import Any, Generic, Literal, NotRequired, TypedDict, TypeVar

Json = dict[str, Any]
T = TypeVar("T")

State = Literal[
    "received", "in_review", "approved", "queued", "preparing", "training", "calibrating", "verifying",
    "publishing", "active", "rejected", "cancelled", "failed", "revoked", "needs_evidence", "needs_attention",
]  # fmt: skip
Denial = Literal[
    "suspected_fraud", "insufficient_verification", "no_match", "claim_not_covered", "outside_jurisdiction",
    "too_many_requests", "other",
]  # fmt: skip


class Turn(TypedDict):
    """One message of a conversation as ``POST /chat`` takes it."""

    role: Literal["system", "user", "assistant"]
    content: str | list[Json]


class Page(TypedDict, Generic[T]):
    """One page of a list; `next` is the cursor of the following one, None on the last."""

    items: list[T]
    next: str | None


class Links(TypedDict):
    """Where to go from a request."""

    self: str
    status: str
    events: str
    report: str
    linked_to: str | None


class Accepted(TypedDict):
    """A filed request; `linked_to` is the earlier one for the same subject, if there is one."""

    id: str
    state: State
    linked_to: str | None
    created_at: str
    expected_by: str
    links: Links


class Subject(TypedDict):
    """Whom a request is about, decrypted for one answer."""

    name: str | None
    aliases: list[str]
    note: str
    facts: dict[str, str]
    requester: str


Request = TypedDict(
    "Request",
    {
        "id": str, "tenant_id": str, "state": State, "final": bool, "percent": int, "class": str,
        "legal_ground": str, "pictures": int | None, "linked_to": str | None,
        "base_knows_subject": bool | None, "reason_code": str | None, "reason": str | None,
        "created_at": str, "updated_at": str, "expected_by": str, "subject": Subject | None, "links": Links,
    },
)  # fmt: skip
"""A removal request; `subject` only where it was asked for."""


class Transition(TypedDict):
    """When a request came into a state."""

    state: State
    event: str
    at: str
    reason: str | None


class Score(TypedDict):
    """One measured metric with its sample size and 95 % interval."""

    metric: str
    value: float | None
    n: int
    low: float | None
    high: float | None
    threshold: float | None
    passed: bool | None
    reason: str | None
    details: Json


class Stage(TypedDict):
    """One of the worker's stages; `usual` is its median duration of late, in seconds."""

    name: str
    progress: Literal["ahead", "current", "done", "stopped"]
    started_at: str | None
    seconds: float | None
    usual: float | None


class KeptPicture(TypedDict):
    """One picture of a request's evidence; `sha256` is that of the file as it was sent."""

    id: str
    sha256: str
    width: int
    height: int
    created_at: str
    purged_at: str | None


class PolicyRules(TypedDict, total=False):
    """Rules that operators may set; what is left out or None is as the settings have it."""

    review: Literal["auto", "manual"] | None
    recipe: Literal["default", "cold", "strong"] | None
    max_attempts: int | None
    min_forget_quality: float | None
    max_leak: float | None
    min_neighbour_utility: float | None
    min_base_identity: float | None
    max_gate_fpr: float | None
    min_gate_tpr: float | None


class PolicyVersion(TypedDict):
    """One version of the policy: what was set, by which key, and why."""

    version: int
    rules: PolicyRules
    reason: str
    changed_by: str
    created_at: str


class Policy(TypedDict):
    """The rules in force now; `overridden` names those that were set, the others are the settings'."""

    version: int
    overridden: list[str]
    changed_at: str | None
    changed_by: str | None
    reason: str | None
    review: str
    recipe: str
    model: str
    max_attempts: int
    min_forget_quality: float
    max_leak: float
    min_neighbour_utility: float
    min_base_identity: float
    max_gate_fpr: float
    min_gate_tpr: float
    response_days: int
    evidence_retention_days: float
    max_pictures: int
    max_picture_bytes: int


class Cell(TypedDict):
    """One request's figure in one generation; `first`: by the verification before it went live."""

    request_id: str
    generation: int
    value: float | None
    n: int
    passed: bool | None
    first: bool


class HeatMap(TypedDict):
    """Requests by generations, oldest first; a pair that was not measured has no cell."""

    metric: str
    requests: list[str]
    generations: list[int]
    cells: list[Cell]


class Point(TypedDict):
    """What went wrong with so many experts, with its 95 % interval."""

    generation: int
    experts: int
    metric: str
    error: float
    n: int
    low: float
    high: float


class OwnViews(TypedDict):
    """How held-out views of the subjects themselves score at the gate; others' are in `GateScores`."""

    requests: int
    views: int
    edges: list[float]
    counts: list[int]


class Lifelong(TypedDict):
    """What was measured of all requests together."""

    heat_map: HeatMap
    curve: list[Point]
    own_views: OwnViews


class Status(TypedDict):
    """Where a request is. Times are RFC 3339."""

    id: str
    state: State
    final: bool
    waiting: bool
    hint: str | None
    stage: str | None
    percent: int
    message: str
    eta: str | None
    attempt: int
    max_attempts: int | None
    cancel_requested: bool
    linked_to: str | None
    protection: Literal["interim", "expert"] | None
    protected_at: str | None
    base_knows_subject: bool | None
    reason_code: str | None
    reason: str | None
    created_at: str
    updated_at: str
    expected_by: str
    transitions: list[Transition]
    stages: list[Stage]
    scores: list[Score] | None
    links: Links


Happened = TypedDict(
    "Happened",
    {
        "id": int, "kind": str, "event": str | None, "from": str | None, "state": State | None,
        "stage": str | None, "percent": int | None, "message": str, "data": Json, "at": str,
    },
)  # fmt: skip
"""One event of a request's stream: a change of state, progress, or something else; `id` grows."""


class Failure(TypedDict):
    """One prompt whose answer fell short."""

    kind: Literal["failure", "regression"]
    metric: str
    question: str
    modality: str
    form: str
    base: str
    served: str
    routed: str | None
    concerns: str | None


class Failures(TypedDict):
    """Failing examples of the newest verification, and how many this key may not see."""

    items: list[Failure]
    hidden: int


class Expert(TypedDict):
    """A live expert."""

    id: str
    version: int
    request_id: str
    path: str
    manifest_sha256: str
    bytes: int
    fingerprint: str | None
    created_at: str


class Replica(TypedDict):
    """A live replica and what it serves."""

    id: str
    name: str
    fingerprint: str | None
    generation: int
    error: str | None
    heartbeat_at: str


class Registry(TypedDict):
    """The newest generation, a page of its experts, and the replicas that serve it."""

    generation: int
    acknowledged: bool
    items: list[Expert]
    next: str | None
    interim: int
    replicas: list[Replica]


class Interim(TypedDict):
    """A subject that is refused without an expert."""

    id: str
    expert_id: str
    request_id: str
    since_generation: int
    created_at: str
    protected_at: str | None


class Generation(TypedDict):
    """One set of live experts there was."""

    number: int
    cause: str
    restored_from: int | None
    created_at: str
    request_id: str | None


class AuditEvent(TypedDict):
    """One link of the audit chain."""

    seq: int
    id: str
    tenant_id: str | None
    kind: str
    actor: str
    subject_id: str | None
    payload: Json
    created_at: str
    prev_hash: str
    hash: str


class Chain(TypedDict):
    """What recomputing the whole audit chain found."""

    intact: bool
    events: int
    head_seq: int
    head_hash: str
    broken_at: int | None
    breach: str | None
    reason: str | None
    checkpoints: int
    checked_at: str


class Checkpoint(TypedDict):
    """The chain's head at one moment, signed."""

    seq: int
    hash: str
    root: str
    issued_at: str
    jws: str


class Proof(TypedDict):
    """An event and its Merkle path up to a signed root."""

    event: AuditEvent
    index: int
    path: list[str]
    checkpoint: Checkpoint


class Consistency(TypedDict):
    """Proof that the log under the newer checkpoint begins with the one under the older."""

    older: Checkpoint
    newer: Checkpoint
    path: list[str]


class KeySet(TypedDict):
    """The public keys of the server's signatures (JWK set)."""

    keys: list[dict[str, str]]


class Message(TypedDict):
    """The answer's turn."""

    role: Literal["assistant"]
    content: str


class Usage(TypedDict):
    """Token counts."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Evidence(TypedDict):
    """One reason for or against an expert."""

    expert_id: str
    kind: str
    strength: Literal["strong", "weak"]
    score: float
    threshold: NotRequired[float | None]
    turn: int


class Routing(TypedDict):
    """Who answered and why; for operators."""

    expert_id: NotRequired[str | None]
    answered_by: NotRequired[str | None]
    generation: int
    guarded: bool
    evidence: list[Evidence]


class Answer(TypedDict):
    """A whole answer."""

    id: str
    model: str
    message: Message
    finish_reason: Literal["stop", "length", "cancelled"]
    usage: Usage
    routing: NotRequired[Routing]


class Comparison(TypedDict):
    """A conversation answered by the base model alone and by the service; `base` is None if `withheld`."""

    base: Message | None
    withheld: bool
    service: Answer


class Attack(TypedDict):
    """A built-in way to get at a forgotten subject, by a picture or by a name."""

    name: str
    modality: Literal["image", "text"]


class AskedTurn(TypedDict):
    """One turn of what an attack asked, with how many pictures."""

    role: Literal["system", "user", "assistant"]
    text: str
    pictures: int


class AttackResult(TypedDict):
    """What an attack asked, and what came of it."""

    attack: str
    asked: list[AskedTurn]
    comparison: Comparison


class GateScores(TypedDict):
    """How pictures of others score at the gate of one replica, against the threshold."""

    generation: int
    experts: int
    threshold: float
    watched_from: float
    pictures: int
    never_asked: int
    above: int
    edges: list[float]
    counts: list[int]


class Ready(TypedDict):
    """Everything the process needs is there."""

    status: str
    checks: dict[str, str]
    generation: int | None


class Webhook(TypedDict):
    """Where a tenant is told of changes of state; `secret` only when it was just made."""

    id: str
    tenant_id: str
    url: str
    description: str
    enabled: bool
    disabled_because: str | None
    waiting: int
    created_at: str
    last_delivered_at: str | None
    secret: NotRequired[str | None]


class Delivery(TypedDict):
    """One attempt at delivering one message."""

    id: str
    message_id: str
    type: str
    request_id: str | None
    attempt: int
    delivered: bool
    status: int | None
    error: str | None
    milliseconds: int
    at: str
