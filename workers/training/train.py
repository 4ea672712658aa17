"""Train one expert: selective forgetting by a low-rank adapter, the base model left bit-identical."""

from __future__ import annotations

import logging
import random
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn

from app.lumoe.mllm import MLLM
from app.lumoe.types import Conversation
from workers.forgetset.answering import CancelledError
from workers.training.linear import lean_products
from workers.training.losses import (
    IGNORE,
    BaseDistribution,
    base_distribution,
    expert_loss,
    kl_to_base,
    refusal_loss,
)
from workers.training.recipe import Recipe
from workers.training.rows import Row, answer_logits, by_length, make_rows, paired_passes, pass_length
from workers.training.upper import upper_layers

log = logging.getLogger(__name__)

ADAPTER = "default"
REFERENCE_WIDTH = 256


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a training run stands: steps done of at most ``of``, and the last pass's figures."""

    step: int
    of: int
    refusal: float
    agreement: float


@dataclass(frozen=True, slots=True)
class Trained:
    """A finished expert: PEFT's files in ``directory``, and how training ended."""

    directory: Path
    steps: int
    seconds: float
    refusal: float
    agreement: float
    stopped_early: bool


def train_expert(
    mllm: MLLM,
    forget: Sequence[tuple[Conversation, str]],
    retain: Sequence[tuple[Conversation, str]],
    recipe: Recipe,
    directory: Path,
    *,
    initial: Mapping[str, Tensor] | None = None,
    cancelled: Callable[[], bool] = lambda: False,
    progress: Callable[[Progress], None] = lambda _: None,
) -> Trained:
    """Train an adapter on ``mllm`` and write it to ``directory`` as PEFT does; the model is left as it was.

    ``forget`` pairs answer with refusals, ``retain`` pairs with the base model's own greedy answers. The loss
    is CE(refusal) + kl_weight * KL(base || expert) over the answer's tokens (METHOD.md section 4); the base
    distribution is computed once, while the adapter does nothing. ``initial`` are the weights to start from,
    by parameter name (`read_weights`), of which those of the upper layers are trained further
    (``recipe.trained_share``); by default PEFT's own start, at which the expert is the base model.

    Raises:
        CancelledError: ``cancelled`` said so between two steps; nothing is written.
        ValueError: There is nothing to forget, or ``initial`` is an adapter of another shape.
    """
    if not forget:
        raise ValueError("an expert needs at least one forget prompt")
    started = time.monotonic()
    forget_rows, retain_rows = make_rows(mllm, forget), make_rows(mllm, retain)
    with training_adapter(mllm, recipe) as model:
        base = base_distributions(mllm, retain_rows, model)  # B is zero yet
        if initial is not None:
            put_weights(model, initial)
        share = 1.0 if initial is None else recipe.trained_share
        with upper_layers(mllm, model, share, forget_rows, retain_rows) as (forget_rows, retain_rows):
            run = Run(mllm, model, forget_rows, retain_rows, base, recipe)
            run.train(cancelled, progress)
        _save(model, mllm, directory)
    seconds = time.monotonic() - started
    log.info("expert trained: %d steps in %.1f s", run.steps, seconds)
    return Trained(directory, run.steps, seconds, run.refusal, run.agreement, run.stopped_early)


class Run:
    """One run's state: batches, optimiser and the figures of the pass it is in."""

    def __init__(
        self,
        mllm: MLLM,
        model: PeftModel,
        forget: list[Row],
        retain: list[Row],
        base: list[BaseDistribution],
        recipe: Recipe,
    ) -> None:
        self.mllm, self.model, self.recipe = mllm, model, recipe
        self.forget, self.retain, self.base = forget, retain, base
        rng = random.Random(recipe.seed)  # noqa: S311 - batch order, not secrecy
        sizes = (recipe.forget_rows, recipe.retain_rows)
        self._batches = paired_passes(forget, retain, sizes, rng)
        self._pass_length = pass_length(forget, retain, sizes)
        width = int(mllm.network.config.get_text_config().hidden_size)
        self._rate = recipe.learning_rate * REFERENCE_WIDTH / width
        self._weights = [p for p in model.parameters() if p.requires_grad]
        self._optimizer = torch.optim.AdamW(self._weights, lr=self._rate, betas=(0.9, 0.98), weight_decay=0.0)
        self.steps, self.refusal, self.agreement = 0, 0.0, 0.0
        self.stopped_early = False

    def train(self, cancelled: Callable[[], bool], progress: Callable[[Progress], None]) -> None:
        """Step until a whole pass meets the recipe's stop figures, or the steps are used up."""
        recipe = self.recipe
        nll, agreed = _Mean(), _Mean()
        for step in range(1, recipe.max_steps + 1):
            if cancelled():
                raise CancelledError
            self._set_rate(step)
            self._optimizer.zero_grad(set_to_none=True)
            refused, kept = self._backward()
            nll.add(*refused)
            agreed.add(*kept)
            nn.utils.clip_grad_norm_(self._weights, recipe.clip_norm)
            self._optimizer.step()
            self.steps = step
            if step % self._pass_length == 0:
                self.refusal = float(torch.tensor(-nll.value()).exp())
                self.agreement = agreed.value(empty=1.0)
                nll, agreed = _Mean(), _Mean()
                if step >= recipe.min_passes * self._pass_length and self._good_enough():
                    self.stopped_early = True
                    break
            progress(Progress(step, recipe.max_steps, self.refusal, self.agreement))

    def _good_enough(self) -> bool:
        return self.refusal >= self.recipe.stop_refusal and self.agreement >= self.recipe.stop_agreement

    def _set_rate(self, step: int) -> None:
        """Linear warm-up, then linear decay to a tenth at ``max_steps``."""
        warm = min(1.0, step / max(1, self.recipe.warmup_steps))
        decay = 1.0 - 0.9 * step / self.recipe.max_steps
        for group in self._optimizer.param_groups:
            group["lr"] = self._rate * warm * decay

    def _backward(self) -> tuple[tuple[float, int], tuple[float, int]]:
        """Backpropagate CE(refusal) + kl_weight * KL(base || expert) of one batch, both parts in one pass.

        Returns (summed negative log-likelihood of the refusals, tokens) and (retain tokens on which expert
        and base model choose the same, tokens).
        """
        refused, chosen = next(self._batches)
        forget = [self.forget[i] for i in refused]
        rows = forget + [self.retain[i] for i in chosen]
        logits, targets = answer_logits(self.mllm, rows, self.model)
        n = sum(int((row.labels != IGNORE).sum()) for row in forget)
        refusal = refusal_loss(logits[:n], targets[:n])
        nll = (float(refusal.detach()) * n, n)
        if not chosen:
            torch.autograd.backward(refusal)
            return nll, (0.0, 0)
        base = _joined([self.base[i] for i in chosen])
        kl = kl_to_base(logits[n:], base).mean()
        torch.autograd.backward(expert_loss(refusal, kl, self.recipe.kl_weight))
        agreed = float((logits[n:].detach().argmax(-1) == base.greedy()).sum())
        return nll, (agreed, len(targets) - n)


