"""From OpenAI's request to the one `/chat` knows: what can be honoured is, what cannot is refused by name.

Three kinds of parameters: those that change the answer as they say; those that change no answer anywhere
(`UNUSED`); and the rest, which are refused unless they ask for what happens anyhow (`NEUTRAL`).
Unknown ones are refused as well: a mistyped `max_token` must not go unnoticed.
"""

from collections.abc import Mapping
from typing import Any

from app.chat.errors import InvalidConversation, UnsupportedParameter
from app.chat.schemas import ChatMessage, ChatRequest, ImagePart, ImageUrl, Part, TextPart
from app.chat.v1.schemas import CompletionMessage, CompletionRequest
from app.lumoe.sampling import Sampling

_PROBABILITIES = (
    "Probabilities of tokens are not given out: they would tell what the output guard takes out of an answer."
)
_TOOLS = "This model calls no tools."
_PENALTIES = "Tokens are chosen without penalties and biases."

UNUSED = frozenset(
    {"metadata", "parallel_tool_calls", "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention",
     "safety_identifier", "service_tier", "user"}
)  # fmt: skip
"""Known parameters that change no answer; they are neither used nor kept."""

NEUTRAL: Mapping[str, tuple[tuple[object, ...], str]] = {
    "logprobs": ((False,), _PROBABILITIES),
    "top_logprobs": ((0,), _PROBABILITIES),
    "tools": (([],), _TOOLS),
    "tool_choice": (("none", "auto"), _TOOLS),
    "functions": (([],), _TOOLS),
    "function_call": (("none", "auto"), _TOOLS),
    "response_format": (({"type": "text"},), "Answers are plain text."),
    "modalities": ((["text"],), "Answers are plain text."),
    "audio": ((), "Answers are plain text."),
    "frequency_penalty": ((0,), _PENALTIES),
    "presence_penalty": ((0,), _PENALTIES),
    "logit_bias": (({},), _PENALTIES),
    "store": ((False,), "Conversations are not stored."),
    "prediction": ((), "Predicted outputs are not used."),
    "web_search_options": ((), "Nothing is looked up on the web."),
    "reasoning_effort": (("none",), "This model does not reason before it answers."),
    "verbosity": ((), "The length of an answer can be limited by `max_completion_tokens` alone."),
    "moderation": ((), "There is no moderation to configure."),
}
"""What cannot be honoured: the values (besides null) that ask for nothing, and why others are refused."""

_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_UNSAID = frozenset({"refusal", "annotations", "audio", "function_call", "tool_calls", "name"})
"""Fields of a message that clients send back with nothing in them."""


def check_parameters(asked: CompletionRequest) -> None:
    """Raise `UnsupportedParameter` for the first thing that cannot be honoured."""
    if asked.n is not None and asked.n != 1:
        raise UnsupportedParameter(
            "n",
            f"{asked.n} answers are not supported: one conversation has one answer.",
            "Leave `n` out, or set it to 1.",
        )
    for name, value in (asked.model_extra or {}).items():
        if value is None or name in UNUSED:
            continue
        if name not in NEUTRAL:
            raise UnsupportedParameter(name, f"Unrecognized request argument: {name[:80]}.")
        harmless, reason = NEUTRAL[name]
        if value not in harmless:
            raise UnsupportedParameter(name, f"`{name}` is not supported with this value. {reason}")


def limit_of(asked: CompletionRequest) -> int | None:
    """Return the most tokens that the answer may have; None if nothing was said."""
    old, new = asked.max_tokens, asked.max_completion_tokens
    if old is not None and new is not None and old != new:
        raise UnsupportedParameter(
            "max_tokens", "`max_tokens` and `max_completion_tokens` differ.", "Send one of them."
        )
    return new if new is not None else old


def sampling_of(asked: CompletionRequest) -> Sampling:
    """Return how tokens are chosen: greedily if nothing is said."""
    return Sampling(
        temperature=asked.temperature or 0.0,
        top_p=1.0 if asked.top_p is None else asked.top_p,
        seed=asked.seed,
    )


def stops_of(asked: CompletionRequest) -> tuple[str, ...]:
    """Return the stop strings."""
    if asked.stop is None:
        return ()
    return (asked.stop,) if isinstance(asked.stop, str) else tuple(asked.stop)


def chat_request_of(asked: CompletionRequest) -> ChatRequest:
    """Return the conversation as `/chat` takes it. Raises `UnsupportedParameter`, `InvalidConversation`."""
    return ChatRequest(messages=[_message(message, i) for i, message in enumerate(asked.messages)])


def _message(message: CompletionMessage, index: int) -> ChatMessage:
    where = f"messages.{index}"
    role = _ROLES.get(message.role)
    if role is None:
        raise UnsupportedParameter(
            f"{where}.role",
            f"Message {index} has a role that is not supported.",
            f"Use one of: {', '.join(_ROLES)}.",
        )
    for name, value in (message.model_extra or {}).items():
        if name not in _UNSAID or value:
            raise UnsupportedParameter(
                f"{where}.{name}"[:120],
                f"Message {index} has a field that is not supported.",
                "Send `role` and `content`; say in the text who speaks.",
            )
    if message.content is None:
        raise InvalidConversation(f"Message {index} is empty.", extra={"param": f"{where}.content"})
    if isinstance(message.content, str):
        return ChatMessage.model_validate({"role": role, "content": message.content})
    parts = [_part(part, f"{where}.content.{k}") for k, part in enumerate(message.content)]
    return ChatMessage.model_validate({"role": role, "content": parts})


def _part(part: Mapping[str, Any], where: str) -> Part:
    kind = part.get("type")
    if kind == "text" and isinstance(part.get("text"), str):
        return TextPart(type="text", text=part["text"])
    if kind == "image_url":
        picture = part.get("image_url")
        url = picture.get("url") if isinstance(picture, Mapping) else picture
        if isinstance(url, str):  # `detail` asks for a resolution; there is one, the vision tower's
            return ImagePart(type="image_url", image_url=ImageUrl(url=url))
    raise UnsupportedParameter(
        where,
        "A part of a message is not supported.",
        'Send {"type": "text", "text": "..."} or '
        '{"type": "image_url", "image_url": {"url": "data:image/png;base64,..."}}.',
    )
