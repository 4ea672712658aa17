"""The subject and its pictures: encrypted where they lie, every look at them in the audit trail."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from PIL.Image import Image
from sqlalchemy.orm import Session

from app.audit.service import AuditService
from app.db.models import Evidence, RemovalRequest
from app.kit.crypto import DecryptionError, EvidenceCipher, derive_key, keyed_token
from app.kit.ids import new_id
from app.kit.logging import get_logger
from app.kit.names import canonical_name
from app.kit.pictures import Picture, bounded, decode_own, encode_png
from app.removal.errors import EvidenceGone, EvidenceNotFound
from app.removal.records import Subject
from app.removal.repository import EvidenceRepository
from app.settings import Settings

MAX_STORED_SIDE = 1536
"""Pixels on the longer side of a stored picture."""
_log = get_logger("evidence")


@dataclass(frozen=True, slots=True)
class SealedEvidence:
    """What is left of a request's evidence, still encrypted, so that it is opened outside any transaction."""

    request_id: str
    klass: str
    sealed_subject: bytes | None
    sealed_pictures: tuple[tuple[str, bytes], ...]
    cipher: EvidenceCipher

    def subject(self) -> Subject | None:
        """Return the decrypted subject; None if it was purged.

        Raises:
            DecryptionError: changed data, or a key that is not configured.
        """
        if self.sealed_subject is None:
            return None
        return _opened(self.cipher, self.sealed_subject, self.request_id)

    def pictures(self) -> Iterator[Image]:
        """Yield the decrypted pictures, one in memory at a time; one that cannot be read is left out."""
        for evidence_id, sealed in self.sealed_pictures:
            try:
                yield decode_own(self.cipher.decrypt(sealed, picture_aad(evidence_id)))
            except (DecryptionError, OSError, ValueError, SyntaxError) as error:  # whatever Pillow raises
                _log.warning("picture not readable", evidence=evidence_id, error=type(error).__name__)


