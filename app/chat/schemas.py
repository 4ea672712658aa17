"""What goes over the wire for `/chat`."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

MAX_MESSAGES = 64
MAX_NEW_TOKENS = 1024


class TextPart(BaseModel):
    """A piece of text."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["text"]
    text: str


class ImageUrl(BaseModel):
    """A picture as a base64 data URL; addresses are never fetched."""

    url: str = Field(examples=["data:image/png;base64,iVBORw0KGgo..."])


class ImagePart(BaseModel):
    """A picture."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["image_url"]
    image_url: ImageUrl


Part = Annotated[TextPart | ImagePart, Field(discriminator="type")]


class ChatMessage(BaseModel):
    """One turn. Pictures belong to user turns."""

    model_config = ConfigDict(extra="forbid")

    role: Literal["system", "user", "assistant"]
    content: str | list[Part]


class ChatRequest(BaseModel):
    """A conversation to be answered."""

    model_config = ConfigDict(extra="forbid")

    messages: list[ChatMessage] = Field(min_length=1, max_length=MAX_MESSAGES)
    max_tokens: int = Field(default=64, ge=1, le=MAX_NEW_TOKENS, strict=True)
    stream: bool = Field(default=False, strict=True)


class ChatAnswer(BaseModel):
    """The answer's turn."""

    role: Literal["assistant"] = "assistant"
    content: str


class Usage(BaseModel):
    """Token counts; a picture counts as many tokens as the model reads for it."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class RoutingEvidence(BaseModel):
    """One reason for or against an expert."""

    expert_id: str
    kind: Literal["name", "picture", "likeness", "description", "held"]
    strength: Literal["strong", "weak"]
    score: float
    threshold: float | None
    turn: int


class Routing(BaseModel):
    """Who answered and why; only for keys with the scope `operator`."""

    expert_id: str | None = Field(description="The expert that the gate chose; null for the base model.")
    answered_by: str | None = Field(description="Who wrote the text that was sent, after the guard.")
    generation: int
    guarded: bool = Field(description="Whether the output guard discarded a first answer.")
    evidence: list[RoutingEvidence]


FinishReason = Literal["stop", "length", "cancelled"]


class ChatResponse(BaseModel):
    """A whole answer. `routing` is present for operators only."""

    id: str
    model: str
    message: ChatAnswer
    finish_reason: FinishReason
    usage: Usage
    routing: Routing | None = None
