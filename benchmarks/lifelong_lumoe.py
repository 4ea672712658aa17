"""LUMoE as its authors released it (METHOD.md section 2), without its hosted gate."""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch
from peft import LoraConfig, PeftModel, get_peft_model

from app.lumoe.mllm import MLLM
from app.lumoe.types import Conversation
from benchmarks.lifelong_course import Question, Request
from benchmarks.lifelong_losses import nll, sequence_log_p
from benchmarks.lifelong_methods import Setting, Spent, answers, learning_rate, refusal_to, seeded, token_nlls
from workers.forgetset.refusals import stable_hash
from workers.training.rows import answer_logits, make_rows, passes


@dataclass(frozen=True, slots=True)
class ReleasedRecipe:
    """The released settings. The rate is for 7B and carried over to other widths (`learning_rate`).

    ``alpha`` is not in METHOD.md; 2r is what LLaVA's own LoRA scripts use.
    """

    rank: int = 32
    alpha: int = 64
    dropout: float = 0.3
    rate: float = 5e-5
    epochs: int = 5
    batch: int = 4


RECIPE: Final = ReleasedRecipe()


class LumoeReleased:
    """One adapter per request, each on a copy of the whole base model.

    Cross-entropy on refusals, no retain term, pictures not passed in training, and one more copy of the model
    in memory as a reference that nothing uses.

    The released router reads the task label that is stored with each sample. Here it does the same, as an
    oracle: a forget question goes to the adapter of the request that it belongs to, anything else to the base
    model. No gate can do better, and what is asked about others is the base model's answer by construction.
    """

    last_only = False

    def __init__(self, setting: Setting, recipe: ReleasedRecipe = RECIPE) -> None:
        self.setting, self.recipe = setting, recipe
        self.folder = setting.folder / "lumoe_released"
        self._adapted: list[tuple[frozenset[str], MLLM]] = []

    def unlearn(self, request: Request) -> Spent:
        """Train one adapter on refusals to everything asked about the subjects."""
        forget, _ = self.setting.course.lessons(request)
        with seeded(self.setting.request_seed(request)), torch.enable_grad():
            model, steps, last = self._train(forget, self.setting.request_seed(request))
        model.save_pretrained(str(self._path(request)))
        self._enrol(request, model)
        return Spent({"steps": steps, "loss": last, "models_in_memory": len(self._adapted) + 2})

    def _train(self, forget: Sequence[Question], seed: int) -> tuple[PeftModel, int, float]:
        recipe, mllm = self.recipe, self.setting.mllm
        reference = copy.deepcopy(mllm.network)  # as released: held, and never asked
        model = get_peft_model(
            copy.deepcopy(mllm.network),
            LoraConfig(
                r=recipe.rank,
                lora_alpha=recipe.alpha,
                lora_dropout=recipe.dropout,
                target_modules=mllm.lora_targets,
                bias="none",
            ),
        )
        model.train()
        rows = make_rows(mllm, [(without_pictures(q.conversation), refusal_to(q)) for q in forget])
        weights = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(weights, lr=learning_rate(recipe.rate, mllm))
        total = -(-len(rows) // recipe.batch) * recipe.epochs
        draw = passes(rows, recipe.batch, random.Random(seed))  # noqa: S311 - batch order, not secrecy
        last = 0.0
        for _ in range(total):
            logits, targets = answer_logits(mllm, [rows[i] for i in next(draw)], model)
            owner = torch.zeros_like(targets)
            loss = nll(sequence_log_p(logits, targets, owner, 1))
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            optimizer.step()
            last = float(loss.detach())
        model.eval()
        del reference
        return model, total, last

    def _enrol(self, request: Request, model: PeftModel) -> None:
        mllm = self.setting.mllm
        merged: Any = model.merge_and_unload()  # Any: PEFT types its models' methods as attributes
        merged.requires_grad_(False)
        own = MLLM(
            merged,
            mllm.processor,
            source=mllm.source,
            fingerprint=mllm.fingerprint,
            device=mllm.device,
        )
        own.vision = mllm.vision  # tower and projector are the same in every copy
        self._adapted.append((frozenset(request.keys), own))

    def _by_label(self, questions: Sequence[Question]) -> dict[int, list[int]]:
        """Return question indices by adapter; -1 is the base model."""
        groups: dict[int, list[int]] = {}
        for i, question in enumerate(questions):
            label = next(
                (
                    k
                    for k, (keys, _) in enumerate(self._adapted)
                    if question.group == "forget" and question.entity in keys
                ),
                -1,
            )
            groups.setdefault(label, []).append(i)
        return groups

    def _model(self, label: int) -> MLLM:
        return self.setting.mllm if label < 0 else self._adapted[label][1]

    def answer(self, questions: Sequence[Question]) -> list[str]:
        """See `Method.answer`; pictures are shown when asked, as a caller would."""
        said: dict[int, str] = {}
        for label, index in self._by_label(questions).items():
            part = [questions[i] for i in index]
            texts = answers(self._model(label), part, self.setting.course.max_new_tokens)
            said.update(zip(index, texts, strict=True))
        return [said[i] for i in range(len(questions))]

    def token_nlls(self, questions: Sequence[Question]) -> list[list[float]]:
        """See `Method.token_nlls`."""
        found: dict[int, list[float]] = {}
        for label, index in self._by_label(questions).items():
            nlls = token_nlls(self._model(label), [questions[i] for i in index])
            found.update(zip(index, nlls, strict=True))
        return [found[i] for i in range(len(questions))]

    def keep(self, done: Sequence[Request]) -> None:
        """Nothing to do: adapters are on disk since they were trained."""

    def restore(self, done: Sequence[Request]) -> bool:
        """Load the adapters, each onto its own copy; False if one is missing."""
        if not done or any(not self._path(request).is_dir() for request in done):
            return False
        for request in done:
            network = copy.deepcopy(self.setting.mllm.network)
            self._enrol(request, PeftModel.from_pretrained(network, str(self._path(request))))
        return True

    def _path(self, request: Request) -> Path:
        return self.folder / f"{stable_hash(*request.keys):016x}"


def without_pictures(conversation: Conversation) -> Conversation:
    """Return a conversation as the released training sees it: the words alone."""
    return tuple(replace(message, images=()) for message in conversation)