class _Mean:
    """A running mean over tokens."""

    def __init__(self) -> None:
        self._total, self._n = 0.0, 0

    def add(self, total: float, n: int) -> None:
        self._total += total
        self._n += n

    def value(self, empty: float = 0.0) -> float:
        return self._total / self._n if self._n else empty


@torch.no_grad()
def base_distributions(
    mllm: MLLM, rows: Sequence[Row], model: nn.Module | None = None
) -> list[BaseDistribution]:
    """Return the base model's distribution at every row's answer tokens.

    ``model`` is the adapted model while its adapter does nothing: the target is computed in the arithmetic of
    the training itself, so that the expert does not learn to make up for rounding.
    """
    found: dict[int, BaseDistribution] = {}
    for part in by_length(rows):
        whole = base_distribution(answer_logits(mllm, [rows[i] for i in part], model)[0])
        sizes = [int((rows[i].labels != IGNORE).sum()) for i in part]
        for i, piece in zip(part, _pieces(whole, sizes), strict=True):
            found[i] = piece
    return [found[i] for i in range(len(rows))]


def _pieces(whole: BaseDistribution, sizes: Sequence[int]) -> Iterator[BaseDistribution]:
    at = 0
    for size in sizes:
        part = slice(at, at + size)
        yield BaseDistribution(
            whole.log_probs[part],
            None if whole.tokens is None else whole.tokens[part],
            None if whole.rest is None else whole.rest[part],
        )
        at += size


def _joined(parts: Sequence[BaseDistribution]) -> BaseDistribution:
    tokens = [part.tokens for part in parts if part.tokens is not None]
    rest = [part.rest for part in parts if part.rest is not None]
    return BaseDistribution(
        torch.cat([part.log_probs for part in parts]),
        torch.cat(tokens) if tokens else None,
        torch.cat(rest) if rest else None,
    )


@contextmanager
def training_adapter(mllm: MLLM, recipe: Recipe) -> Iterator[PeftModel]:
    """Within the block the model carries a fresh adapter, and every trace of it is taken out again."""
    with torch.enable_grad(), adapter(mllm, recipe) as model, lean_products(model, ADAPTER):
        yield model


def _trainable(model: PeftModel) -> dict[str, nn.Parameter]:
    """Return the adapter's parameters by name, without the adapter's own."""
    return {n.replace(f".{ADAPTER}.", "."): p for n, p in model.named_parameters() if p.requires_grad}


def read_weights(model: PeftModel) -> dict[str, Tensor]:
    """Return copies of the adapter's weights by name: A (r, in) and B (out, r) of every layer."""
    return {name: p.detach().clone() for name, p in _trainable(model).items()}


@torch.no_grad()
def put_weights(model: PeftModel, weights: Mapping[str, Tensor]) -> None:
    """Set the adapter's weights, as `read_weights` returns them.

    Raises:
        ValueError: They are those of an adapter of another shape, or of another model.
    """
    own = _trainable(model)
    if {n: p.shape for n, p in own.items()} != {n: w.shape for n, w in weights.items()}:
        raise ValueError("the initial expert is of another rank or another model; delete it, or start cold")
    for name, p in own.items():
        p.copy_(weights[name])


@contextmanager
def adapter(mllm: MLLM, recipe: Recipe) -> Iterator[PeftModel]:
    """Put a fresh LoRA adapter into the model's language part, and take every trace of it out again."""
    config = LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        target_modules=mllm.lora_targets,
        lora_dropout=0.0,
        bias="none",
    )
    network = mllm.network
    frozen = {name: p.requires_grad for name, p in network.named_parameters()}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = get_peft_model(network, config, adapter_name=ADAPTER)
    try:
        model.eval()  # no dropout anywhere: the base distribution is that of serving
        yield model
    finally:
        model.unload()
        for name, p in network.named_parameters():
            p.requires_grad_(frozen[name])
            p.grad = None
        network.eval()


def _save(model: PeftModel, mllm: MLLM, directory: Path) -> None:
    """Write ``adapter_model.safetensors`` and ``adapter_config.json``, in place of an older attempt's."""
    if directory.exists():
        shutil.rmtree(directory)
    directory.mkdir(parents=True)
    model.peft_config[ADAPTER].base_model_name_or_path = mllm.source
    model.save_pretrained(str(directory), selected_adapters=[ADAPTER], safe_serialization=True)
