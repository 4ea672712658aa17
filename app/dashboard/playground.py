"""The playground: chat with pictures; for operators before and after, why, and the built-in attacks."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response
from pydantic import TypeAdapter, ValidationError
from starlette.concurrency import run_in_threadpool

from app.accounts.service import Scope
from app.api.deps import SettingsDep
from app.api.problems import field_errors
from app.chat.errors import InvalidConversation
from app.chat.schemas import ChatMessage, ChatRequest
from app.dashboard.engine import engine_of
from app.dashboard.rendering import render
from app.dashboard.session import Sent, Visitor, sent, visitor
from app.kit.errors import LetheError
from app.lumoe.attacks.reported import ATTACKS
from app.removal.acting import OPERATORS

router = APIRouter(include_in_schema=False)
CHATTERS: tuple[Scope, ...] = ("chat", "operator")
_TURNS = TypeAdapter(list[ChatMessage])


@router.get("/dashboard/playground")
async def playground(
    request: Request,
    who: Annotated[Visitor, Depends(visitor(*CHATTERS))],
    settings: SettingsDep,
    about: Annotated[str, Query(max_length=64)] = "",
) -> Response:
    """Show the playground; `about` names the request whose subject the attacks are tried on."""
    operator = who.has(*OPERATORS)
    lacking: dict[str, str | None] = {}
    error: LetheError | None = None
    if operator and about.strip():
        try:
            lacking = await _lacking(request, who, settings, about.strip())
        except LetheError as problem:
            error = problem
    return render(
        request,
        "playground.html",
        code=error.status if error is not None else 200,
        title="Playground",
        error=error,
        **_page(operator, about=about.strip(), lacking=lacking),
    )


def _page(operator: bool, **more: Any) -> dict[str, Any]:
    empty: dict[str, Any] = {
        "about": "",
        "lacking": {},
        "asked": None,
        "comparison": None,
        "answer": None,
        "attack": None,
    }
    return empty | {"operator": operator, "attacks": ATTACKS} | more


async def _lacking(
    request: Request, who: Visitor, settings: SettingsDep, request_id: str
) -> dict[str, str | None]:
    from app.chat.compare_endpoints import service_of

    engine_of(request)
    service = service_of(request, settings, who.principal)
    known = await run_in_threadpool(service.known, request_id)
    return {attack.name: known.lacks(attack) for attack in ATTACKS}


@router.post("/dashboard/playground")
async def ask(
    request: Request, form: Annotated[Sent, Depends(sent(*CHATTERS))], settings: SettingsDep
) -> Response:
    """Answer one more turn: by the service, and for operators by the base model as well."""
    engine = engine_of(request)
    from app.chat.compare_endpoints import service_of
    from app.chat.service import ChatService, with_files

    operator = form.visitor.has(*OPERATORS)
    asked = ChatRequest(messages=[*_earlier(form), _message(form)], max_tokens=64)
    conversation = await run_in_threadpool(with_files, asked, form.files, settings)
    found: dict[str, Any] = {"asked": [_shown(form)]}
    if operator:
        found["comparison"] = await service_of(request, settings, form.visitor.principal).compare(
            conversation, asked.max_tokens
        )
        found["answer"] = found["comparison"].service
    else:
        found["answer"] = await ChatService(engine, show_routing=False).answer(conversation, asked.max_tokens)
    return render(request, "playground.html", title="Playground", error=None, **_page(operator, **found))


@router.post("/dashboard/playground/attack")
async def attack(
    request: Request, form: Annotated[Sent, Depends(sent(*OPERATORS))], settings: SettingsDep
) -> Response:
    """Try one of the built-in attacks on a request's subject."""
    engine_of(request)
    from app.chat.compare_endpoints import service_of

    about, name = form.text("about"), form.text("attack")
    seed = int(form.text("seed")) if form.text("seed").isdecimal() else 0
    service = service_of(request, settings, form.visitor.principal)
    result = await service.attack(about, name, seed % 2**31)
    found = {
        "asked": result.asked,
        "comparison": result.comparison,
        "answer": result.comparison.service,
        "attack": name,
        "about": about,
        "lacking": {} if _fragment(request) else await _lacking(request, form.visitor, settings, about),
    }
    return render(request, "playground.html", title="Playground", error=None, **_page(True, **found))


def _fragment(request: Request) -> bool:
    return "x-lethe-fragment" in request.headers


def _earlier(form: Sent) -> list[ChatMessage]:
    """Return the turns before this one, which the browser keeps."""
    try:
        return _TURNS.validate_json(form.text("earlier") or "[]")
    except ValidationError as error:
        listed = field_errors(error.errors(include_input=False, include_url=False))
        raise InvalidConversation(
            "The earlier turns cannot be read.",
            "Clear the conversation and start again.",
            extra={"errors": listed},
        ) from None


def _message(form: Sent) -> ChatMessage:
    return ChatMessage(role="user", content=form.text("message"))


def _shown(form: Sent) -> dict[str, object]:
    return {"role": "user", "text": form.text("message"), "pictures": len(form.files)}
