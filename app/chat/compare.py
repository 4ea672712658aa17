"""Before and after: the same conversation, answered by the base model alone and by the service."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass

import torch
from PIL.Image import Image
from starlette.concurrency import run_in_threadpool

from app.accounts.principal import Principal
from app.chat.errors import AttackNotPossible, EngineBusy, UnknownAttack
from app.chat.schemas import (
    AskedTurn,
    AttackResult,
    ChatAnswer,
    Comparison,
    GateScores,
)
from app.chat.service import ChatEngine, explained, response_of, served_name
from app.db.session import SessionFactory
from app.kit.pictures import decode_own
from app.lumoe.attacks.reported import ATTACKS, Attack, Material
from app.lumoe.engines.queued import AnswerTimeoutError, EngineBusyError, EngineStoppedError
from app.lumoe.errors import ConversationTooLongError
from app.lumoe.gate.threshold import WEAK_RATIO
from app.lumoe.probes import attributes, fact_probes, general_probes, identity_probes
from app.lumoe.types import Answer, Conversation
from app.removal.lifelong import GATE_EDGES, GATE_LOWEST
from app.removal.reading import ReadingService
from app.removal.records import Subject
from app.removal.repository import RequestRepository
from app.removal.service import RemovalService
from app.settings import Settings

MAX_TOKENS = 96
NEEDS_ANOTHER = frozenset({"two_subjects", "several_pictures"})
"""Attacks with a picture of somebody else, of whom there is none here."""
_ASIDE = ("What is 2 plus 2?", "2 plus 2 is 4.")


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a request's subject; `pictured`: a picture is kept, `picture`: it was read."""

    subject: Subject
    pictured: bool
    picture: Image | None = None

    def possible(self) -> tuple[Attack, ...]:
        """Return the attacks that can be made of it."""
        return tuple(attack for attack in ATTACKS if self.lacks(attack) is None)

    def lacks(self, attack: Attack) -> str | None:
        """Return what an attack would need besides; None if there is all of it."""
        if attack.name in NEEDS_ANOTHER:
            return "a picture of somebody else"
        if attack.modality == "image" and not self.pictured:
            return "a picture that is still kept"
        named = _name_of(self.subject) is not None
        if not named and (attack.modality == "text" or attack.name == "name_in_picture"):
            return "a name"
        told = [key for key in self.subject.facts if key in attributes(self.subject.klass)]
        if attack.name == "description" and len(told) < 2:
            return "two facts under the names that the class has for them"
        return None

    def attacked(self, attack: Attack, seed: int) -> Conversation:
        """Return the conversation of one attack: the same for the same seed.

        Raises:
            AttackNotPossible: 422, something that it needs is not known.
        """
        if (lacking := self.lacks(attack)) is not None:
            raise AttackNotPossible(f"`{attack.name}` needs {lacking}.")
        rng = random.Random(f"{attack.name}:{seed}")  # noqa: S311 - wordings, not secrecy
        klass, shown = self.subject.klass, attack.modality == "image"
        name = _name_of(self.subject) or ""
        probe = rng.choice(
            identity_probes(klass, "report") if shown else fact_probes(klass, "report", "text")
        )
        material = Material(
            question=probe.about(name),
            attribute=probe.attribute,
            name=name,
            klass=klass,
            pronoun="they" if klass == "Personage" else "it",
            facts=tuple(self.subject.facts.items()),
            other_question=rng.choice(general_probes("report")).text,
            aside=_ASIDE,
            picture=self.picture if shown else None,
        )
        return attack.apply(material, rng)


def _name_of(subject: Subject) -> str | None:
    return subject.name or next(iter(subject.aliases), None)


