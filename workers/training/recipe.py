"""What a training run is made of. Snapshotted with the request's policy; retries take a stronger one."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class Recipe:
    """Hyperparameters of one expert.

    ``learning_rate`` is for a hidden width of 256 and scales with 256 / width; ``kl_weight`` is lambda of
    METHOD.md section 4; training stops as soon as one whole pass meets ``stop_refusal`` (probability of the
    refusal per token, geometric mean) and ``stop_agreement`` (share of retain tokens whose greedy choice is
    the base model's), but never before ``min_passes``.
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

    def stronger(self) -> Recipe:
        """Return the recipe of a second attempt: longer, more retain pressure, stricter stop."""
        return replace(
            self,
            max_steps=self.max_steps * 2,
            retain_rows=self.retain_rows * 5 // 4,
            kl_weight=self.kl_weight * 3 / 2,
            min_passes=self.min_passes * 3 // 2,
            stop_refusal=0.9,
            stop_agreement=0.9985,
            seed=self.seed + 1,
        )

    def as_dict(self) -> dict[str, float | int]:
        """Return the recipe as JSON-ready values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any] | None) -> Recipe:
        """Read a snapshot; keys that this version does not know are left out, missing ones take defaults."""
        known = cls.__dataclass_fields__
        return cls(**{key: value for key, value in (values or {}).items() if key in known})


RECIPES: dict[str, Recipe] = {"default": Recipe(), "strong": Recipe().stronger()}
"""Recipes by the name that ``LETHE_RECIPE`` and the policy snapshot use."""
