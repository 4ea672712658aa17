"""`POST /v1/chat/completions` and `GET /v1/models`."""

import json
import time
from typing import Annotated, Any, cast

from fastapi import APIRouter, Depends, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import ValidationError

from app.accounts.principal import Principal
from app.api.deps import SettingsDep, require
from app.api.described import inline_schema
from app.api.envelope import envelope, envelope_responses
from app.api.problems import ALWAYS
from app.chat.errors import (
    AnswerTimeout,
    ConversationTooLong,
    EngineBusy,
    EngineUnavailable,
    InvalidConversation,
    ModelNotFound,
    UnsupportedParameter,
)
from app.chat.frames import Event, answer_stream, unless_gone
from app.chat.schemas import ChatResponse
from app.chat.service import ChatEngine, ChatService, read_conversation, served_name
from app.chat.v1.reading import chat_request_of, check_parameters, limit_of, sampling_of, stops_of
from app.chat.v1.schemas import (
    Choice,
    Completion,
    CompletionAnswer,
    CompletionRequest,
    FinishReason,
    Model,
    ModelList,
)
from app.kit.errors import BadRequest, UnsupportedMediaType
from app.kit.ids import new_id
from app.kit.pictures import PictureInvalid, PictureTooLarge, PictureTooManyPixels

router = APIRouter(prefix="/v1", tags=["openai"])
Caller = Annotated[Principal, Depends(require("chat", "operator"))]


class Reply:
    """What all of one answer's frames have in common."""

    def __init__(self, engine: ChatEngine, *, include_usage: bool) -> None:
        self._head: dict[str, Any] = {
            "id": new_id("chatcmpl"),
            "created": int(time.time()),
            "model": served_name(engine),
            "system_fingerprint": f"fp_{engine.mllm.fingerprint[:12]}",
        }
        self._include_usage = include_usage
        self._begun = False

    def whole(self, answer: ChatResponse) -> Completion:
        """Return the answer in one piece."""
        choice = Choice(
            message=CompletionAnswer(content=answer.message.content), finish_reason=_finish_reason(answer)
        )
        return Completion(**self._head, choices=[choice], usage=answer.usage, routing=answer.routing)

    def frames(self, event: Event) -> list[str]:
        """Return the chunks that an event of the answer becomes."""
        begin = [] if self._begun else [self._chunk({"role": "assistant", "content": ""})]
        self._begun = True
        if isinstance(event, str):
            return [*begin, self._chunk({"content": event})]
        routing = {"routing": event.routing.model_dump()} if event.routing is not None else {}
        last = self._chunk({}, _finish_reason(event), **routing)
        usage = [self._frame([], usage=event.usage.model_dump())] if self._include_usage else []
        return [*begin, last, *usage]

    def _chunk(self, delta: dict[str, str], finish_reason: FinishReason | None = None, **more: object) -> str:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return self._frame([choice], **({"usage": None} if self._include_usage else {}), **more)

    def _frame(self, choices: list[dict[str, object]], **more: object) -> str:
        frame = {**self._head, "object": "chat.completion.chunk", "choices": choices, **more}
        return json.dumps(frame, ensure_ascii=False)


@router.post(
    "/chat/completions",
    response_model=Completion,
    summary="Ask the model, in OpenAI's shapes",
    responses={
        200: {
            "description": "The answer; with `stream` chunks as server-sent events, ended by `[DONE]`.",
            "content": {"text/event-stream": {}},
        },
        **envelope_responses(
            UnsupportedParameter,
            ModelNotFound,
            InvalidConversation,
            ConversationTooLong,
            PictureInvalid,
            PictureTooLarge,
            PictureTooManyPixels,
            BadRequest,
            UnsupportedMediaType,
            EngineBusy,
            EngineUnavailable,
            AnswerTimeout,
            *ALWAYS,
        ),
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": inline_schema(CompletionRequest)}},
        }
    },
)
async def completions(request: Request, settings: SettingsDep, principal: Caller) -> Response:
    """Answer a conversation with pictures, through the same gate, experts and guard as `/chat`.

    Pictures are data URLs; addresses are never fetched. `temperature` is 0 if left out: decoding is greedy,
    so that an answer which concerns no removal request is the base model's own, every time. With another
    one, `top_p` and `seed` count, and the guard reads what is drawn; refusals are never drawn. What cannot be
    honoured is refused by name. `stop` ends the answer after the guard has read it. With `stream` a failure
    on the way comes as `{"error": ...}` before `[DONE]`. Keys with the scope `operator` find `routing` beside
    `choices`, in a stream beside the `finish_reason`.
    """
    asked = await _read(request)
    engine = cast("ChatEngine", request.app.state.engine)
    if asked.model != served_name(engine):
        raise ModelNotFound("The model does not exist here.", extra={"param": "model"})
    check_parameters(asked)
    limit, stops, sampling = limit_of(asked), stops_of(asked), sampling_of(asked)
    conversation = await read_conversation(chat_request_of(asked), settings)
    service = ChatService(engine, show_routing="operator" in principal.scopes, asker=principal.key_id)
    options = asked.stream_options
    reply = Reply(engine, include_usage=options is not None and options.include_usage)
    if asked.stream:
        events = service.stream(conversation, limit, stops, sampling)
        return await answer_stream(request, events, reply.frames, envelope)
    answer = await unless_gone(request, service.answer(conversation, limit, stops, sampling))
    found = reply.whole(answer)
    hidden = {"routing"} if found.routing is None else None
    return Response(found.model_dump_json(exclude=hidden), media_type="application/json")


@router.get("/models", summary="The model that is served", responses=envelope_responses(*ALWAYS))
def models(request: Request, _: Caller) -> ModelList:
    """List the one model that this service stands in front of; experts are no models of their own."""
    return ModelList(data=[_model(request)])


@router.get(
    "/models/{model_id:path}",
    summary="One model",
    responses=envelope_responses(ModelNotFound, *ALWAYS),
)
def model(request: Request, model_id: str, _: Caller) -> Model:
    """Return the served model, or 404 for any other name."""
    found = _model(request)
    if model_id != found.id:
        raise ModelNotFound("The model does not exist here.", extra={"param": "model"})
    return found


def _model(request: Request) -> Model:
    engine = cast("ChatEngine", request.app.state.engine)
    return Model(id=served_name(engine), created=int(engine.started_at.timestamp()))


def _finish_reason(answer: ChatResponse) -> FinishReason:
    return "length" if answer.finish_reason == "length" else "stop"


async def _read(request: Request) -> CompletionRequest:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise UnsupportedMediaType(f"The content type is {kind or 'missing'}.", "Send application/json.")
    try:
        return CompletionRequest.model_validate_json(await request.body())
    except ValidationError as error:
        listed = error.errors(include_url=False, include_input=False, include_context=False)
        if any(problem["type"] == "json_invalid" for problem in listed):
            raise BadRequest(f"The body is not JSON: {listed[0]['msg']}.") from None
        raise RequestValidationError(listed) from None
