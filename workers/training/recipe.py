"""What a training run is made of. Snapshotted with the request's policy; retries take a stronger one."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from typing import Any

_OF_ONE_REQUEST = {
    "trained_share",
    "max_steps",
    "min_passes",
    "kl_weight",
    "stop_refusal",
    "stop_agreement",
    "seed",
}
"""Fields that do not change the initial expert."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Hyperparameters of one expert.

    ``learning_rate`` is for a hidden width of 256 and scales with 256 / width; ``kl_weight`` is lambda of
    METHOD.md section 4; training stops as soon as one whole pass meets ``stop_refusal`` (probability of the
    refusal per token, geometric mean) and ``stop_agreement`` (share of retain tokens whose greedy choice is
    the base model's), but never before ``min_passes``.

    ``trained_share`` is how much of the decoder is trained, from the top, where training starts from an
    initial expert; the layers below keep the initial expert's weights.

    With ``practice_subjects`` training starts from an initial expert, practised on so many subjects in
    ``practice_rounds`` rounds of ``practice_steps`` steps each (`workers.training.initial`); those
    lessons have a weight of their own, ``practice_kl_weight``.
    """

    rank: int = 8
    alpha: int = 16
    learning_rate: float = 4e-3
    max_steps: int = 120
    forget_rows: int = 8
    retain_rows: int = 24
    kl_weight: float = 4.0
    min_passes: int = 5
    stop_refusal: float = 0.8
    stop_agreement: float = 0.9975
    warmup_steps: int = 6
    clip_norm: float = 1.0
    seed: int = 0
    trained_share: float = 1.0
    practice_subjects: int = 0
    practice_rounds: int = 3
    practice_steps: int = 11
    practice_share: float = 0.5
    practice_kl_weight: float = 4.0

    def stronger(self) -> Recipe:
        """Return the recipe of a second attempt: cold, longer, more retain pressure, stricter stop."""
        cold = self.cold()
        return replace(
            cold,
            max_steps=cold.max_steps * 2,
            retain_rows=cold.retain_rows * 5 // 4,
            kl_weight=cold.kl_weight * 3 / 2,
            min_passes=cold.min_passes * 3 // 2,
            stop_refusal=0.9,
            stop_agreement=0.9985,
            seed=self.seed + 1,
        )

    def cold(self) -> Recipe:
        """Return the recipe for a request that cannot start from an initial expert; itself if it does not."""
        return replace(Recipe(), rank=self.rank, alpha=self.alpha, seed=self.seed) if self.warm else self

    @property
    def warm(self) -> bool:
        """Whether training starts from an initial expert."""
        return self.practice_subjects > 0

    def lesson(self, seed: int) -> Recipe:
        """Return the recipe of one practice lesson: a fixed number of steps."""
        return replace(
            self,
            max_steps=self.practice_steps,
            min_passes=self.practice_steps + 1,
            kl_weight=self.practice_kl_weight,
            trained_share=1.0,
            seed=seed,
        )

    @property
    def practice(self) -> dict[str, float | int]:
        """The fields that the initial expert depends on."""
        return {key: value for key, value in self.as_dict().items() if key not in _OF_ONE_REQUEST}

    @property
    def initial_name(self) -> str:
        """A name for the initial expert that this recipe makes: the same for the same practice."""
        return hashlib.sha256(json.dumps(self.practice, sort_keys=True).encode()).hexdigest()[:12]

    def as_dict(self) -> dict[str, float | int]:
        """Return the recipe as JSON-ready values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any] | None) -> Recipe:
        """Read a snapshot; keys that this version does not know are left out, missing ones take defaults."""
        known = cls.__dataclass_fields__
        return cls(**{key: value for key, value in (values or {}).items() if key in known})


WARM = Recipe(
    learning_rate=4.5e-3,
    max_steps=88,
    kl_weight=8.0,
    min_passes=2,
    warmup_steps=2,
    trained_share=0.5,
    practice_subjects=27,
    practice_rounds=1,
    practice_steps=22,
)

RECIPES: dict[str, Recipe] = {"default": WARM, "cold": Recipe(), "strong": Recipe().stronger()}
"""Recipes by the name that ``LETHE_RECIPE`` and the policy snapshot use."""
