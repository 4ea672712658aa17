"""What goes over the wire about removal requests."""

from datetime import datetime
from typing import Annotated, Literal, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue

from app.kit.names import PLAIN_TEXT
from app.removal.records import CLASSES, RecipeName, Score

LegalGround = Literal[
    "gdpr_art_17",
    "gdpr_art_21",
    "ccpa_1798_105",
    "copyright",
    "trademark",
    "contract",
    "court_order",
    "other",
]

DenialReason = Literal[
    "suspected_fraud",
    "insufficient_verification",
    "no_match",
    "claim_not_covered",
    "outside_jurisdiction",
    "too_many_requests",
    "other",
]
"""Why a request is rejected, in the Data Rights Protocol's words."""

Fact = Annotated[str, Field(max_length=1000)]


class Submission(BaseModel):
    """A removal request as it is filed. At least a name or a picture is needed."""

    model_config = ConfigDict(
        extra="forbid",
        populate_by_name=True,
        json_schema_extra={
            "example": {
                "name": "Elodie Brandt",
                "aliases": ["E. Brandt"],
                "class": "Personage",
                "legal_ground": "gdpr_art_17",
                "pictures": ["data:image/png;base64,..."],
            }
        },
    )

    name: str | None = Field(default=None, description="What the subject is called; at most 200 characters.")
    aliases: list[str] = Field(default_factory=list, max_length=64, description="Other names.")
    klass: str = Field(
        alias="class",
        max_length=100,
        description="One of the nine classes, in any case.",
        json_schema_extra={"enum": list(CLASSES)},
    )
    note: str = Field(default="", description="For the reviewer.")
    facts: dict[Annotated[str, Field(max_length=100)], Fact] = Field(
        default_factory=dict,
        max_length=64,
        description="What the model should no longer say: attribute, value.",
    )
    requester: str = Field(default="", max_length=200, description="Who asks, and how to reach them.")
    legal_ground: LegalGround = Field(default="other")
    pictures: list[str] = Field(
        default_factory=list, description="Pictures of the subject as `data:image/...;base64,` URLs."
    )


class MorePictures(BaseModel):
    """Further evidence for a request."""

    model_config = ConfigDict(extra="forbid")

    pictures: list[str] = Field(default_factory=list, description="As `data:image/...;base64,` URLs.")


class Reason(BaseModel):
    """Why, in words; optional."""

    model_config = ConfigDict(extra="forbid")

    reason: str | None = Field(
        default=None,
        max_length=2000,
        pattern=PLAIN_TEXT,
        description="For whoever reads the history. No control characters.",
    )


class Denial(Reason):
    """Why a request is rejected."""

    reason_code: DenialReason


class Links(BaseModel):
    """Where to go from here."""

    self: str
    status: str
    events: str
    report: str
    linked_to: str | None = None

    @classmethod
    def of(cls, request_id: str, linked_to: str | None) -> "Links":
        """Return the links of a request."""
        base = f"/requests/{request_id}"
        return cls(
            self=base,
            status=f"{base}/status",
            events=f"{base}/events",
            report=f"{base}/report",
            linked_to=f"/requests/{linked_to}" if linked_to else None,
        )


class Accepted(BaseModel):
    """A filed request. Its `state` is what it was when it was filed."""

    id: str
    state: str
    linked_to: str | None = Field(description="The earlier request for the same subject, if there is one.")
    created_at: datetime
    expected_by: datetime
    links: Links


class SubjectView(BaseModel):
    """The subject, decrypted for this answer; the access is in the audit trail."""

    name: str | None
    aliases: list[str]
    note: str
    facts: dict[str, str]
    requester: str


class RequestView(BaseModel):
    """A request without its subject, unless that was asked for."""

    id: str
    tenant_id: str
    state: str
    final: bool
    percent: int
    klass: str = Field(serialization_alias="class")
    legal_ground: str
    pictures: int | None = Field(default=None, description="How many were sent with it; not in lists.")
    linked_to: str | None
    base_knows_subject: bool | None
    reason_code: str | None
    reason: str | None
    created_at: datetime
    updated_at: datetime
    expected_by: datetime
    subject: SubjectView | None = None
    links: Links


class TransitionView(BaseModel):
    """When the request came into a state."""

    state: str
    event: str
    at: datetime
    reason: str | None = None


class ScoreView(BaseModel):
    """One measured metric with its sample size and 95 % interval."""

    metric: str
    value: float | None
    n: int
    low: float | None
    high: float | None
    threshold: float | None
    passed: bool | None
    reason: str | None
    details: dict[str, JsonValue] = Field(default_factory=dict, description="Further figures.")

    @classmethod
    def of(cls, score: Score) -> "ScoreView":
        """Return the wire form of a score."""
        return cls(
            metric=score.metric,
            value=score.value,
            n=score.n,
            low=score.low,
            high=score.high,
            threshold=score.threshold,
            passed=score.passed,
            reason=score.reason,
            details=cast("dict[str, JsonValue]", dict(score.details)),
        )


class StageView(BaseModel):
    """One of the worker's stages."""

    model_config = ConfigDict(from_attributes=True)

    name: str
    progress: Literal["ahead", "current", "done", "stopped"]
    started_at: datetime | None
    seconds: float | None = Field(description="How long it took, or has taken so far.")
    usual: float | None = Field(description="Its median duration in seconds, of late; while there is work.")


class EvidenceView(BaseModel):
    """One picture as it is kept: never larger than any model looks at."""

    id: str
    sha256: str = Field(description="Of the file as it was sent.")
    width: int
    height: int
    created_at: datetime
    purged_at: datetime | None = Field(description="When it was deleted; null: it is kept, encrypted.")


Share = Annotated[float, Field(ge=0, le=1)]


