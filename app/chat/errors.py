"""What a conversation can be refused for."""

from app.kit.errors import Example, InvalidInput, NotFound, Problem, ServiceUnavailable


class ConversationTooLong(Problem):
    """The conversation, its pictures and the answer do not fit into the model's context."""

    STATUS = 422
    TYPE = "conversation-too-long"
    TITLE = "Conversation too long"
    HINT = "Leave out earlier turns or pictures, or ask for fewer tokens."
    EXAMPLE = Example("Conversation and answer take 2140 tokens; the limit is 2048.")


class InvalidConversation(InvalidInput):
    """The messages cannot be read as a conversation that ends with a question."""

    TYPE = "invalid-conversation"
    TITLE = "Invalid conversation"
    HINT = "Send `messages` that end with one of role `user` with text or a picture."
    EXAMPLE = Example("The last message is not the user's.")


class EngineBusy(ServiceUnavailable):
    """The queue is full, or the engine is stopping."""

    TYPE = "engine-busy"
    TITLE = "Too many conversations at the moment"
    EXAMPLE = Example("Not answered: this replica has not loaded its experts yet.")

    def __init__(self, detail: str = "") -> None:
        super().__init__(detail, headers={"Retry-After": "2"})


class AnswerTimeout(Problem):
    """The answer was not complete within `LETHE_CHAT_TIMEOUT_SECONDS`."""

    STATUS = 504
    TYPE = "answer-timeout"
    TITLE = "The answer took too long"
    EXAMPLE = Example("Not answered: the answer was not complete after 120 s.")
    HINT = "Ask again later, or for fewer tokens."


class EngineUnavailable(ServiceUnavailable):
    """Nobody can write the answer now; what was forgotten is not told in its place."""

    TYPE = "engine-unavailable"
    TITLE = "The model cannot be reached at the moment"
    EXAMPLE = Example("Not answered: no server of the model can be asked.")

    def __init__(self, detail: str = "") -> None:
        super().__init__(detail, headers={"Retry-After": "5"})


class ModelNotFound(NotFound):
    """Another model's name; nobody else's is ever answered by this one."""

    TYPE = "model-not-found"
    TITLE = "No such model"
    HINT = "GET /v1/models lists the model that is served here."
    EXAMPLE = Example("The model does not exist here.")


class UnsupportedParameter(InvalidInput):
    """A parameter that this service does not have, or a value of it that it cannot honour."""

    TYPE = "unsupported-parameter"
    TITLE = "Parameter not supported"
    EXAMPLE = Example(
        "A temperature of 0.7 is not supported: decoding is greedy, so that an answer that concerns "
        "no removal request is the base model's own, every time.",
        "Leave `temperature` out, or set it to 0.",
        {"param": "temperature"},
    )

    def __init__(self, param: str = "", detail: str = "", hint: str = "") -> None:
        super().__init__(detail, hint or f"Leave `{param}` out.", extra={"param": param})


class UnknownAttack(NotFound):
    """There is no built-in attack of this name."""

    TYPE = "unknown-attack"
    TITLE = "No such attack"
    HINT = "`GET /chat/attacks` lists them."
    EXAMPLE = Example("There is no attack 'hypnosis'.")


class AttackNotPossible(InvalidInput):
    """The attack needs something that is not known of the request's subject."""

    TYPE = "attack-not-possible"
    TITLE = "The attack cannot be made"
    HINT = "Try another one, or a request with a name and pictures that are still kept."
    EXAMPLE = Example("`name_in_picture` needs a name.")
