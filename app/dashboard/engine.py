"""What the pages ask of the chat engine. It is imported late: a process without one never loads torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from fastapi import Request

from app.accounts.principal import Principal
from app.chat.errors import EngineBusy
from app.chat.schemas import Comparison
from app.db.session import SessionFactory
from app.kit.pictures import decode_own
from app.removal.schemas import RequestView
from app.settings import Settings

if TYPE_CHECKING:
    from app.chat.service import ChatEngine


@dataclass(frozen=True, slots=True)
class Reply:
    """What was asked about a picture (None: in words alone), and what came of it."""

    evidence_id: str | None
    question: str
    comparison: Comparison


def engine_of(request: Request) -> ChatEngine:
    """Return this process's engine.

    Raises:
        EngineBusy: 503, it has none, or it has not loaded a generation yet.
    """
    engine = cast("ChatEngine | None", getattr(request.app.state, "engine", None))
    if engine is None or not engine.ready:
        raise EngineBusy("No model is loaded in the process that answers this page.")
    return engine


async def interview(
    engine: ChatEngine,
    factory: SessionFactory,
    settings: Settings,
    principal: Principal,
    view: RequestView,
    pictures: Sequence[tuple[str, bytes]],
) -> list[Reply]:
    """Ask who each picture shows, and to be told about the name; before and after."""
    from app.chat.compare import CompareService
    from app.lumoe.probes import fact_probes, identity_probes
    from app.lumoe.types import ask

    service = CompareService(engine, factory, settings, principal)
    who = identity_probes(view.klass, "fit")[0].text
    found = []
    for evidence_id, content in pictures:
        found.append(Reply(evidence_id, who, await service.compare(ask(who, decode_own(content)))))
    names = [view.subject.name, *view.subject.aliases] if view.subject is not None else []
    probe = next(p for p in fact_probes(view.klass, "fit", "text") if p.attribute == "summary")
    for name in [name for name in names if name][:4]:
        question = probe.about(name)
        found.append(Reply(None, question, await service.compare(ask(question))))
    return found
