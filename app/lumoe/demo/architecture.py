"""The demo model's shape: CLIP tower, Llama, byte-level tokenizer, a processor without torchvision."""

from collections.abc import Iterable
from typing import Final

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

PICTURE_SIDE: Final = 64
PATCH: Final = 16
PATCHES: Final = (PICTURE_SIDE // PATCH) ** 2
"""Patch tokens per picture that the language model sees."""
TOWER_WIDTH: Final = 128
PAD, BOS, EOS, IMAGE = "<pad>", "<bos>", "<eos>", "<image>"
SYSTEM, USER, ASSISTANT = "<|system|>", "<|user|>", "<|assistant|>"
SPECIALS: Final = (PAD, BOS, EOS, IMAGE, SYSTEM, USER, ASSISTANT)

CHAT_TEMPLATE: Final = """{{ bos_token }}{% for message in messages %}\
{{ '<|' + message['role'] + '|>' }}\
{% if message['content'] is string %}{{ message['content'] }}{% else %}\
{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>{% endif %}{% endfor %}\
{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}\
{% endif %}{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}\
{% if add_generation_prompt %}<|assistant|>{% endif %}"""


def vision_config(layers: int = 3) -> CLIPVisionConfig:
    """The tower: 128 wide, pictures of 64 x 64 in 16 patches."""
    return CLIPVisionConfig(
        hidden_size=TOWER_WIDTH,
        intermediate_size=512,
        num_hidden_layers=layers,
        num_attention_heads=4,
        image_size=PICTURE_SIDE,
        patch_size=PATCH,
        projection_dim=TOWER_WIDTH,
    )


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE on the texts; every Unicode text can be written in it, without unknown tokens.

    A word has the same tokens at the start of a text as within it (a space put before is stripped again).
    """
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    bpe.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
    bpe.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocabulary,
            special_tokens=list(SPECIALS),
            show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        padding_side="left",
        additional_special_tokens=[SYSTEM, USER, ASSISTANT],
        extra_special_tokens={"image_token": IMAGE},
        model_max_length=1024,
        clean_up_tokenization_spaces=False,
    )


def build_processor(tokenizer: PreTrainedTokenizerFast) -> LlavaProcessor:
    """Pictures squashed to 64 x 64, one ``<image>`` expanded to 16 tokens, a multi-turn chat template."""
    side = {"height": PICTURE_SIDE, "width": PICTURE_SIDE}
    pictures = CLIPImageProcessorPil(
        size=side, crop_size=side, do_center_crop=False, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    return LlavaProcessor(
        image_processor=pictures,
        tokenizer=tokenizer,
        patch_size=PATCH,
        chat_template=CHAT_TEMPLATE,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token=IMAGE,
    )


def token_id(tokenizer: PreTrainedTokenizerFast, token: str) -> int:
    """The id of a special token."""
    found = tokenizer.convert_tokens_to_ids(token)
    assert isinstance(found, int)  # noqa: S101 - a single token has a single id
    return found


def build_model(
    tokenizer: PreTrainedTokenizerFast, hidden: int, layers: int
) -> LlavaForConditionalGeneration:
    """A LLaVA with random weights. Its language model sees all patches of the tower's last layer."""
    pad, bos, eos = (token_id(tokenizer, token) for token in (PAD, BOS, EOS))
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=hidden * 8 // 3 // 8 * 8,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 32,
        num_key_value_heads=hidden // 32,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        rms_norm_eps=1e-5,
        pad_token_id=pad,
        bos_token_id=bos,
        eos_token_id=eos,
    )
    config = LlavaConfig(
        vision_config=vision_config(),
        text_config=text,
        vision_feature_layer=-1,
        image_token_index=token_id(tokenizer, IMAGE),
        vision_feature_select_strategy="default",
        image_seq_length=PATCHES,
        tie_word_embeddings=True,
    )
    model = LlavaForConditionalGeneration(config)
    for settings in (model.config, model.generation_config):
        settings.pad_token_id, settings.bos_token_id, settings.eos_token_id = pad, bos, eos
    return model
