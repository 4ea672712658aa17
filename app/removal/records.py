"""Values that the removal service hands to workers and pages."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any, Literal, Self, cast, get_args

from app.kit.canonical import JsonValue
from app.settings import Settings

CLASSES = (
    "Animals",
    "Astronomy",
    "Buildings",
    "Cartoon",
    "Corporation",
    "Movies",
    "Personage",
    "Plants",
    "TV series",
)
"""The classes of subjects, as MLUBench spells them."""

RecipeName = Literal["default", "cold", "strong"]
RECIPES: tuple[str, ...] = get_args(RecipeName)
"""The recipes that workers know; the recipes themselves are in `workers.training.recipe`."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What is to be forgotten, decrypted. `name` is None when only pictures were sent."""

    name: str | None
    aliases: tuple[str, ...]
    klass: str
    note: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    requester: str = ""


@dataclass(frozen=True, slots=True)
class Policy:
    """The rules a request is judged by, as they were when it was approved.

    `version` is that of the policy that operators set; 0: the settings alone.
    """

    review: str
    recipe: str
    model: str
    model_fingerprint: str | None
    max_attempts: int
    min_forget_quality: float
    max_leak: float
    min_neighbour_utility: float
    min_base_identity: float
    max_gate_fpr: float
    min_gate_tpr: float
    seed: int
    version: int = 0

    @classmethod
    def of(cls, settings: Settings, model_fingerprint: str | None) -> Self:
        """Return the policy that `settings` make now."""
        return cls(
            review=settings.review_policy,
            recipe=settings.recipe,
            model=settings.model,
            model_fingerprint=model_fingerprint,
            max_attempts=settings.max_attempts,
            min_forget_quality=settings.min_forget_quality,
            max_leak=settings.max_leak,
            min_neighbour_utility=settings.min_neighbour_utility,
            min_base_identity=settings.min_base_identity,
            max_gate_fpr=settings.max_gate_fpr,
            min_gate_tpr=settings.min_gate_tpr,
            seed=settings.seed,
        )

    def under(self, version: int, rules: Mapping[str, JsonValue]) -> Self:
        """Return this policy with the rules that a version sets."""
        return replace(self, version=version, **cast("dict[str, Any]", dict(rules)))  # checked when set

    def as_json(self) -> dict[str, JsonValue]:
        """Return the snapshot as it is stored."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, JsonValue]) -> Self:
        """Return the policy that was stored."""
        return cls(**cast("dict[str, str]", dict(document)))  # type: ignore[arg-type]  # written by as_json


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A finished stage's artifact and the SHA-256 of its canonical JSON."""

    stage: str
    artifact: dict[str, JsonValue]
    sha256: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Score:
    """One measured metric.

    Args:
        metric: name as in the method's table, such as `forget_quality`.
        value: the figure, or None with a `reason` when it cannot be measured.
        n: sample size.
        low: lower end of the 95 % interval, if there is one.
        high: its upper end.
        threshold: what the policy asks for, if anything.
        passed: whether the value meets the threshold; None without one.
        reason: why there is no value, or what the figure means.
        details: further figures; nothing personal.
    """

    metric: str
    value: float | None
    n: int
    low: float | None = None
    high: float | None = None
    threshold: float | None = None
    passed: bool | None = None
    reason: str | None = None
    details: Mapping[str, JsonValue] = field(default_factory=dict)