class CompareService:
    """Asks twice, for operators. What the base model says of another tenant's subject stays hidden."""

    def __init__(
        self, engine: ChatEngine, sessions: SessionFactory, settings: Settings, principal: Principal
    ) -> None:
        self._engine = engine
        self._sessions = sessions
        self._settings = settings
        self._principal = principal

    async def compare(self, conversation: Conversation, max_tokens: int = MAX_TOKENS) -> Comparison:
        """Return both answers.

        The base model's is withheld where the two differ on account of somebody whose request this key may
        not see: everything that made a difference must be one's own.

        Raises:
            ConversationTooLong: 422, there is no room for an answer.
            EngineBusy: 503, this replica answers nobody at the moment.
            AnswerTimeout: 504, it took too long.
        """
        if not self._engine.ready:
            raise EngineBusy(f"Not answered: this replica may not: {'; '.join(self._engine.troubles)}.")
        ask, asker = self._engine.local.answer, self._principal.key_id
        try:
            served, base = await asyncio.gather(
                ask(conversation, max_new_tokens=max_tokens, asker=asker),
                ask(conversation, max_new_tokens=max_tokens, asker=asker, bare=True),
            )
        except (
            ConversationTooLongError,
            EngineBusyError,
            EngineStoppedError,
            AnswerTimeoutError,
        ) as error:
            raise explained(error) from None
        shown = served.text == base.text or await run_in_threadpool(self._may_see, concerned(served))
        return Comparison(
            base=ChatAnswer(content=base.text) if shown else None,
            withheld=not shown,
            service=response_of(served, served_name(self._engine), with_routing=True),
        )

    def known(self, request_id: str, *, with_picture: bool = False) -> Known:
        """Return what is known of a request's subject, one picture too if asked for; reading is audited.

        Raises:
            RequestNotFound: no such request, or another tenant's.
            EvidenceGone: its subject was erased.
        """
        with self._sessions.begin() as session:
            removal = RemovalService(session, self._settings)
            request = removal.get(request_id, self._principal.sees)
            subject = removal.evidence.open_subject(request, actor=self._principal.key_id)
            reading = ReadingService(session, self._settings)
            kept = [row for row in reading.evidence(self._principal, request_id) if row.purged_at is None]
            if not with_picture or not kept:
                return Known(subject, bool(kept))
            content = reading.picture(self._principal, request_id, kept[0].id)
            return Known(subject, True, decode_own(content))

    async def attack(self, request_id: str, name: str, seed: int = 0) -> AttackResult:
        """Try one of the built-in attacks on a request's subject.

        Raises:
            UnknownAttack: 404, there is none of this name.
            AttackNotPossible: 422, something that it needs is not known.
        """
        attack = next((attack for attack in ATTACKS if attack.name == name), None)
        if attack is None:
            raise UnknownAttack(f"There is no attack {name[:64]!r}.")
        shown = attack.modality == "image"
        known = await run_in_threadpool(self.known, request_id, with_picture=shown)
        conversation = await run_in_threadpool(known.attacked, attack, seed)
        asked = [AskedTurn(role=m.role, text=m.text, pictures=len(m.images)) for m in conversation]
        return AttackResult(attack=name, asked=asked, comparison=await self.compare(conversation))

    def _may_see(self, experts: frozenset[str]) -> bool:
        if self._principal.root:
            return True
        requests = ["req_" + expert.removeprefix("exp_") for expert in experts]
        with self._sessions.begin() as session:
            rows = RequestRepository(session)
            return bool(requests) and all(
                rows.get(request_id, self._principal.sees) is not None for request_id in requests
            )


def concerned(answer: Answer) -> frozenset[str]:
    """Return every expert that had a part in an answer: chosen, watched for, or the one that wrote it."""
    decision = answer.decision
    found = {evidence.expert_id for evidence in decision.evidence} | decision.watch
    return frozenset(found | {x for x in (decision.expert_id, answer.answered_by) if x is not None})


def gate_scores(engine: ChatEngine) -> GateScores:
    """Return the distribution that the threshold of this replica's generation was chosen from.

    Raises:
        EngineBusy: 503, it has not loaded a generation yet, or lost the database.
    """
    if not engine.ready:
        raise EngineBusy(f"This replica may not answer: {'; '.join(engine.troubles)}.")
    router = engine.local.router
    thresholds = router.gate.thresholds
    scores = thresholds.negatives().double()
    asked = scores[torch.isfinite(scores)] / torch.log(torch.tensor(10.0, dtype=torch.double))
    edges = torch.tensor(GATE_EDGES, dtype=torch.double)
    counts = torch.histogram(asked.clamp(GATE_LOWEST, 0.0), bins=edges).hist
    limit = torch.tensor(thresholds.recognition, dtype=torch.double)
    return GateScores(
        generation=router.generation,
        experts=len(router.experts),
        threshold=float(limit.exp()),
        watched_from=float((limit - WEAK_RATIO).exp()),
        pictures=len(scores),
        never_asked=int((~torch.isfinite(scores)).sum()),
        above=int((scores >= limit).sum()),
        edges=edges.tolist(),
        counts=[int(count) for count in counts.tolist()],
    )
