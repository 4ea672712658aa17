"""The right to be forgotten, applied to our own records: what is known of a person beside the experts."""

import os
import shutil

from sqlalchemy.orm import Session

from app.audit.service import AuditService
from app.kit.canonical import sha256_hex
from app.kit.clock import utcnow
from app.kit.ids import expert_id_of, is_id
from app.registry.store import open_store
from app.removal.errors import IllegalTransition, RequestNotFound
from app.removal.repository import RequestRepository
from app.removal.states import ENDED, State
from app.settings import Settings

ERASABLE = ENDED - {State.FAILED}
"""States in which nothing is refused any more. A failed request still protects its subject."""


class ErasureService:
    """Erases within the caller's transaction; the audit chain stays as valid as it was."""

    def __init__(self, session: Session) -> None:
        self._requests = RequestRepository(session)
        self._audit = AuditService(session)

    def erase(self, request_id: str, *, actor: str) -> None:
        """Forget the subject, its pictures, what people wrote, and what could tell them under a hash.

        What stays: the request's id, class, ground, states and times, its scores, and the chain. Files are
        not touched: call `erase_files` after the commit.

        Raises:
            RequestNotFound: no such request.
            IllegalTransition: something is still refused for it, or worked on.
        """
        request = self._requests.lock(request_id) if is_id(request_id, "req") else None
        if request is None:
            raise RequestNotFound("There is no removal request with this id.")
        if request.state not in ERASABLE:
            raise IllegalTransition(
                f"The request is `{request.state}`: without its evidence the subject could not be refused.",
                f"Cancel, reject or revoke it first; possible in: {', '.join(sorted(ERASABLE))}.",
                extra={"state": request.state},
            )
        self._requests.erase(request_id, sha256_hex(os.urandom(32)), utcnow())
        self._audit.forget(request_id)
        self._audit.append("request.erased", actor=actor, subject_id=request_id, tenant_id=request.tenant_id)


def erase_files(settings: Settings, request_id: str) -> list[str]:
    """Delete the files of an erased request's expert and of the work on it; return what was deleted.

    Copies and work on other machines are deleted by their own processes.

    Raises:
        OSError, StoreError: something could not be deleted.
    """
    expert_id, work = expert_id_of(request_id), settings.experts_dir / ".work" / request_id
    found = [expert_id] if open_store(settings).remove(expert_id) else []
    if work.is_dir():
        shutil.rmtree(work)
        found.append(f".work/{request_id}")
    return found