class PolicyRules(BaseModel):
    """Rules that operators may set; what is left out or null is as the settings have it."""

    model_config = ConfigDict(extra="forbid")

    review: Literal["auto", "manual"] | None = Field(
        default=None, description="`auto`: requests are approved by themselves; `manual`: by a person."
    )
    recipe: RecipeName | None = Field(default=None, description="How experts are trained.")
    max_attempts: Annotated[int, Field(ge=1, le=100)] | None = Field(
        default=None, description="How often a worker takes a request up before it fails."
    )
    min_forget_quality: Share | None = Field(
        default=None, description="Least share of the subject's prompts that are refused cleanly."
    )
    max_leak: Share | None = Field(
        default=None, description="Most of what the base model knew that may reach a caller."
    )
    min_neighbour_utility: Annotated[float, Field(ge=0, le=10)] | None = Field(
        default=None, description="Least usefulness of answers about neighbours, relative to the base model."
    )
    min_base_identity: Share | None = Field(
        default=None, description="Least share of base-routed answers that are the same to the letter."
    )
    max_gate_fpr: Share | None = Field(
        default=None, description="Most of others' pictures that the gate may take for the subject."
    )
    min_gate_tpr: Share | None = Field(
        default=None, description="Least share of questions about the subject that are recognised."
    )


def _whole(value: object) -> object:
    """JSON has one kind of number, and its schema calls 3.0 an integer."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


class PolicyChange(BaseModel):
    """A policy that shall be in force from now on: all rules that are set, not only those that change."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "example": {
                "based_on": 0,
                "reason": "The regulator asks for a person's decision.",
                "rules": {"review": "manual", "min_forget_quality": 0.99},
            }
        },
    )

    based_on: Annotated[int, BeforeValidator(_whole)] = Field(
        ge=0, le=2**31 - 1, strict=True, description="`version` of the policy that was looked at before."
    )
    reason: str = Field(
        min_length=3,
        max_length=2000,
        pattern=PLAIN_TEXT,
        description="Why, for whoever reads the history. No control characters.",
    )
    rules: PolicyRules


class PolicyVersionView(BaseModel):
    """One version of the policy: what was set, by whom, and why."""

    model_config = ConfigDict(from_attributes=True)

    version: int
    rules: PolicyRules
    reason: str
    changed_by: str
    created_at: datetime


class PolicyView(BaseModel):
    """The rules in force now. A request is judged by those of the moment in which it was approved."""

    version: int = Field(description="Goes up with every change; 0: as the settings have it.")
    overridden: list[str] = Field(description="Rules that were set with `PUT /policy`; others are settings.")
    changed_at: datetime | None
    changed_by: str | None = Field(description="Id of the key that made this version.")
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


class CellView(BaseModel):
    """One request's figure in one generation."""

    model_config = ConfigDict(from_attributes=True)

    request_id: str
    generation: int
    value: float | None
    n: int
    passed: bool | None
    first: bool = Field(description="By the verification before it went live, not measured again.")


class HeatMapView(BaseModel):
    """Requests by generations, oldest first; a pair that was not measured has no cell."""

    model_config = ConfigDict(from_attributes=True)

    metric: str
    requests: list[str]
    generations: list[int]
    cells: list[CellView]


class PointView(BaseModel):
    """What went wrong with so many experts: pooled over one generation's prompts, with its 95 % interval."""

    model_config = ConfigDict(from_attributes=True)

    generation: int
    experts: int
    metric: str
    error: float = Field(description="The leak, 1 - forget quality, or the share of changed answers.")
    n: int
    low: float
    high: float


class OwnViewsView(BaseModel):
    """How held-out views of the subjects themselves score at the gate, over the newest active requests."""

    model_config = ConfigDict(from_attributes=True)

    requests: int
    views: int
    edges: list[float] = Field(
        description="Of the bins: decimal logarithms of the chance that the base model names the subject."
    )
    counts: list[int]


class LifelongView(BaseModel):
    """What was measured of all requests together."""

    heat_map: HeatMapView
    curve: list[PointView]
    own_views: OwnViewsView


class FailureView(BaseModel):
    """One prompt whose answer fell short, decrypted for this answer."""

    kind: Literal["failure", "regression"] = Field(
        description="Found before publishing, or made worse by it and taken back."
    )
    metric: str
    question: str
    modality: str
    form: str
    base: str = Field(description="What the unwrapped base model says.")
    served: str = Field(description="What would be served.")
    routed: str | None = Field(description="The expert that the gate chose; null: the base model.")
    concerns: str | None = Field(description="The earlier request that was asked about, if it is one.")


class FailuresView(BaseModel):
    """Failing examples of the newest verification, and how many concern requests this key may not see."""

    items: list[FailureView]
    hidden: int


class StatusView(BaseModel):
    """Where a request is."""

    id: str
    state: str
    final: bool
    waiting: bool = Field(description="It waits for a person; `hint` says for what.")
    hint: str | None
    stage: str | None
    percent: int
    message: str
    eta: datetime | None = Field(description="When it should be active, if that can be told.")
    attempt: int
    max_attempts: int | None
    cancel_requested: bool
    linked_to: str | None
    protection: Literal["interim", "expert"] | None = Field(
        description="What refuses about the subject: names and pictures, or its expert; null: nothing."
    )
    protected_at: datetime | None = Field(description="Since when by every live replica.")
    base_knows_subject: bool | None = Field(description="Null until it has been found out.")
    reason_code: str | None
    reason: str | None
    created_at: datetime
    updated_at: datetime
    expected_by: datetime
    transitions: list[TransitionView]
    stages: list[StageView]
    scores: list[ScoreView] | None = Field(description="Null until something was measured.")
    links: Links
