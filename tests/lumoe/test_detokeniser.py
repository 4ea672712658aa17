from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from app.lumoe.detokeniser import Detokeniser, open_ended

_SPECIALS = ["<pad>", "<s>", "</s>"]
_PIECES = ["\u2581", "\u2581\u2581", "\u2581the", "\u2581é", *"ab.,日", "né", "n't", "\ufffd", "<x>", ""]
_BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
_LETTERS = sorted(pre_tokenizers.ByteLevel.alphabet())
_SEVERAL = ["Ġthe", "ĠĠ", "ÃĤ", "æĹ¥", "æĹ", "¥", "¥a", "ðŁĻ", "Ĥ"]

DECODERS: dict[str, tuple[list[str], decoders.Decoder | None]] = {
    "byte level": ([*_LETTERS, *_SEVERAL], decoders.ByteLevel()),
    "byte level, stripped": (
        [*_LETTERS, *_SEVERAL],
        decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)]),
    ),
    "llama": (
        [*_PIECES, *_BYTES],
        decoders.Sequence(
            [
                decoders.Replace("\u2581", " "),
                decoders.ByteFallback(),
                decoders.Fuse(),
                decoders.Strip(" ", 1, 0),
            ]
        ),
    ),
    "gemma": (
        [*_PIECES, *_BYTES],
        decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]),
    ),
    "metaspace": (_PIECES, decoders.Metaspace()),
    "word pieces": ([*_PIECES, "##s", "##ed"], decoders.WordPiece()),
    "none": (_PIECES, None),
}


@cache
def tokenizer(name: str) -> PreTrainedTokenizerFast:
    pieces, decoder = DECODERS[name]
    backend = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate([*_SPECIALS, *pieces])}, merges=[]))
    if decoder is not None:
        backend.decoder = decoder
    backend.add_tokens(["<added>"])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )


@pytest.mark.parametrize("name", DECODERS)
@given(drawn=st.data())
def test_text_is_that_of_all_tokens(name: str, drawn: st.DataObject) -> None:
    found = tokenizer(name)
    tokens = drawn.draw(st.lists(st.integers(0, len(found) - 1), max_size=40))

    def decode(some: Sequence[int]) -> str:
        return str(found.decode(list(some), skip_special_tokens=True))

    detokeniser = Detokeniser(decode, open_ended(found))
    assert detokeniser.text == ""
    for n, token in enumerate(tokens, 1):
        assert detokeniser.add(token) == detokeniser.text == decode(tokens[:n])


@pytest.mark.parametrize("name", DECODERS)
def test_no_more_is_decoded_than_it_takes(name: str) -> None:
    found = tokenizer(name)
    longest = 0

    def decode(some: Sequence[int]) -> str:
        nonlocal longest
        longest = max(longest, len(some))
        return str(found.decode(list(some), skip_special_tokens=True))

    detokeniser = Detokeniser(decode, open_ended(found))
    for piece in ["a", "b"] * 50:
        detokeniser.add(found.get_vocab()[piece])
    assert longest == (100 if name in ("word pieces", "none") else 2)


def test_what_is_cleaned_up_is_decoded_as_a_whole() -> None:
    found = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer("metaspace").backend_tokenizer, clean_up_tokenization_spaces=True
    )
    assert open_ended(found) is None
