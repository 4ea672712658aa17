"""What can go wrong in the method, as exceptions that say what to do next."""

from __future__ import annotations


class LumoeError(Exception):
    """Base of every error that the method raises on purpose."""


class ModelNotFoundError(LumoeError):
    """The model source is neither `demo`, nor a model directory, nor an id that can be loaded."""

    def __init__(self, source: str, reason: str) -> None:
        super().__init__(
            f"cannot load the model {source!r}: {reason}. Set LETHE_MODEL to 'demo', to a directory that "
            "AutoModelForImageTextToText can load, or to a Hugging Face model id."
        )
        self.source = source


class UnsupportedModelError(LumoeError):
    """The model loads, but the method cannot work with it."""


class ConversationTooLongError(LumoeError):
    """The conversation with its pictures and the room for an answer exceeds the model's context."""

    def __init__(self, tokens: int, limit: int) -> None:
        super().__init__(f"the conversation takes {tokens} tokens, the model reads at most {limit}")
        self.tokens = tokens
        self.limit = limit


class ExpertCorruptError(LumoeError):
    """An expert's files do not match its manifest; it must not be served."""


class ExpertPathError(ExpertCorruptError):
    """An expert's recorded path leads out of the experts directory; nothing there is touched."""


class UnknownExpertError(LumoeError):
    """A decision names an expert that this router does not hold; never answered by the base model."""
