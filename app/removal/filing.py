"""Filing a request: checks, idempotency, and linking to an earlier request for the same subject."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy.orm import Session

from app.accounts.principal import Principal
from app.db.models import Evidence, IdempotencyKey, RemovalRequest
from app.db.repository import lock_named, try_lock_named
from app.kit.canonical import JsonValue, json_sha256
from app.kit.clock import utcnow
from app.kit.errors import Problem
from app.kit.ids import new_id
from app.kit.names import canonical_name, control_character, has_letters
from app.kit.pictures import Picture, read_picture
from app.removal.errors import (
    IdempotencyInFlight,
    IdempotencyKeyReused,
    InvalidText,
    NothingToGoBy,
    TextTooLong,
    TooManyPictures,
    UnknownClass,
)
from app.removal.records import CLASSES, Subject
from app.removal.repository import IdempotencyRepository
from app.removal.schemas import Accepted, Links, Submission
from app.removal.service import RemovalService
from app.removal.states import Event, State
from app.settings import Settings

MAX_NAME = 200
AUTO = "policy:auto"
"""Who approves where the policy asks for no review."""
_CLASS_BY_NAME = {canonical_name(klass): klass for klass in CLASSES}


@dataclass(frozen=True, slots=True)
class Filed:
    """The answer to a filing: 202, where to look, and the body."""

    status: int
    location: str
    body: dict[str, JsonValue]


def read_pictures(sources: Sequence[bytes | str], settings: Settings) -> list[Picture]:
    """Check and decode pictures.

    Raises:
        TooManyPictures: more than `max_pictures`; none is decoded then.
        PictureInvalid, PictureTooLarge: as `read_picture`, naming which one.
    """
    if len(sources) > settings.max_pictures:
        raise TooManyPictures(
            f"There are {len(sources)} pictures; the limit is {settings.max_pictures}.",
            "Send fewer; a handful of different views is plenty.",
        )
    pictures = []
    for number, source in enumerate(sources, start=1):
        try:
            pictures.append(read_picture(source, settings))
        except Problem as error:
            error.extra["picture"] = number
            raise
    return pictures


def checked_subject(submission: Submission, settings: Settings) -> Subject:
    """Return the subject of a submission whose every text is fit to be kept.

    Raises:
        UnknownClass, InvalidText, TextTooLong: 422, with a hint each.
    """
    klass = _CLASS_BY_NAME.get(canonical_name(submission.klass))
    if klass is None:
        raise UnknownClass(
            "The class is none of the known ones.",
            f"Use one of: {', '.join(CLASSES)} (in any case).",
            extra={"classes": list(CLASSES)},
        )
    name = (submission.name or "").strip() or None
    aliases = tuple(dict.fromkeys(alias.strip() for alias in submission.aliases if alias.strip()))
    texts = {
        "name": name or "",
        "note": submission.note,
        "requester": submission.requester,
        **{f"aliases.{i}": alias for i, alias in enumerate(aliases)},
        **{f"facts.{i}": f"{k}: {v}" for i, (k, v) in enumerate(submission.facts.items())},
    }
    total = sum(len(text) for text in texts.values())
    for field, text in texts.items():
        named = field == "name" or field.startswith("aliases")
        _check_text(field, text, MAX_NAME if named else settings.max_text_chars)
        if named and text and not has_letters(text):
            raise InvalidText(
                f"`{field}` has no letter and no digit.",
                "Write the name as people write it, in any script; leave it out if there is none.",
                extra={"field": field},
            )
    if total > settings.max_text_chars:
        raise TextTooLong(
            f"The texts have {total:,} characters together; the limit is {settings.max_text_chars:,}.",
            "Shorten the note or the facts.",
        )
    facts = {key.strip(): value.strip() for key, value in submission.facts.items() if key.strip()}
    return Subject(name, aliases, klass, submission.note, facts, submission.requester)


def _check_text(field: str, text: str, limit: int) -> None:
    if len(text) > limit:
        raise TextTooLong(
            f"`{field}` has {len(text):,} characters; the limit is {limit:,}.",
            "Shorten it; further names go into `aliases`, remarks into `note`.",
            extra={"field": field},
        )
    bad = control_character(text)
    if bad is not None:
        raise InvalidText(
            f"`{field}` contains the control character {bad}.",
            "Send plain text without control characters.",
            extra={"field": field},
        )


class FilingService:
    """Files requests within the caller's transaction."""

    def __init__(self, session: Session, settings: Settings) -> None:
        self._session = session
        self._settings = settings
        self._removal = RemovalService(session, settings)
        self._answers = IdempotencyRepository(session)

    def file(
        self,
        principal: Principal,
        submission: Submission,
        uploads: Sequence[bytes],
        idempotency_key: str | None = None,
    ) -> Filed:
        """File a request, or return the answer that was given to the same key and content before.

        Args:
            principal: who asks.
            submission: the fields, and pictures as data URLs.
            uploads: pictures as files.
            idempotency_key: the client's `Idempotency-Key`, if it sent one.

        Raises:
            InvalidInput: 422, one of its subclasses; nothing was stored.
            IdempotencyKeyReused: 422, the key came with other content before.
            IdempotencyInFlight: 409, the first request with the key is not answered yet.
        """
        subject = checked_subject(submission, self._settings)
        pictures = read_pictures([*uploads, *submission.pictures], self._settings)
        if subject.name is None and not pictures:
            raise NothingToGoBy("There is neither a name nor a picture of the subject.")
        if idempotency_key is None:
            return self._create(principal, submission, subject, pictures)
        fingerprint = json_sha256(
            submission.model_dump(mode="json", exclude={"pictures"})
            | {"pictures": [picture.content_sha256 for picture in pictures]}
        )
        if not try_lock_named(self._session, f"idempotency:{principal.key_id}:{idempotency_key}"):
            raise IdempotencyInFlight("Another request with this key is being handled.")
        now = utcnow()
        earlier = self._answers.get(principal.key_id, idempotency_key, now)
        if earlier is not None:
            if earlier.fingerprint != fingerprint:
                raise IdempotencyKeyReused("This key came with other content before.")
            return Filed(earlier.status, earlier.location, earlier.body)
        filed = self._create(principal, submission, subject, pictures)
        self._answers.add(
            IdempotencyKey(
                client=principal.key_id,
                key=idempotency_key,
                fingerprint=fingerprint,
                status=filed.status,
                location=filed.location,
                body=filed.body,
                expires_at=now + timedelta(hours=self._settings.idempotency_hours),
            )
        )
        return filed

    def _create(
        self, principal: Principal, submission: Submission, subject: Subject, pictures: Sequence[Picture]
    ) -> Filed:
        removal = self._removal
        request_id, now = new_id("req"), utcnow()
        token = removal.evidence.subject_token(principal.tenant_id, subject, pictures)
        evidence = removal.evidence.sealed(request_id, pictures)  # what takes long, before anything is locked
        request = RemovalRequest(
            id=request_id,
            tenant_id=principal.tenant_id,
            created_by=principal.key_id,
            state=State.RECEIVED,
            percent=0,
            klass=subject.klass,
            legal_ground=submission.legal_ground,
            subject_sealed=removal.evidence.seal_subject(request_id, subject),
            subject_token=token,
            created_at=now,
            updated_at=now,
            expected_by=now + timedelta(days=self._settings.response_days),
        )
        lock_named(self._session, f"subject:{principal.tenant_id}:{token}")
        first = removal.requests.open_for_subject(principal.tenant_id, token)
        facts: dict[str, JsonValue] = {"pictures": len(pictures), "linked_to": first.id if first else None}
        if first is not None:
            return self._create_linked(request, first, evidence, facts)
        steps, policy = [(Event.SUBMIT, principal.key_id)], None
        if removal.policies.in_force().review == "auto":
            steps += [(Event.APPROVE, AUTO), (Event.ENQUEUE, AUTO)]
            policy = removal.snapshot()
        state = removal.lifecycle.create(request, steps, data=facts, policy=policy)
        removal.evidence.store(evidence)
        if policy is not None:
            removal.lifecycle.protect(request, actor=AUTO)
        return _accepted(request, state)

    def _create_linked(
        self,
        request: RemovalRequest,
        first: RemovalRequest,
        evidence: Sequence[Evidence],
        facts: Mapping[str, JsonValue],
    ) -> Filed:
        removal = self._removal
        request.linked_to_id = first.id
        removal.lifecycle.create(request, (), data=facts)
        removal.evidence.store(evidence)
        self._follow(request, first, bool(evidence))
        return _accepted(request, removal.state(request.id))

    def _follow(self, request: RemovalRequest, first: RemovalRequest, with_pictures: bool) -> None:
        """Link to the first request; pictures it was waiting for put it back into the queue."""
        self._removal.lifecycle.follow(request, State(first.state), actor="system:link")
        self._removal.withdraw_cancel(first)
        if with_pictures and first.state == State.NEEDS_EVIDENCE:
            self._removal.transition(first.id, Event.ADD_EVIDENCE, actor="system:link")
            self._removal.transition(first.id, Event.ENQUEUE, actor="system:link")


def _accepted(request: RemovalRequest, state: State) -> Filed:
    links = Links.of(request.id, request.linked_to_id)
    accepted = Accepted(
        id=request.id,
        state=state,
        linked_to=request.linked_to_id,
        created_at=request.created_at,
        expected_by=request.expected_by,
        links=links,
    )
    return Filed(202, links.status, accepted.model_dump(mode="json"))
