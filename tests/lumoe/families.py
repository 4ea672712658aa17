"""Tiny random models of other families whose processors work with PIL alone."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3ImageProcessorPil,
    Gemma3Processor,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessorPil,
    Idefics3Processor,
    PreTrainedTokenizerFast,
)

from tests.lumoe.tiny import TEMPLATE

_IDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
_TEXT = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
    **_IDS,
}
_VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}


def _tokenizer(extra: dict[str, str]) -> tuple[PreTrainedTokenizerFast, int]:
    tokens = ["<pad>", "<s>", "</s>", *extra.values(), *sorted(pre_tokenizers.ByteLevel.alphabet())]
    backend = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        extra_special_tokens=extra,
    )
    return tokenizer, len(tokens)


def save_gemma3(folder: Path) -> None:
    """SigLIP tower without a class token; the processor frames pictures with markers of its own."""
    torch.manual_seed(0)
    tokenizer, n = _tokenizer({"boi_token": "<soi>", "eoi_token": "<eoi>", "image_token": "<img>"})
    config = Gemma3Config(
        text_config={
            **_TEXT,
            "vocab_size": n,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "sliding_window": 64,
        },
        vision_config=_VISION,
        mm_tokens_per_image=4,
        boi_token_index=3,
        eoi_token_index=4,
        image_token_index=5,
    )
    model = Gemma3ForConditionalGeneration(config)
    model.generation_config.update(**_IDS)
    processor = Gemma3Processor(
        image_processor=Gemma3ImageProcessorPil(size={"height": 32, "width": 32}),
        tokenizer=tokenizer,
        image_seq_length=4,
        chat_template=TEMPLATE.replace("<image>", "<soi>"),
    )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def save_idefics3(folder: Path) -> None:
    """Pictures become tiles; as many as their size asks for."""
    torch.manual_seed(0)
    extra = {
        "image_token": "<image>",
        "fake_image_token": "<fake_token_around_image>",
        "global_image_token": "<global-img>",
        "end_of_utterance_token": "<end_of_utterance>",
    }
    tokenizer, n = _tokenizer(extra)
    config = Idefics3Config(
        text_config={**_TEXT, "model_type": "llama", "vocab_size": n},
        vision_config=_VISION,
        image_token_id=3,
        scale_factor=2,
    )
    model = Idefics3ForConditionalGeneration(config)
    model.generation_config.update(**_IDS)
    processor = Idefics3Processor(
        image_processor=Idefics3ImageProcessorPil(
            size={"longest_edge": 64}, max_image_size={"longest_edge": 32}
        ),
        tokenizer=tokenizer,
        image_seq_len=4,
        chat_template=TEMPLATE,
    )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
