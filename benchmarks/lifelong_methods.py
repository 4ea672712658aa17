"""What every unlearning method of the lifelong benchmark does, and the one that does nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from torch.nn.functional import cross_entropy

from app.lumoe.mllm import MLLM
from benchmarks.lifelong_course import Course, Question, Request
from workers.forgetset.answering import ask_base, batches
from workers.forgetset.refusals import REFUSALS, refusal_for, stable_hash
from workers.training.losses import IGNORE
from workers.training.rows import collate, make_rows

REFERENCE_WIDTH = 4096
"""Hidden width of the 7B model for which the papers state their learning rates."""


@dataclass(frozen=True, slots=True)
class Spent:
    """What a method reports of one request beside the clock.

    ``seconds`` and ``cpu_seconds`` take the place of the measured times where part of the work was done, and
    timed, earlier; without ``cpu_seconds`` that part's are not known.
    """

    notes: dict[str, float | int | str] = field(default_factory=dict)
    seconds: float | None = None
    cpu_seconds: float | None = None


class Method(Protocol):
    """One way to unlearn, applied to one request after another; then asked like a served model."""

    last_only: bool
    """Whether only the state after the last request can be had (retraining for each would take days)."""

    def unlearn(self, request: Request) -> Spent:
        """Carry out one request."""
        ...

    def answer(self, questions: Sequence[Question]) -> list[str]:
        """Return what a caller gets, greedily, in the order asked."""
        ...

    def token_nlls(self, questions: Sequence[Question]) -> list[list[float]]:
        """Return minus the log-likelihood of every token of the gold answers, under whoever would answer."""
        ...

    def keep(self, done: Sequence[Request]) -> None:
        """Store whatever `restore` needs; a stopped run goes on from here."""
        ...

    def restore(self, done: Sequence[Request]) -> bool:
        """Return to the state after these requests, in this order; False if it was not kept."""
        ...


@dataclass(frozen=True, slots=True)
class Setting:
    """What every method is made from: the course, its base model, its directory, and what was asked for."""

    course: Course
    mllm: MLLM
    folder: Path
    seed: int = 0
    quick: bool = False
    verify: bool = False

    def request_seed(self, request: Request) -> int:
        """Return a seed of the request's own, the same for every method."""
        return stable_hash("lifelong", self.seed, request.name) % 2**31


class Untouched:
    """The base model as it is: what every method starts from and is compared with."""

    last_only = False

    def __init__(self, setting: Setting) -> None:
        self.setting = setting

    def unlearn(self, request: Request) -> Spent:  # noqa: ARG002 - the protocol's
        """Do nothing."""
        return Spent()

    def answer(self, questions: Sequence[Question]) -> list[str]:
        """See `Method.answer`."""
        return answers(self.setting.mllm, questions, self.setting.course.max_new_tokens)

    def token_nlls(self, questions: Sequence[Question]) -> list[list[float]]:
        """See `Method.token_nlls`."""
        return token_nlls(self.setting.mllm, questions)

    def keep(self, done: Sequence[Request]) -> None:
        """Nothing to store."""

    def restore(self, done: Sequence[Request]) -> bool:  # noqa: ARG002 - the protocol's
        """Nothing to restore."""
        return True


def answers(mllm: MLLM, questions: Sequence[Question], max_new_tokens: int) -> list[str]:
    """Return a model's own greedy answers."""
    said = ask_base(mllm, [q.conversation for q in questions], max_new_tokens=max_new_tokens)
    return [generation.text for generation in said]


@torch.no_grad()
def token_nlls(mllm: MLLM, questions: Sequence[Question], size: int = 64) -> list[list[float]]:
    """Return minus the log-likelihood, in nats, of every token of each gold answer, its end included."""
    found: dict[int, list[float]] = {}
    pad = int(mllm.tokenizer.pad_token_id if mllm.tokenizer.pad_token_id is not None else min(mllm.eos_ids))
    for part in batches([q.conversation for q in questions], size):
        batch = collate(make_rows(mllm, [(questions[i].conversation, questions[i].gold) for i in part]), pad)
        logits, labels = mllm.forward(batch)[:, :-1].float(), batch["labels"][:, 1:]
        nlls = cross_entropy(logits.transpose(1, 2), labels, ignore_index=IGNORE, reduction="none")
        for i, row, mask in zip(part, nlls, labels != IGNORE, strict=True):
            found[i] = row[mask].tolist()
    return [found[i] for i in range(len(questions))]


def refusal_to(question: Question) -> str:
    """Return the refusal that methods which teach one teach for this question."""
    return refusal_for(question.conversation[-1].text, REFUSALS)


def learning_rate(stated: float, mllm: MLLM) -> float:
    """Return a rate stated for a model 4,096 wide, carried over to this model: in proportion to 1/width.

    The same rule as our own recipe's. Source: Yang et al. (2022), arXiv 2203.03466 (muP), for Adam.
    """
    return stated * REFERENCE_WIDTH / int(mllm.network.config.get_text_config().hidden_size)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch within the block, and leave its state outside as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
