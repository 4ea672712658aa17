"""`POST /chat`."""

import json
from typing import Annotated, Any, cast

from fastapi import APIRouter, Depends, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile

from app.accounts.principal import Principal
from app.api.deps import SettingsDep, require
from app.api.described import inline_schema
from app.api.problems import responses
from app.chat.compare_endpoints import router as compare_router
from app.chat.errors import (
    AnswerTimeout,
    ConversationTooLong,
    EngineBusy,
    EngineUnavailable,
    InvalidConversation,
)
from app.chat.frames import answer_stream, unless_gone
from app.chat.schemas import MAX_NEW_TOKENS, ChatMessage, ChatRequest, ChatResponse
from app.chat.service import ChatEngine, ChatService, read_conversation, with_files
from app.chat.v1.endpoints import router as v1_router
from app.kit.errors import BadRequest, UnsupportedMediaType
from app.kit.pictures import PictureInvalid, PictureTooLarge, PictureTooManyPixels
from app.lumoe.types import Conversation
from app.settings import Settings

router = APIRouter(tags=["chat"])
router.include_router(v1_router)
router.include_router(compare_router)

_BODY = {
    "required": True,
    "content": {
        "application/json": {"schema": inline_schema(ChatRequest)},
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {
                    "message": {"type": "string", "description": "The question; without one, pictures."},
                    "pictures": {"type": "array", "items": {"type": "string", "format": "binary"}},
                    "messages": {"type": "string", "description": "Earlier turns, as JSON."},
                    "max_tokens": {"type": "integer", "minimum": 1, "maximum": MAX_NEW_TOKENS},
                    "stream": {"type": "boolean", "default": False},
                },
            }
        },
    },
}


@router.post(
    "/chat",
    response_model=ChatResponse,
    response_model_exclude_none=True,
    summary="Ask the model",
    responses={
        200: {
            "description": "The answer; with `stream` a sequence of server-sent events.",
            "content": {"text/event-stream": {}},
        },
        **responses(
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
        ),
    },
    openapi_extra={"requestBody": _BODY},
)
async def chat(
    request: Request,
    settings: SettingsDep,
    principal: Annotated[Principal, Depends(require("chat", "operator"))],
) -> Response:
    """Answer a conversation with pictures, as JSON (data URLs) or multipart (files).

    With `stream` the answer comes as server-sent events: `{"delta": "..."}` as often as text may leave, then
    the whole response without its text under `response`, then `[DONE]`. If something fails on the way, the
    problem document comes under `error` before `[DONE]`.
    """
    asked, conversation = await _read(request, settings)
    engine = cast("ChatEngine", request.app.state.engine)
    service = ChatService(engine, show_routing="operator" in principal.scopes, asker=principal.key_id)
    if asked.stream:
        events = service.stream(conversation, asked.max_tokens)
        return await answer_stream(request, events, _frame, lambda error: {"error": error.problem()})
    answer = await unless_gone(request, service.answer(conversation, asked.max_tokens))
    return Response(answer.model_dump_json(exclude=_hidden(answer)), media_type="application/json")


def _frame(event: str | ChatResponse) -> list[str]:
    if isinstance(event, str):
        return [json.dumps({"delta": event}, ensure_ascii=False)]
    return [json.dumps({"response": event.model_dump(exclude={"message"} | _hidden(event))})]


def _hidden(answer: ChatResponse) -> set[str]:
    """Return what has no place in this key's answer; a null within `routing` says something."""
    return set() if answer.routing is not None else {"routing"}


async def _read(request: Request, settings: Settings) -> tuple[ChatRequest, Conversation]:
    """Return the request and its decoded conversation, from JSON or multipart."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        asked = _validated(await request.body())
        return asked, await read_conversation(asked, settings)
    if kind == "multipart/form-data":
        async with request.form(max_files=settings.max_pictures + 1, max_fields=16) as form:
            files = [
                await value.read() for value in form.getlist("pictures") if isinstance(value, UploadFile)
            ]
            given = [(key, value) for key, value in form.multi_items() if isinstance(value, str)]
        fields = dict(given)
        if len(fields) < len(given):
            raise InvalidConversation("A field of the form was given twice.", "Give every field once.")
        if fields.get("pictures"):
            raise InvalidConversation("`pictures` is text.", "Send each picture as a file of the form.")
        asked = _validated(_form_json(fields))
        return asked, await run_in_threadpool(with_files, asked, files, settings)
    raise UnsupportedMediaType(
        f"The content type is {kind or 'missing'}.", "Send application/json or multipart/form-data."
    )


def _form_json(fields: dict[str, str]) -> bytes:
    """Turn the form's fields into the JSON form's body; the files join the last message later."""
    try:
        earlier: Any = json.loads(fields.get("messages") or "[]")
    except ValueError as error:
        raise BadRequest(
            f"The field `messages` is not JSON: {error}.", "Send earlier turns as a JSON list."
        ) from error
    if not isinstance(earlier, list):
        raise InvalidConversation("The field `messages` is not a list.", "Send earlier turns as a JSON list.")
    last = ChatMessage(role="user", content=fields.get("message", "")).model_dump()
    options: dict[str, Any] = {key: fields[key] for key in ("max_tokens", "stream") if key in fields}
    for key, text in options.items():  # a form holds nothing but text; what is no number or truth stays it
        if text in ("true", "false") or (text.isascii() and text.isdecimal()):
            options[key] = json.loads(text.lstrip("0") or "0")
    return json.dumps({"messages": [*earlier, last], **options}).encode()


def _validated(body: bytes) -> ChatRequest:
    try:
        return ChatRequest.model_validate_json(body)
    except ValidationError as error:
        listed = error.errors(include_url=False, include_input=False, include_context=False)
        if any(problem["type"] == "json_invalid" for problem in listed):
            raise BadRequest(f"The body is not JSON: {listed[0]['msg']}.") from None
        raise RequestValidationError(listed) from None
