"""The text of a growing list of tokens, at the same cost for every token.

A token's text may depend on what is around it: a letter of several bytes may be cut in two, a leading space
is dropped, a run of byte tokens is one text. So tokens are decoded behind those of one piece before them, and
a piece ends only where nothing that follows can change it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

_LOCAL = frozenset({"Sequence", "ByteLevel", "ByteFallback", "Fuse", "Metaspace"})
"""Decoders of `tokenizers` whose text of a token depends on its neighbours in the ways above alone."""

_CUT = "\N{REPLACEMENT CHARACTER}"


def open_ended(tokenizer: Any) -> frozenset[int] | None:  # Any: transformers' tokenizers are untyped
    """Return the tokens whose text what follows may change although it is whole; None: any token's may."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or backend.decoder is None or tokenizer.clean_up_tokenization_spaces:
        return None
    state = json.loads(backend.decoder.__getstate__())
    parts = state["decoders"] if state["type"] == "Sequence" else [state]
    if not all(_is_local(part) for part in parts):
        return None
    pieces = (backend.token_to_id(f"<0x{byte:02X}>") for byte in range(256))
    return frozenset(tokenizer.all_special_ids) | {piece for piece in pieces if piece is not None}


def _is_local(part: dict[str, Any]) -> bool:
    if part["type"] == "Strip":  # a leading space
        return bool(part["content"] == " " and part["start"] <= 1 and part["stop"] == 0)
    if part["type"] == "Replace":
        return bool(part["pattern"] == {"String": "\N{LOWER ONE EIGHTH BLOCK}"} and part["content"] == " ")
    return part["type"] in _LOCAL


class Detokeniser:
    """See the module's docstring.

    Args:
        decode: returns the text of tokens.
        open_ended: of `decode`'s tokenizer.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], open_ended: frozenset[int] | None) -> None:
        self._decode, self._open_ended = decode, open_ended
        self._tokens: list[int] = []  # the piece that ended last, and those behind it
        self._ended = 0  # how many of them are that piece
        self._before = ""  # the text up to its end
        self._own = 0  # how many characters those of that piece are, decoded alone
        self.text = ""
        """The text of all tokens so far, as `decode` returns it."""

    def add(self, token: int) -> str:
        """Take one more token and return `text`."""
        self._tokens.append(token)
        decoded = self._decode(self._tokens)
        self.text = self._before + decoded[self._own :]
        open_ended = self._open_ended is None or token in self._open_ended or decoded.endswith(_CUT)
        if not open_ended and len(decoded) > self._own:
            self._tokens = self._tokens[self._ended :]
            self._ended, self._before = len(self._tokens), self.text
            self._own = len(self._decode(self._tokens))
        return self.text
