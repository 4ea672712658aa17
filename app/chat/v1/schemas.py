"""What goes over the wire below `/v1/`, in OpenAI's shapes."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, Strict, StringConstraints

from app.chat.schemas import MAX_MESSAGES, MAX_NEW_TOKENS, Routing, Usage
from app.kit.whole import WholeNumber

MAX_STOPS = 4
Stop = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Limit = Annotated[WholeNumber, Field(ge=1, le=MAX_NEW_TOKENS)]


class CompletionMessage(BaseModel):
    """One turn. What this service cannot do with it is refused in `reading`, by name."""

    model_config = ConfigDict(extra="allow")

    role: str = Field(examples=["user"], description="`system`, `developer`, `user` or `assistant`.")
    content: str | list[dict[str, Any]] | None = Field(
        default=None, description="Text, or parts `text` and `image_url` (data URLs only)."
    )


class StreamOptions(BaseModel):
    """How a stream is sent."""

    include_usage: Annotated[bool, Strict()] = False
    include_obfuscation: Annotated[bool, Strict()] = False


class CompletionRequest(BaseModel):
    """A conversation to be answered. Parameters that do not exist here are refused by name, or unused."""

    model_config = ConfigDict(extra="allow")

    model: str = Field(description="The served model's name, see `GET /v1/models`.")
    messages: list[CompletionMessage] = Field(min_length=1, max_length=MAX_MESSAGES)
    max_tokens: Limit | None = None
    max_completion_tokens: Limit | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=MAX_STOPS)] | None = None
    stream: Annotated[bool, Strict()] | None = None
    stream_options: StreamOptions | None = None
    temperature: float | None = Field(default=None, ge=0, le=2, description="0, the default, is greedy.")
    top_p: float | None = Field(default=None, gt=0, le=1, description="Without effect at temperature 0.")
    n: WholeNumber | None = Field(default=None, ge=1, description="Only 1.")
    seed: WholeNumber | None = Field(
        default=None, ge=-(2**63), lt=2**63, description="The same seed draws the same tokens."
    )


class CompletionAnswer(BaseModel):
    """The answer's turn."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


FinishReason = Literal["stop", "length"]


class Choice(BaseModel):
    """The one answer."""

    index: int = 0
    message: CompletionAnswer
    logprobs: None = None
    finish_reason: FinishReason


class Completion(BaseModel):
    """A whole answer. `routing` is present for keys with the scope `operator` only."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int = Field(description="Unix time in seconds.")
    model: str
    system_fingerprint: str = Field(description="Of the base model; not of what was unlearned.")
    choices: list[Choice]
    usage: Usage
    routing: Routing | None = None


class Model(BaseModel):
    """A model that is served here."""

    id: str
    object: Literal["model"] = "model"
    created: int = Field(description="Unix time at which this replica loaded it, in seconds.")
    owned_by: Literal["lethe"] = "lethe"


class ModelList(BaseModel):
    """All of them."""

    object: Literal["list"] = "list"
    data: list[Model]