class EvidenceStore:
    """Seals and opens what owners send, within the caller's transaction."""

    def __init__(self, session: Session, settings: Settings) -> None:
        self._pictures = EvidenceRepository(session)
        self._audit = AuditService(session)
        self._cipher = settings.evidence_cipher()
        self._token_key = derive_key(settings.secret_key.get_secret_value(), "lethe/subject-token/v1")

    def subject_token(self, tenant_id: str, subject: Subject, pictures: Sequence[Picture]) -> str:
        """Return what requests for the same subject have in common, unreadable without the secret key.

        Same tenant, class and canonical name; without a name, the very same picture files.
        """
        if subject.name is not None:
            return keyed_token(
                self._token_key, "name", tenant_id, subject.klass, canonical_name(subject.name)
            )
        hashes = sorted({picture.content_sha256 for picture in pictures})
        return keyed_token(self._token_key, "pictures", tenant_id, subject.klass, *hashes)

    def seal_subject(self, request_id: str, subject: Subject) -> bytes:
        """Return the subject encrypted and bound to its request."""
        document = asdict(subject) | {"facts": dict(subject.facts)}
        return self._cipher.encrypt(json.dumps(document).encode(), subject_aad(request_id))

    def open_subject(self, request: RemovalRequest, *, actor: str) -> Subject:
        """Return the decrypted subject; the access is audited.

        Raises:
            EvidenceGone: it was purged.
            DecryptionError: changed data, or a key that is not configured.
        """
        if request.subject_sealed is None:
            raise EvidenceGone("The subject of this request was purged.")
        subject = _opened(self._cipher, request.subject_sealed, request.id)
        self._accessed(request, actor, "subject", 1)
        return subject

    def take(
        self, requests: Sequence[RemovalRequest], linked: Sequence[tuple[str, str]], *, actor: str
    ) -> list[SealedEvidence]:
        """Return what is left of the evidence of each request and of those linked to it; audited.

        `linked` are (id, whom it follows).
        """
        followed = {request.id: request.id for request in requests} | dict(linked)
        kept: dict[str, dict[str, tuple[str, bytes]]] = {request.id: {} for request in requests}
        for row in self._pictures.of(list(followed)):
            if row.sealed is not None:
                kept[followed[row.request_id]][row.content_sha256] = row.id, row.sealed
        return [self._taken(request, tuple(kept[request.id].values()), actor) for request in requests]

    def _taken(
        self, request: RemovalRequest, pictures: tuple[tuple[str, bytes], ...], actor: str
    ) -> SealedEvidence:
        self._accessed(request, actor, "subject and pictures", len(pictures))
        return SealedEvidence(request.id, request.klass, request.subject_sealed, pictures, self._cipher)

    def store_pictures(self, request_id: str, pictures: Sequence[Picture]) -> None:
        """Encrypt and store pictures; one that is there already is skipped, one that was purged restored.

        They are kept no larger than any model looks at, so that nobody who reads them waits for more.
        """
        known = {row.content_sha256: row for row in self._pictures.of([request_id])}
        fresh = []
        for picture in pictures:
            row = known.get(picture.content_sha256)
            if row is None:
                fresh.append(picture)
            elif row.sealed is None:
                row.sealed = self._seal(bounded(picture.image, MAX_STORED_SIDE), row.id)
                row.purged_at = None
        self.store(self.sealed(request_id, fresh))

    def sealed(self, request_id: str, pictures: Sequence[Picture]) -> list[Evidence]:
        """Return distinct pictures encrypted, as `store` writes them; the database is not needed for it."""
        distinct = {picture.content_sha256: picture for picture in pictures}
        return [self._sealed(request_id, picture) for picture in distinct.values()]

    def store(self, rows: Sequence[Evidence]) -> None:
        """Write encrypted pictures of a request that has none of these."""
        self._pictures.insert_all(rows)

    def _sealed(self, request_id: str, picture: Picture) -> Evidence:
        image, evidence_id = bounded(picture.image, MAX_STORED_SIDE), new_id("evd")
        return Evidence(
            id=evidence_id,
            request_id=request_id,
            content_sha256=picture.content_sha256,
            width=image.width,
            height=image.height,
            sealed=self._seal(image, evidence_id),
        )

    def _seal(self, image: Image, evidence_id: str) -> bytes:
        return self._cipher.encrypt(encode_png(image), picture_aad(evidence_id))

    def open_pictures(
        self, request: RemovalRequest, followers: Sequence[RemovalRequest], *, actor: str
    ) -> list[Image]:
        """Return the decrypted pictures of a request and of those linked to it; the access is audited.

        Raises:
            EvidenceGone: there were some, and all of them were purged.
            DecryptionError: changed data, or a key that is not configured.
        """
        ids = [request.id, *(follower.id for follower in followers)]
        self.require(ids)
        rows = [row for row in self._pictures.of(ids) if row.sealed is not None]
        self._accessed(request, actor, "pictures", len(rows))
        seen: dict[str, Image] = {}
        for row in rows:
            if row.sealed is not None and row.content_sha256 not in seen:
                seen[row.content_sha256] = decode_own(self._cipher.decrypt(row.sealed, picture_aad(row.id)))
        return list(seen.values())

    def listed(self, request_id: str) -> Sequence[Evidence]:
        """Return the pictures of a request, still encrypted, oldest first; this looks at none."""
        return self._pictures.of([request_id])

    def open_picture(self, request: RemovalRequest, evidence_id: str, *, actor: str) -> bytes:
        """Return one decrypted picture as PNG; the access is audited.

        Raises:
            EvidenceNotFound: the request has no such picture.
            EvidenceGone: it was purged.
            DecryptionError: changed data, or a key that is not configured.
        """
        row = self._pictures.one(request.id, evidence_id)
        if row is None:
            raise EvidenceNotFound("The request has no such picture.")
        if row.sealed is None:
            raise EvidenceGone("The picture was purged.")
        self._accessed(request, actor, "picture", 1)
        return self._cipher.decrypt(row.sealed, picture_aad(row.id))

    def require(self, request_ids: Sequence[str]) -> None:
        """Refuse to go on without the pictures that these requests were filed with.

        Raises:
            EvidenceGone: there were some, and all of them were purged.
        """
        rows = self._pictures.of(request_ids)
        if rows and all(row.sealed is None for row in rows):
            raise EvidenceGone("The pictures of this request were purged.")

    def count(self, request_id: str, *, kept: bool = False) -> int:
        """Return how many pictures were sent with a request, or how many of them are kept."""
        return self._pictures.count(request_id, kept=kept)

    def manifest(self, request_id: str) -> list[str]:
        """Return the SHA-256 of every picture file as it was sent: the list the next retraining excludes."""
        return [row.content_sha256 for row in self._pictures.of([request_id])]

    def _accessed(self, request: RemovalRequest, actor: str, what: str, n: int) -> None:
        self._audit.append(
            "evidence.read",
            actor=actor,
            subject_id=request.id,
            tenant_id=request.tenant_id,
            payload={"what": what, "n": n},
        )


def _opened(cipher: EvidenceCipher, sealed: bytes, request_id: str) -> Subject:
    document = json.loads(cipher.decrypt(sealed, subject_aad(request_id)))
    return Subject(**document | {"aliases": tuple(document["aliases"])})


def subject_aad(request_id: str) -> bytes:
    """Return what a subject's ciphertext is bound to."""
    return f"subject:{request_id}".encode()


def picture_aad(evidence_id: str) -> bytes:
    """Return what a picture's ciphertext is bound to."""
    return f"evidence:{evidence_id}".encode()
