"""HTTP for operators: before and after, the built-in attacks, and the gate's scores."""

from typing import Annotated, cast

from fastapi import APIRouter, Depends, Request
from starlette.concurrency import run_in_threadpool

from app.accounts.principal import Principal
from app.api.deps import SettingsDep, require
from app.api.problems import responses
from app.chat.compare import CompareService, gate_scores
from app.chat.errors import (
    AnswerTimeout,
    AttackNotPossible,
    ConversationTooLong,
    EngineBusy,
    InvalidConversation,
    UnknownAttack,
)
from app.chat.schemas import AttackRequest, AttackResult, AttackView, ChatRequest, Comparison, GateScores
from app.chat.service import ChatEngine, conversation_of
from app.db.session import SessionFactory
from app.kit.pictures import PictureInvalid, PictureTooLarge, PictureTooManyPixels
from app.lumoe.attacks.reported import ATTACKS
from app.removal.errors import EvidenceGone, RequestNotFound
from app.settings import Settings

router = APIRouter()
_OPERATORS = Depends(require("operator"))
Operators = Annotated[Principal, _OPERATORS]


@router.post(
    "/chat/compare",
    summary="Before and after",
    responses=responses(
        InvalidConversation, ConversationTooLong, PictureInvalid, PictureTooLarge, PictureTooManyPixels,
        EngineBusy, AnswerTimeout,
    ),
)  # fmt: skip
async def compare(
    request: Request, settings: SettingsDep, principal: Operators, body: ChatRequest
) -> Comparison:
    """Answer a conversation twice: by the base model alone, and by the service, with its routing.

    The base model's answer is withheld where the two differ because of another tenant's request.
    `stream` is ignored.
    """
    conversation = await run_in_threadpool(conversation_of, body, settings)
    return await service_of(request, settings, principal).compare(conversation, body.max_tokens)


@router.get("/chat/attacks", summary="Built-in attacks", dependencies=[_OPERATORS], responses=responses())
def list_attacks() -> list[AttackView]:
    """List the attacks of which verification reports what they gained; no expert is trained with them."""
    return [AttackView(name=attack.name, modality=attack.modality) for attack in ATTACKS]


@router.post(
    "/chat/attacks",
    summary="Try an attack",
    responses=responses(
        RequestNotFound, UnknownAttack, AttackNotPossible, EvidenceGone, EngineBusy, AnswerTimeout
    ),
)
async def try_attack(
    request: Request, settings: SettingsDep, principal: Operators, body: AttackRequest
) -> AttackResult:
    """Try one attack on a request's subject, whose name or picture is decrypted for it; this is audited."""
    service = service_of(request, settings, principal)
    return await service.attack(body.request_id, body.attack, body.seed)


@router.get(
    "/chat/gate", summary="The gate's scores", dependencies=[_OPERATORS], responses=responses(EngineBusy)
)
def get_gate_scores(request: Request) -> GateScores:
    """Return how pictures of others score at the gate of the replica that answers, and its threshold."""
    return gate_scores(cast("ChatEngine", request.app.state.engine))


def service_of(request: Request, settings: Settings, principal: Principal) -> CompareService:
    """Return the service on this replica's engine, for whoever asks."""
    engine = cast("ChatEngine", request.app.state.engine)
    sessions = cast("SessionFactory", request.app.state.session_factory)
    return CompareService(engine, sessions, settings, principal)
