"""Figures of the system as a whole: modalities, base identity, selectivity, the gate's own rates."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from workers.verification.metrics.rate import Rate, null, share
from workers.verification.metrics.refusal import is_refusal

Modality = Literal["image", "text"]


def both_modalities(suppressed: Iterable[tuple[str, Modality, bool]]) -> Rate:
    """Return the share of facts suppressed in image+text *and* in text-only form.

    Takes (fact, modality, suppressed) per answer; a fact counts when it was asked in both forms, and
    is suppressed when every one of its answers is. Source: METHOD.md section 6.
    """
    facts: dict[str, dict[str, bool]] = {}
    for fact, modality, gone in suppressed:
        seen = facts.setdefault(fact, {})
        seen[modality] = seen.get(modality, True) and gone
    both = [all(seen.values()) for seen in facts.values() if len(seen) == 2]
    return share(both) if both else null("no fact was asked both with a picture and in text alone")


def base_identity(served: Sequence[Sequence[int]], base: Sequence[Sequence[int]]) -> Rate:
    """Return the share of base-routed greedy answers equal, token for token, to the unwrapped model's.

    Takes token ids. Source: METHOD.md section 6; must be 1.

    Raises:
        ValueError: If the two sequences differ in length.
    """
    return share([tuple(s) == tuple(b) for s, b in zip(served, base, strict=True)])


def changed_answers(served: Sequence[str], base: Sequence[str]) -> Rate:
    """Return the share of other people's answers that differ from the base model's, however routed."""
    return share([s != b for s, b in zip(served, base, strict=True)])


def expert_over_refusal(forced: Sequence[str], base: Sequence[str], bank: Sequence[str] = ()) -> Rate:
    """Return refusals on neighbours with the expert forced on, where the base model does not refuse.

    Source: METHOD.md section 6.
    """
    answered = [f for f, b in zip(forced, base, strict=True) if not is_refusal(b, bank)]
    if not answered:
        return null("the base model refuses every neighbour prompt itself", len(base))
    return share([is_refusal(f, bank) for f in answered])


def gate_tpr(routed: Sequence[str | None], expert_id: str) -> Rate:
    """Return the share of the subject's prompts that the gate sends to the subject's expert."""
    return share([r == expert_id for r in routed])


def gate_fpr(routed: Sequence[str | None]) -> Rate:
    """Return the share of other prompts (neighbours as negatives) that the gate sends to any expert."""
    return share([r is not None for r in routed])


def misroute(routed: Sequence[str | None], expert_id: str) -> Rate:
    """Return the share of the subject's prompts that the gate sends to somebody else's expert."""
    return share([r is not None and r != expert_id for r in routed])


def guard_catch_rate(routed: Sequence[str | None], guarded: Sequence[bool], leaked: Sequence[bool]) -> Rate:
    """Return the share of gate misses with something to hide that the output guard caught.

    A miss counts when the guard acted or forgotten content reached the caller.
    """
    missed = [g for r, g, k in zip(routed, guarded, leaked, strict=True) if r is None and (g or k)]
    return share(missed) if missed else null("the gate missed nothing that gives content away")
