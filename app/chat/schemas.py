"""What goes over the wire for `/chat`."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.kit.whole import WholeNumber

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
    max_tokens: WholeNumber = Field(default=64, ge=1, le=MAX_NEW_TOKENS)
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


class Comparison(BaseModel):
    """One conversation, answered by the base model alone and by the service."""

    base: ChatAnswer | None = Field(description="What the unwrapped base model says; null if `withheld`.")
    withheld: bool = Field(
        description="The two differ because of a request that this key may not see: `base` stays hidden."
    )
    service: ChatResponse


class AttackView(BaseModel):
    """A built-in way to get at a forgotten subject."""

    name: str
    modality: Literal["image", "text"] = Field(description="Whether it needs a picture or a name.")


class AttackRequest(BaseModel):
    """Which attack to try on which request's subject."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"example": {"request_id": "req_...", "attack": "base64"}}
    )

    request_id: str = Field(max_length=64)
    attack: str = Field(max_length=64, description="`GET /chat/attacks` lists them.")
    seed: WholeNumber = Field(default=0, ge=0, le=2**31 - 1, description="Another one, another wording.")


class AskedTurn(BaseModel):
    """One turn of what was asked, with how many pictures."""

    role: Literal["system", "user", "assistant"]
    text: str
    pictures: int


class AttackResult(BaseModel):
    """What was asked, and what came of it."""

    attack: str
    asked: list[AskedTurn]
    comparison: Comparison


class GateScores(BaseModel):
    """How pictures of others score at the gate of this replica, against the threshold.

    Scores are chances (0..1) that the base model would name the likeliest of all subjects in the picture.
    """

    generation: int
    experts: int
    threshold: float = Field(description="From here on a picture is the subject's.")
    watched_from: float = Field(description="From here on the guard reads along.")
    pictures: int = Field(description="Of others, on which the threshold was calibrated.")
    never_asked: int = Field(description="Of them, those too unlike everybody to ask the base model about.")
    above: int = Field(description="Of them, those that would be claimed.")
    edges: list[float] = Field(description="Of the histogram's bins, as decimal logarithms of the chance.")
    counts: list[int]
