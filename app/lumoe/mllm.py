"""A base model of any supported family: prompts, picture features, generation, likelihoods.

Pictures go through the vision tower and projector once (`MLLM.encode`); the features are cached by content
and handed to every later pass, so that gate, generation and training never pay for the tower twice.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from PIL.Image import Image
from torch import Tensor, nn
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    LlavaProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    StoppingCriteriaList,
)

from app.lumoe.detokeniser import Detokeniser, open_ended
from app.lumoe.errors import ConversationTooLongError, ModelNotFoundError, UnsupportedModelError
from app.lumoe.fingerprint import fingerprint_of
from app.lumoe.onednn import use_onednn
from app.lumoe.sampling import Drawing, Sampling
from app.lumoe.sources import where_is
from app.lumoe.steering import Cancelled, RowWatcher, TokenSink
from app.lumoe.types import Conversation, Generation, pictures_of
from app.lumoe.vision import ImageFeatures, VisionEncoder

LORA_TARGETS = r".*(?:language_model|text_model).*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
"""The language model's linear layers; the vision tower and the projector stay untouched."""

_IGNORE = -100


class MLLM:
    """A loaded multimodal LLM in evaluation mode; its weights and module tree are never changed here.

    On a CPU its linear layers go through oneDNN where that is quicker (`app.lumoe.onednn`).
    """

    lora_targets = LORA_TARGETS

    def __init__(
        self, model: PreTrainedModel, processor: Any, *, source: str, fingerprint: str, device: torch.device
    ) -> None:
        self.model: Any = model  # Any: transformers types its models' methods as attributes
        self.network: PreTrainedModel = model
        self.processor = processor  # Any: transformers' processors share no typed base with __call__
        self.tokenizer = processor.tokenizer
        self.source = source
        self.fingerprint = fingerprint
        self.device = device
        self._open_ended = open_ended(self.tokenizer)
        self._expands_images = isinstance(processor, LlavaProcessor)
        self.vision = VisionEncoder(model, processor.image_processor, device)
        text_config = model.config.get_text_config()
        self.max_tokens = int(getattr(text_config, "max_position_embeddings", 2048))
        eos = model.generation_config.eos_token_id if model.generation_config is not None else None
        eos = eos if eos is not None else self.tokenizer.eos_token_id
        self.eos_ids = frozenset(eos if isinstance(eos, list) else [eos])
        self._pad_id = int(
            self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else min(self.eos_ids)
        )

    @classmethod
    def load(cls, source: str = "demo", device: str = "auto", dtype: torch.dtype | None = None) -> MLLM:
        """Load a model: `demo`, a directory, or a Hugging Face id. Nothing is fetched for `demo`.

        `dtype` defaults to float32 on the CPU and bfloat16 on an accelerator.
        Raises `ModelNotFoundError` naming the setting to correct.
        """
        where = where_is(source)
        target = _device(device)
        kind = dtype or (torch.float32 if target.type == "cpu" else torch.bfloat16)
        try:
            model = AutoModelForImageTextToText.from_pretrained(where, dtype=kind, use_safetensors=True)
            processor: Any = AutoProcessor.from_pretrained(where)
        except (OSError, ValueError, ImportError) as error:
            raise ModelNotFoundError(source, str(error).splitlines()[0]) from error
        model.to(device=target)  # type: ignore[call-arg]  # typed as a wrapped descriptor upstream
        model.requires_grad_(False)  # from_pretrained leaves it in evaluation mode
        use_onednn(model)
        if not any(True for _ in _targets(model)):
            raise UnsupportedModelError(
                f"{source}: no linear layer of its language model matches {LORA_TARGETS}"
            )
        return cls(model, processor, source=source, fingerprint=fingerprint_of(where, model), device=target)

    # -- prompts -----------------------------------------------------------------------------------

    def render(self, conversation: Conversation, answer: str | None = None) -> str:
        """Return the chat template's text: up to the answer, or including `answer` and its end of turn."""
        turns = [
            {
                "role": message.role,
                "content": [{"type": "image"} for _ in message.images]
                + [{"type": "text", "text": self.plain(message.text)}],
            }
            for message in conversation
        ]
        if answer is not None:
            turns.append({"role": "assistant", "content": [{"type": "text", "text": self.plain(answer)}]})
        text: str = self.processor.apply_chat_template(
            turns, add_generation_prompt=answer is None, tokenize=False
        )
        return text

    def plain(self, text: str) -> str:
        """Defuse control tokens that a caller wrote as text (a typed `<image>` is not a picture)."""
        for token in self.tokenizer.all_special_tokens:
            if token and token in text:
                text = text.replace(token, token[0] + " " + token[1:])
        return text

    def _token_ids(self, text: str, lengths: Sequence[int]) -> list[int]:
        """Tokenise a rendered prompt whose k-th picture takes `lengths[k]` tokens (LLaVA form)."""
        pieces = text.split(self.processor.image_token)
        if len(pieces) != len(lengths) + 1:
            raise UnsupportedModelError("the chat template does not place one image token per picture")
        text = pieces[0] + "".join(
            self.processor.image_token * n + piece for n, piece in zip(lengths, pieces[1:], strict=True)
        )
        bos = self.tokenizer.bos_token
        ids: list[int] = self.tokenizer(text, add_special_tokens=not (bos and text.startswith(bos)))[
            "input_ids"
        ]
        return ids

    # -- pictures ----------------------------------------------------------------------------------

    def encode(self, images: Sequence[Image]) -> ImageFeatures:
        """Run pictures through tower and projector, each distinct picture once; see `ImageFeatures`."""
        return self.vision.encode(images)

    def features(self, conversations: Sequence[Conversation]) -> ImageFeatures:
        """Encode all pictures of `conversations`, in reading order."""
        return self.encode(pictures_of(conversations))

    # -- batches -----------------------------------------------------------------------------------

    def _encode_rows(self, conversations: Sequence[Conversation], answers: Sequence[str] | None) -> _Rows:
        """Tokenise; with `answers`, the labels mark the answer's tokens and its end of turn."""
        if not self._expands_images:
            return self._encode_rows_by_processor(conversations, answers)
        features = self.features(conversations)
        rows, labels, at = [], [], 0
        for i, conversation in enumerate(conversations):
            n = sum(len(message.images) for message in conversation)
            lengths = [len(features.tokens[k]) for k in range(at, at + n)]
            at += n
            ids = self._token_ids(self.render(conversation), lengths)
            if answers is None:
                rows.append(ids)
                continue
            full = self._token_ids(self.render(conversation, answers[i]), lengths)
            row, mask = self._answer_mask(ids, full)
            rows.append(row)
            labels.append(mask)
        return _Rows(rows, labels or None, features.tokens)

    def _encode_rows_by_processor(
        self, conversations: Sequence[Conversation], answers: Sequence[str] | None
    ) -> _Rows:
        """The families whose processor writes more than one repeated token per picture."""
        rows: list[list[int]] = []
        labels: list[list[int]] = []
        for i, conversation in enumerate(conversations):
            images = pictures_of([conversation])
            prompt = self._processed_ids(self.render(conversation), images)
            if answers is None:
                rows.append(prompt)
            else:
                full = self._processed_ids(self.render(conversation, answers[i]), images)
                row, mask = self._answer_mask(prompt, full)
                rows.append(row)
                labels.append(mask)
        return _Rows(rows, labels or None, self.features(conversations).tokens)

    def _processed_ids(self, text: str, images: Sequence[Image]) -> list[int]:
        bos = self.tokenizer.bos_token
        encoded = self.processor(
            text=[text],
            images=[list(images)] if images else None,
            return_tensors="pt",
            add_special_tokens=not (bos and text.startswith(bos)),
        )
        ids: list[int] = encoded["input_ids"][0].tolist()
        return ids

    def _answer_mask(self, prompt: list[int], full: list[int]) -> tuple[list[int], list[int]]:
        """Return (tokens, labels): the answer and its end token count, the rest is masked."""
        start = next((k for k, (a, b) in enumerate(zip(prompt, full, strict=False)) if a != b), len(prompt))
        end = next((k + 1 for k in range(start, len(full)) if full[k] in self.eos_ids), None)
        row = full[:end] if end is not None else [*full, min(self.eos_ids)]
        return row, [_IGNORE] * start + row[start:]

    def _check_length(self, rows: Sequence[Sequence[int]], room: int) -> None:
        longest = max((len(row) for row in rows), default=0) + room
        if longest > self.max_tokens:
            raise ConversationTooLongError(longest, self.max_tokens)

    def count_tokens(self, conversation: Conversation) -> int:
        """Return how many tokens the prompt of `conversation` takes, pictures included."""
        return len(self.prompt_ids(conversation))

    def prompt_ids(self, conversation: Conversation) -> list[int]:
        """Return the tokens that the model reads before it answers, one per patch of a picture."""
        return self._encode_rows([conversation], None).ids[0]

    def prompt(self, conversation: Conversation) -> tuple[list[int], tuple[Tensor, ...]]:
        """Return `prompt_ids` and the pictures' tokens, one tensor (t, hidden) per picture, for `read`."""
        rows = self._encode_rows([conversation], None)
        return rows.ids[0], rows.image_tokens

    @property
    def pad_id(self) -> int:
        """The token that fills a shorter row of a batch."""
        return self._pad_id

    @torch.inference_mode()
    def read(
        self, ids: Tensor, mask: Tensor, *, image_tokens: Sequence[Tensor] = (), past: Any = None
    ) -> Any:
        """Read left-padded rows `ids` (b, t) behind what the cache `past` holds, with the active adapters.

        `mask` (b, past + t) is 0 where a row is padded. Returns the model's output: `logits` (b, 1, vocab) of
        the last position, and `past_key_values`, which `past` becomes.
        """
        return self._pass(
            ids, mask, image_tokens=image_tokens, past_key_values=past, use_cache=True, logits_to_keep=1
        )

    @torch.inference_mode()
    def prompt_loglik(self, conversation: Conversation) -> list[float]:
        """Return the log-likelihood in nats of each of `prompt_ids` but the first, given those before it."""
        rows = self._encode_rows([conversation], None)
        ids = torch.tensor(rows.ids[0], device=self.device)
        logits = self._pass(
            ids[None], torch.ones(1, len(ids), dtype=torch.long), image_tokens=rows.image_tokens
        ).logits[0, :-1]  # (t - 1, vocab)
        values: list[float] = logits.float().log_softmax(-1).gather(-1, ids[1:, None])[:, 0].tolist()
        return values

    def training_batch(self, conversations: Sequence[Conversation], answers: Sequence[str]) -> dict[str, Any]:
        """Return right-padded `input_ids`, `attention_mask`, `labels` (b, t) and the pictures' tokens.

        `labels` is -100 outside the answer and its end of turn. Feed the result to `forward`.
        """
        rows = self._encode_rows(conversations, answers)
        self._check_length(rows.ids, 0)
        width = max(len(row) for row in rows.ids)
        assert rows.labels is not None  # noqa: S101  answers were given
        ids = [row + [self._pad_id] * (width - len(row)) for row in rows.ids]
        mask = [[1] * len(row) + [0] * (width - len(row)) for row in rows.ids]
        labels = [row + [_IGNORE] * (width - len(row)) for row in rows.labels]
        return {
            "input_ids": torch.tensor(ids, device=self.device),
            "attention_mask": torch.tensor(mask, device=self.device),
            "labels": torch.tensor(labels, device=self.device),
            "image_tokens": rows.image_tokens,
        }

    def forward(self, batch: dict[str, Any], model: nn.Module | None = None) -> Tensor:
        """Return logits (b, t, vocab) of a `training_batch`; `model` may be a PEFT wrapper of ours."""
        runner = model if model is not None else self.model
        extra = (
            {"mm_encoder_outputs": self.vision.as_model_input(batch["image_tokens"])}
            if batch["image_tokens"]
            else {}
        )
        logits: Tensor = runner(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False, **extra
        ).logits
        return logits

    @torch.inference_mode()
    def loglik(
        self, conversations: Sequence[Conversation], continuations: Sequence[str], *, batch: int = 64
    ) -> list[float]:
        """Return, per row, the mean log-likelihood per token of the continuation given the conversation."""
        result = [0.0] * len(conversations)
        order = sorted(range(len(conversations)), key=lambda i: sum(len(m.text) for m in conversations[i]))
        for start in range(0, len(order), batch):
            part = order[start : start + batch]
            rows = self.token_nlls([conversations[i] for i in part], [continuations[i] for i in part])
            for i, nlls in zip(part, rows, strict=True):
                result[i] = -sum(nlls) / max(1, len(nlls))
        return result

    @torch.inference_mode()
    def token_nlls(
        self, conversations: Sequence[Conversation], continuations: Sequence[str]
    ) -> list[list[float]]:
        """Return, per row, minus the log-likelihood in nats of each of the continuation's tokens.

        The end of turn counts as a token. All rows are one batch, with the adapters that are active now.
        """
        inputs = self.training_batch(conversations, continuations)
        logits = self.forward(inputs)[:, :-1].float()  # (b, t - 1, vocab)
        labels = inputs["labels"][:, 1:]
        picked = logits.gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1) - logits.logsumexp(-1)
        kept = labels != _IGNORE
        return [(-row[mask]).tolist() for row, mask in zip(picked, kept, strict=True)]

    @torch.inference_mode()
    def begin_loglik(
        self, conversations: Sequence[Conversation], beginnings: Sequence[str], *, batch: int = 64
    ) -> list[float]:
        """Return, per row, the log-likelihood in nats that the answer to the conversation begins so.

        Summed over the tokens of `beginnings[i]`, without an end of turn. Rows that share a conversation
        share its pass: many beginnings of one answer cost little more than one.
        """
        result = [0.0] * len(conversations)
        groups: dict[tuple[object, ...], list[int]] = {}
        for i, conversation in enumerate(conversations):
            groups.setdefault(_identity_of(conversation), []).append(i)
        parts = sorted(groups.values(), key=lambda rows: sum(len(m.text) for m in conversations[rows[0]]))
        for start in range(0, len(parts), batch):
            rows = [(k, i) for k, group in enumerate(parts[start : start + batch]) for i in group]
            asked = [conversations[group[0]] for group in parts[start : start + batch]]
            values = self._begin_loglik(asked, [k for k, _ in rows], [beginnings[i] for _, i in rows])
            for (_, i), value in zip(rows, values, strict=True):
                result[i] = value
        return result

    def _begin_loglik(
        self, asked: Sequence[Conversation], owner: Sequence[int], beginnings: Sequence[str]
    ) -> list[float]:
        """Score beginning j of an answer to `asked[owner[j]]`: one pass over prompts, one over beginnings."""
        prompts = self._encode_rows(asked, None)
        scored = self._encode_rows([asked[k] for k in owner], beginnings)
        assert scored.labels is not None  # noqa: S101  answers were given
        answers = [[t for t in labels if t != _IGNORE][:-1] for labels in scored.labels]
        self._check_length(scored.ids, 0)
        width = max(len(row) for row in prompts.ids)
        ids = [[self._pad_id] * (width - len(row)) + row for row in prompts.ids]
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in prompts.ids])
        output = self._pass(torch.tensor(ids), mask, image_tokens=prompts.image_tokens, use_cache=True)
        chosen = torch.tensor(owner, device=self.device)
        first = output.logits[:, -1].float().log_softmax(-1)[chosen]  # (rows, vocab)
        longest = max(len(answer) for answer in answers)
        padded = torch.tensor([answer + [self._pad_id] * (longest - len(answer)) for answer in answers])
        real = torch.tensor([[1] * len(answer) + [0] * (longest - len(answer)) for answer in answers])
        padded, real = padded.to(self.device), real.to(self.device)
        total = first.gather(-1, padded[:, :1]).squeeze(-1) * real[:, 0]
        if longest > 1:
            cache = output.past_key_values
            cache.batch_select_indices(chosen)
            after = torch.cat([mask.to(self.device)[chosen], real[:, :-1]], 1)
            logits = self._pass(padded[:, :-1], after, past_key_values=cache, use_cache=True).logits
            scores = logits.float().log_softmax(-1).gather(-1, padded[:, 1:].unsqueeze(-1)).squeeze(-1)
            total = total + (scores * real[:, 1:]).sum(-1)
        values: list[float] = total.tolist()
        return values

    def _pass(self, ids: Tensor, mask: Tensor, *, image_tokens: Sequence[Tensor] = (), **more: Any) -> Any:
        """Run the model over left-padded rows; `mask` (b, past + t) also covers what a cache holds."""
        positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        if image_tokens:
            more["mm_encoder_outputs"] = self.vision.as_model_input(image_tokens)
        return self.model(
            input_ids=ids.to(self.device),
            attention_mask=mask.to(self.device),
            position_ids=positions.to(self.device),
            **more,
        )

    # -- generation --------------------------------------------------------------------------------

    @torch.inference_mode()
    def generate(
        self,
        conversations: Sequence[Conversation],
        *,
        max_new_tokens: int = 64,
        lookahead: int = 0,
        sink: TokenSink | None = None,
        samplings: Sequence[Sampling] = (),
    ) -> list[Generation]:
        """Answer all rows in one left-padded batch, with the adapters that are active now.

        Greedily, unless `samplings` has another way for a row. Up to `lookahead` more tokens are written, as
        far as the context has room. `sink` sees every token as it is chosen and may end a row by returning
        false.
        Raises `ConversationTooLongError`.
        """
        if not conversations:
            return []
        rows = self._encode_rows(conversations, None)
        self._check_length(rows.ids, max_new_tokens)
        width = max(len(row) for row in rows.ids)
        max_new_tokens = max(max_new_tokens, min(max_new_tokens + lookahead, self.max_tokens - width))
        ids = torch.tensor(
            [[self._pad_id] * (width - len(row)) + row for row in rows.ids], device=self.device
        )
        mask = torch.tensor(
            [[0] * (width - len(row)) + [1] * len(row) for row in rows.ids], device=self.device
        )
        extra = (
            {"mm_encoder_outputs": self.vision.as_model_input(rows.image_tokens)} if rows.image_tokens else {}
        )
        drawn = any(not sampling.greedy for sampling in samplings)
        watcher = RowWatcher(len(rows.ids), self.eos_ids, sink)
        output = self.model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            num_beams=1,
            pad_token_id=self._pad_id,
            streamer=watcher if sink is not None else None,
            stopping_criteria=StoppingCriteriaList([Cancelled(watcher)]) if sink is not None else None,
            logits_processor=LogitsProcessorList([Drawing(samplings)]) if drawn else None,
            **extra,
        )
        return [
            self._generation(output[i, width:].tolist(), len(rows.ids[i]), i in watcher.cancelled)
            for i in range(len(rows.ids))
        ]

    def _generation(self, tokens: list[int], prompt_tokens: int, cancelled: bool) -> Generation:
        end = next((k for k, token in enumerate(tokens) if token in self.eos_ids), None)
        kept = tokens if end is None else tokens[:end]
        reason: Literal["stop", "length", "cancelled"] = "stop" if end is not None else "length"
        return Generation(self.decode(kept), tuple(kept), "cancelled" if cancelled else reason, prompt_tokens)

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of `tokens` without special tokens and outer white space."""
        return self._text(tokens).strip()

    def detokeniser(self) -> Detokeniser:
        """Return one whose text is that of `decode`, but for outer white space."""
        return Detokeniser(self._text, self._open_ended)

    def _text(self, tokens: Sequence[int]) -> str:
        text: str = self.tokenizer.decode(list(tokens), skip_special_tokens=True)
        return text


@dataclass(frozen=True, slots=True)
class _Rows:
    """Tokenised rows, their labels, and the pictures' projected tokens in reading order."""

    ids: list[list[int]]
    labels: list[list[int]] | None
    image_tokens: tuple[Tensor, ...]


def _identity_of(conversation: Conversation) -> tuple[object, ...]:
    """Return what two conversations have in common only if they are the same, pictures by object."""
    return tuple((m.role, m.text, *(id(image) for image in m.images)) for m in conversation)


def _targets(model: PreTrainedModel) -> Iterator[tuple[str, nn.Linear]]:
    """Yield the language model's linear layers that experts may adapt, by module name."""
    pattern = re.compile(LORA_TARGETS)
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and pattern.fullmatch(name):
            yield name, module


def target_linears(model: PreTrainedModel) -> dict[str, nn.Linear]:
    """Return the language model's linear layers that experts adapt, by module name."""
    return dict(_targets(model))


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(name)
