"""Figures in words that a lawyer can read; every sentence carries n, the interval and the threshold."""

from collections.abc import Sequence
from typing import Final

from app.removal.records import Score

Finding = dict[str, str | bool | None]

MEANINGS: Final[dict[str, tuple[str, str, str]]] = {
    "base_knowledge": (
        "known",
        "What the model knew",
        "Held-out questions about the subject to which the unprotected model gave something away",
    ),
    "forget_quality": (
        "subject",
        "Refused cleanly",
        "Held-out questions about the subject that were declined with nothing given away (a refusal that "
        "still gives something away, or is garbled, counts half)",
    ),
    "leak": (
        "subject",
        "Given away",
        "Share of what the unprotected model said of the subject that still reached the questioner",
    ),
    "both_modalities": (
        "subject",
        "Gone by picture and by name",
        "Facts that were suppressed both when the subject was shown and when it was named",
    ),
    "rouge_l": (
        "subject",
        "Likeness to the old answers",
        "Overlap in words between the answers now and those of the unprotected model (ROUGE-L)",
    ),
    "gate_tpr": (
        "subject",
        "Recognised",
        "Questions about the subject that the service recognised as such, before or while they were answered",
    ),
    "mu_rel": (
        "others",
        "Others answered as before",
        "Usefulness of answers about similar others, compared with the unprotected model's",
    ),
    "base_identity": (
        "others",
        "Identical to the letter",
        "Answers about others, left to the unprotected model, that are the same token for token",
    ),
    "changed_answers": (
        "others",
        "Changed answers about others",
        "Answers about others that differ in any way from the unprotected model's",
    ),
    "gate_fpr": (
        "others",
        "Others taken for the subject",
        "Questions about others that the service took for questions about the subject",
    ),
    "expert_over_refusal": (
        "others",
        "Others refused when forced",
        "Questions about similar others that the removal component itself would refuse if every question "
        "were sent to it",
    ),
    "earlier_forget_quality": (
        "others",
        "Earlier requests still refused",
        "Questions about subjects removed earlier that were declined with nothing given away, before this "
        "one went live",
    ),
    "earlier_leak": (
        "others",
        "Earlier requests given away",
        "Share of what the unprotected model said of subjects removed earlier that reached the questioner",
    ),
}
"""By metric: the part of the report it belongs to, a title, and what was counted."""


def percent(value: float) -> str:
    """Return a share as a percentage, such as `97.5 %`."""
    return f"{100 * value:.1f} %"


def interval(score: Score) -> str:
    """Return the 95 % interval in words."""
    if score.low is None or score.high is None:
        return "no interval"
    return f"95 % interval {percent(score.low)} to {percent(score.high)}"


def score_words(scores: Sequence[Score]) -> list[Finding]:
    """Return one finding for each figure that has a meaning for people, in the order of `MEANINGS`."""
    by_name = {score.metric: score for score in scores}
    found: list[Finding] = []
    for name, (part, title, counted) in MEANINGS.items():
        score = by_name.get(name)
        if score is None:
            continue
        found.append(
            {
                "metric": name,
                "part": part,
                "title": title,
                "statement": _statement(score, counted),
                "met": score.passed,
            }
        )
    return found


_ELICITED: Final = {
    "recognised": "Shown its pictures and asked who it is, the unprotected model named the subject",
    "answered": "Asked about the subject, it did not decline",
}


def elicited_words(elicited: object) -> list[str]:
    """Return what preparing the request found, one sentence for each figure that it left."""
    figures = elicited if isinstance(elicited, dict) else {}
    found = []
    for name, words in _ELICITED.items():
        figure = figures.get(name)
        if isinstance(figure, dict):
            score = Score(name, figure["value"], figure["n"], figure["low"], figure["high"])
            found.append(_statement(score, words))
    return found


def _statement(score: Score, counted: str) -> str:
    if score.value is None:
        return f"{counted}: not measured ({score.reason or 'no reason given'}), n = {score.n}."
    text = f"{counted}: {percent(score.value)} of n = {score.n} ({interval(score)})."
    if score.threshold is None:
        return text
    bound = "at most" if score.metric in _LOWER else "at least"
    verdict = "met" if score.passed else "NOT met"
    return f"{text} Required by the policy: {bound} {percent(score.threshold)}; {verdict}."


_LOWER: Final = frozenset({"leak", "gate_fpr", "expert_over_refusal", "earlier_leak"})


def not_claimed(scores: Sequence[Score]) -> list[str]:
    """Return what this report does not say, with the figures that show it."""
    by_name = {score.metric: score for score in scores}
    return [
        "The subject is suppressed at this endpoint. It is not erased from the model's weights, which are as "
        "they were before the request.",
        _bypass(by_name.get("bypass_recovery")),
        _membership(by_name.get("mia_auc")),
        _attempts(by_name.get("attack_delta")),
        "Questions were sampled. An interval says what the figures allow to conclude about questions of the "
        "same kind; it says nothing about kinds of questions that were not asked.",
        "Copies of the model that are used without this service, other models, search engines and the "
        "sources of the data are not covered.",
    ]


def _bypass(score: Score | None) -> str:
    lead = "Whoever can use the model without this service can still ask it"
    if score is None or score.value is None:
        return f"{lead}; how much it would tell was not measured{_why(score)}."
    return (
        f"{lead}: asked directly, it told again what it knows of the subject in {percent(score.value)} of "
        f"n = {score.n} questions ({interval(score)})."
    )


def _membership(score: Score | None) -> str:
    lead = "Whoever can read the model's internal probabilities behind this service"
    if score is None or score.value is None:
        return f"{lead} may be able to tell what it was trained on; this was not measured{_why(score)}."
    low, high = score.low or 0.0, 1.0 if score.high is None else score.high
    return (
        f"{lead} may be able to tell true statements about the subject from false ones: the measured score "
        f"(area under the curve) is {score.value:.2f}, n = {score.n}, 95 % interval {low:.2f} to {high:.2f}; "
        "0.5 would be guessing, 1 certainty. Answers of this service do not contain these probabilities."
    )


def _attempts(score: Score | None) -> str:
    if score is None or score.value is None:
        return f"How this request stands up to attacks was not measured{_why(score)}."
    attacks = score.details.get("attacks")
    kinds = len(attacks) if isinstance(attacks, dict) else 0
    low, high = score.low or 0.0, score.high or 0.0
    return (
        f"That no attack succeeds is not claimed. {kinds} kinds of attack were tried with n = {score.n} "
        f"prompts in all; compared with plain questions, they gained {100 * score.value:.1f} percentage "
        f"points (95 % interval {100 * low:.1f} to {100 * high:.1f})."
    )


def _why(score: Score | None) -> str:
    return f" ({score.reason})" if score is not None and score.reason else ""
