"""Metrics: small pure functions, and one registry that says what each means and what it must reach."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from workers.verification.metrics.attack import attack_delta, bypass_recovery, forget_accuracy, told
from workers.verification.metrics.gibberish import is_gibberish
from workers.verification.metrics.leak import leak, mean_leak
from workers.verification.metrics.likelihood import (
    mean_prob,
    option_acc,
    option_chance,
    prob,
    retrained_agreement,
    truth_ratio,
    truth_utility,
)
from workers.verification.metrics.mia import auc_interval, loss_score, mia_auc, min_k_score, zlib_score
from workers.verification.metrics.quality import (
    degradation,
    degradations,
    forget_points,
    forget_quality,
    is_correct,
    model_utility,
    mu_rel,
    utility_points,
)
from workers.verification.metrics.rate import (
    Rate,
    bounded_mean,
    clopper_pearson,
    difference,
    null,
    rate,
    share,
)
from workers.verification.metrics.refusal import is_refusal
from workers.verification.metrics.similarity import rouge_l
from workers.verification.metrics.system import (
    base_identity,
    both_modalities,
    changed_answers,
    expert_over_refusal,
    gate_fpr,
    gate_tpr,
    guard_catch_rate,
    misroute,
)
from workers.verification.metrics.text import contains, keywords, norm, words


@dataclass(frozen=True, slots=True)
class Metric:
    """What a figure means, its better direction, and the policy field that bounds it (or None)."""

    name: str
    better: Literal["higher", "lower"]
    policy_field: str | None
    meaning: str

    def passes(self, value: float, threshold: float) -> bool:
        """Say whether a value meets a threshold, which is inclusive on either side."""
        return value >= threshold - 1e-12 if self.better == "higher" else value <= threshold + 1e-12


REGISTRY: dict[str, Metric] = {
    m.name: m
    for m in (
        Metric("forget_quality", "higher", "min_forget_quality", "the subject's prompts refused cleanly"),
        Metric("leak", "lower", "max_leak", "what the base model knew that reached the caller"),
        Metric(
            "mu_rel", "higher", "min_neighbour_utility", "neighbours' answers kept, against the base model"
        ),
        Metric("base_identity", "higher", "min_base_identity", "base-routed answers equal token for token"),
        Metric(
            "gate_tpr",
            "higher",
            "min_gate_tpr",
            "the subject's prompts that gate or guard bring to its expert",
        ),
        Metric("gate_fpr", "lower", "max_gate_fpr", "other prompts routed to an expert"),
        Metric("changed_answers", "lower", None, "other people's answers that differ from the base model's"),
        Metric("model_utility", "higher", None, "retain prompts answered as the base model answers them"),
        Metric("both_modalities", "higher", None, "facts gone with a picture and in text alone"),
        Metric("expert_over_refusal", "lower", None, "neighbours refused with the expert forced on"),
        Metric("forced_mu_rel", "higher", None, "neighbours' answers kept with the expert forced on"),
        Metric("misroute", "lower", None, "the subject's prompts routed to another expert"),
        Metric(
            "gate_alone_tpr", "higher", None, "the subject's prompts that the gate alone sends to its expert"
        ),
        Metric("guard_catch_rate", "higher", None, "gate misses that the output guard caught"),
        Metric("earlier_leak", "lower", "max_leak", "earlier subjects' content, asked again"),
        Metric("earlier_forget_quality", "higher", "min_forget_quality", "earlier subjects, asked again"),
        Metric(
            "bypass_recovery", "lower", None, "what the base model's weights still give away, asked directly"
        ),
        Metric(
            "attack_delta", "lower", None, "what the best of the attacks tried gains over plain questions"
        ),
        Metric(
            "mia_auc",
            "lower",
            None,
            "how well likelihoods tell the subject's data from others'; .5 is chance",
        ),
        Metric("rouge_l", "lower", None, "likeness of answers about the subject to the base model's"),
        Metric("degradation", "lower", None, "largest movement of an earlier request's forget quality"),
    )
}

__all__ = [
    "REGISTRY",
    "Metric",
    "Rate",
    "attack_delta",
    "auc_interval",
    "base_identity",
    "both_modalities",
    "bounded_mean",
    "bypass_recovery",
    "changed_answers",
    "clopper_pearson",
    "contains",
    "degradation",
    "degradations",
    "difference",
    "expert_over_refusal",
    "forget_accuracy",
    "forget_points",
    "forget_quality",
    "gate_fpr",
    "gate_tpr",
    "guard_catch_rate",
    "is_correct",
    "is_gibberish",
    "is_refusal",
    "keywords",
    "leak",
    "loss_score",
    "mean_leak",
    "mean_prob",
    "mia_auc",
    "min_k_score",
    "misroute",
    "model_utility",
    "mu_rel",
    "norm",
    "null",
    "option_acc",
    "option_chance",
    "prob",
    "rate",
    "retrained_agreement",
    "rouge_l",
    "share",
    "told",
    "truth_ratio",
    "truth_utility",
    "utility_points",
    "words",
    "zlib_score",
]
