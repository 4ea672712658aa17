"""Weight editing: a loss of `LOSSES` applied to one model's language part, request after request."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from app.lumoe.errors import UnsupportedModelError
from benchmarks.lifelong_course import Question, Request
from benchmarks.lifelong_losses import LOSSES, Likelihood, Loss, Part, Terms, sequence_log_p
from benchmarks.lifelong_methods import Setting, Spent, answers, learning_rate, refusal_to, seeded, token_nlls
from workers.training.losses import (
    BaseDistribution,
    answer_positions,
    base_distribution,
    kl_to_base,
)
from workers.training.rows import Row, collate, make_rows, passes

_CHUNK = 64


@dataclass(frozen=True, slots=True)
class EditingRecipe:
    """How weights are edited: AdamW with TOFU's settings (arXiv 2401.06121, appendix).

    Rate 1e-5 for 7B, 5 epochs over the forget set, the first of them warm-up, then linear decay, weight decay
    .01, gradients clipped at 1.
    """

    rate: float = 1e-5
    epochs: int = 5
    batch: int = 16
    weight_decay: float = 0.01
    clip_norm: float = 1.0


RECIPE: Final = EditingRecipe()


@dataclass(slots=True)
class _Rows:
    """A part of the data: rows, and what the reference model says of them, where a loss needs it."""

    rows: list[Row]
    log_ref: Tensor | None = None
    base: list[BaseDistribution] | None = None


class WeightEditing:
    """Full fine-tuning of the language model with one loss.

    Tower and projector stay, so that pictures are encoded once. The reference of a request is the model as it
    was when the request came.
    """

    last_only = False

    def __init__(self, setting: Setting, loss: str, recipe: EditingRecipe | None = None) -> None:
        self.setting, self.recipe = setting, recipe or RECIPE
        self.loss: Loss = LOSSES[loss]
        self.mllm = setting.mllm
        self.folder = setting.folder / loss
        self._gone: set[str] = set()  # nobody who was forgotten is taught again
        network = self.mllm.network
        part = language_part(network)
        self._weights: dict[str, nn.Parameter] = dict(part.named_parameters())
        head = network.get_output_embeddings()
        if head is not None and all(p is not head.weight for p in self._weights.values()):
            self._weights["lm_head.weight"] = head.weight

    def unlearn(self, request: Request) -> Spent:
        """Edit the weights: `epochs` passes over the forget set."""
        forget, retain = self.setting.course.lessons(request)
        retain = [q for q in retain if q.entity not in self._gone]
        self._gone |= set(request.keys)
        with seeded(self.setting.request_seed(request)), torch.enable_grad():
            steps, last = self._train(self._data(forget, retain), self.setting.request_seed(request))
        return Spent({"steps": steps, "loss": last})

    def _data(self, forget: Sequence[Question], retain: Sequence[Question]) -> dict[Part, _Rows]:
        found: dict[Part, _Rows] = {}
        for part in self.loss.parts:
            questions = retain if part == "retain" else forget
            say = refusal_to if part == "refusal" else _gold
            found[part] = _Rows(make_rows(self.mllm, [(q.conversation, say(q)) for q in questions]))
            if self.loss.reference and part != "retain":
                found[part].log_ref = self._reference(found[part].rows)
            if self.loss.kl and part == "retain":
                found[part].base = self._distributions(found[part].rows)
        return found

    def _train(self, data: dict[Part, _Rows], seed: int) -> tuple[int, float]:
        recipe, first = self.recipe, self.loss.parts[0]
        per_epoch = -(-len(data[first].rows) // recipe.batch)
        total = per_epoch * recipe.epochs
        # forget and refusal rows answer the same questions and are drawn together, in the same batches
        draws = {
            part: passes(rows.rows, recipe.batch, random.Random(f"{seed} {part == 'retain'}"))  # noqa: S311
            for part, rows in data.items()
        }
        weights = list(self._weights.values())
        rate = learning_rate(recipe.rate, self.mllm)
        optimizer = torch.optim.AdamW(weights, lr=rate, weight_decay=recipe.weight_decay)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: _warm_then_linear(step, per_epoch, total)
        )
        for weight in weights:
            weight.requires_grad_(True)
        last = 0.0
        try:
            for _ in range(total):
                chosen = {part: next(draw) for part, draw in draws.items()}
                if "refusal" in chosen and "forget" in chosen:
                    chosen["refusal"] = chosen["forget"]
                loss = self.loss.function(self._terms(data, chosen))
                optimizer.zero_grad(set_to_none=True)
                torch.autograd.backward(loss)
                nn.utils.clip_grad_norm_(weights, recipe.clip_norm)
                optimizer.step()
                schedule.step()
                last = float(loss.detach())
        finally:
            for weight in weights:
                weight.requires_grad_(False)
                weight.grad = None
        return total, last

    def _terms(self, data: dict[Part, _Rows], chosen: dict[Part, list[int]]) -> Terms:
        """Run the rows of one batch, all parts in one pass."""
        rows = [data[part].rows[i] for part, index in chosen.items() for i in index]
        logits, targets, owner = self._logits(rows)
        whole = sequence_log_p(logits, targets, owner, len(rows))
        parts: dict[Part, Likelihood] = {}
        kl: Tensor | None = None
        at = 0
        for part, index in chosen.items():
            here = slice(at, at + len(index))
            ref = data[part].log_ref
            parts[part] = Likelihood(
                whole.log_p[here], whole.tokens[here], None if ref is None else ref[index]
            )
            base = data[part].base
            if base is not None:
                mine = (owner >= at) & (owner < at + len(index))
                kl = kl_to_base(logits[mine], joined([base[i] for i in index])).mean()
            at += len(index)
        return Terms(parts.get("forget"), parts.get("refusal"), parts.get("retain"), kl)

    def _logits(self, rows: Sequence[Row]) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits (answer tokens, vocabulary), targets and owning row (answer tokens,)."""
        pad = self.mllm.tokenizer.pad_token_id
        batch = collate(rows, int(pad if pad is not None else min(self.mllm.eos_ids)))
        owner, positions = answer_positions(batch["labels"])
        logits = self.mllm.forward(batch)
        return logits[owner, positions], batch["labels"][owner, positions + 1], owner

    @torch.no_grad()
    def _reference(self, rows: Sequence[Row]) -> Tensor:
        parts = [rows[k : k + _CHUNK] for k in range(0, len(rows), _CHUNK)]
        return torch.cat([sequence_log_p(*self._logits(part), len(part)).log_p for part in parts])

    @torch.no_grad()
    def _distributions(self, rows: Sequence[Row]) -> list[BaseDistribution]:
        found = []
        for k in range(0, len(rows), _CHUNK):
            part = rows[k : k + _CHUNK]
            logits, _, owner = self._logits(part)
            whole = base_distribution(logits)
            found += [_rows_of(whole, owner == i) for i in range(len(part))]
        return found

    def answer(self, questions: Sequence[Question]) -> list[str]:
        """See `Method.answer`: the edited model itself."""
        return answers(self.mllm, questions, self.setting.course.max_new_tokens)

    def token_nlls(self, questions: Sequence[Question]) -> list[list[float]]:
        """See `Method.token_nlls`."""
        return token_nlls(self.mllm, questions)

    def keep(self, done: Sequence[Request]) -> None:
        """Write the edited weights; those before this request stay, in case its cell is never finished."""
        self.folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: p.detach().contiguous() for name, p in self._weights.items()}
        work = self.folder / ".state"
        save_file(tensors, work, metadata={"done": json.dumps([r.name for r in done])})
        work.rename(self._state(len(done)))
        for k in range(len(done) - 1):
            self._state(k).unlink(missing_ok=True)

    def _state(self, k: int) -> Path:
        return self.folder / f"state-{k}.safetensors"

    def restore(self, done: Sequence[Request]) -> bool:
        """Load the weights if there are those after exactly these requests."""
        path = self._state(len(done))
        if not done or not path.is_file() or kept_after(path) != [r.name for r in done]:
            return False
        with torch.no_grad():
            for name, tensor in load_file(path).items():
                self._weights[name].copy_(tensor)
        self._gone = {key for request in done for key in request.keys}
        return True


def language_part(network: PreTrainedModel) -> nn.Module:
    """Return the language model within a multimodal one.

    Raises:
        UnsupportedModelError: There is none that Lethe knows how to find.
    """
    for name in ("language_model", "text_model"):
        part = getattr(network.base_model, name, None)
        if isinstance(part, nn.Module):
            return part
    raise UnsupportedModelError("the model has no language model that Lethe knows how to find")


def kept_after(path: Path) -> list[str]:
    """Return the names of the requests after which a state was written."""
    with safe_open(str(path), "pt") as file:
        names: list[str] = json.loads((file.metadata() or {}).get("done", "[]"))
    return names


def joined(parts: Sequence[BaseDistribution]) -> BaseDistribution:
    """Concatenate distributions along the answer tokens."""
    tokens = [part.tokens for part in parts if part.tokens is not None]
    rest = [part.rest for part in parts if part.rest is not None]
    return BaseDistribution(
        torch.cat([part.log_probs for part in parts]),
        torch.cat(tokens) if tokens else None,
        torch.cat(rest) if rest else None,
    )


def _rows_of(whole: BaseDistribution, mask: Tensor) -> BaseDistribution:
    return BaseDistribution(
        whole.log_probs[mask],
        None if whole.tokens is None else whole.tokens[mask],
        None if whole.rest is None else whole.rest[mask],
    )


def _gold(question: Question) -> str:
    return question.gold


def _warm_then_linear(step: int, warmup: int, total: int) -> float:
    """Rise linearly over the first epoch, then fall linearly to zero at the end."""
    if step < warmup:
        return (step + 1) / warmup
    return max(0.0, (total - step) / max(1, total - warmup))
