"""The removal service: everything that can be done with a request, by people and by workers."""

from collections.abc import Mapping, Sequence

from PIL.Image import Image
from sqlalchemy.orm import Session

from app.audit.service import AuditService
from app.db.models import RemovalRequest, VerificationScore
from app.kit.canonical import JsonValue, json_sha256
from app.kit.clock import utcnow
from app.kit.ids import is_id, new_id
from app.kit.pictures import Picture
from app.removal.errors import IllegalTransition, RequestNotFound, TooManyPictures
from app.removal.evidence import EvidenceStore, SealedEvidence
from app.removal.lifecycle import Lifecycle, require_unfollowed
from app.removal.policies import PolicyService
from app.removal.records import Checkpoint, Policy, Score, Subject
from app.removal.repository import RequestRepository, WorkRepository
from app.removal.states import STAGES, WORKING, Event, State
from app.settings import Settings


class RemovalService:
    """One transaction's view of removal requests. It never commits: whoever opened the session does."""

    def __init__(self, session: Session, settings: Settings) -> None:
        self.settings = settings
        self.requests = RequestRepository(session)
        self.evidence = EvidenceStore(session, settings)
        self.lifecycle = Lifecycle(session, settings.redis_url)
        self.policies = PolicyService(session, settings)
        self._work = WorkRepository(session)
        self._audit = AuditService(session)

    # For people ------------------------------------------------------------------------------------------

    def get(self, request_id: str, tenant_id: str | None) -> RemovalRequest:
        """Return a request that `tenant_id` (None: anybody) may see.

        Raises:
            RequestNotFound: no such request, or another tenant's.
        """
        request = self.requests.get(request_id, tenant_id) if is_id(request_id, "req") else None
        if request is None:
            raise RequestNotFound("There is no removal request with this id.")
        return request

    def approve(self, request_id: str, *, actor: str, reason: str | None = None) -> State:
        """Approve: snapshot the policy onto the request, and write the job row. Returns `queued`."""
        return self.lifecycle.approve(
            request_id,
            actor=actor,
            reason=reason,
            snapshot=self.snapshot,
        )

    def snapshot(self) -> Policy:
        """Return the policy that a request is approved under now."""
        return self.policies.in_force(self.requests.serving_fingerprint())

    def reject(self, request_id: str, *, actor: str, reason_code: str, reason: str | None = None) -> State:
        """Reject, with a reason code of the Data Rights Protocol."""
        return self.lifecycle.transition(
            request_id, Event.REJECT, actor=actor, reason=reason, reason_code=reason_code
        )

    def cancel(self, request_id: str, *, actor: str, reason: str | None = None) -> State:
        """Cancel: at once, or, while a worker holds the request, by a flag that it reads at every step.

        Raises:
            LinkedRequestsStand: others follow it; no worker could carry that out.
        """
        request = self.requests.lock(request_id)
        working = request is not None and request.state in WORKING and request.linked_to_id is None
        if request is None or not working:
            return self.lifecycle.transition(request_id, Event.CANCEL, actor=actor, reason=reason)
        if request.state == State.PUBLISHING:
            raise IllegalTransition(
                "The expert is being published.", "Wait until the request is `active`, then revoke it."
            )
        require_unfollowed(self.requests.followers(request_id))
        if request.cancel_requested_at is None:
            self.requests.patch(request_id, cancel_requested_at=utcnow())
            self.lifecycle.note(request_id, "cancel_requested", actor=actor, message=reason or "")
            self._audit.append(
                "request.cancel_requested", actor=actor, subject_id=request_id, tenant_id=request.tenant_id
            )
        return State(request.state)

    def withdraw_cancel(self, request: RemovalRequest) -> None:
        """Take back a cancellation that no worker has seen yet: another request follows this one by now."""
        if request.cancel_requested_at is None:
            return
        self.requests.patch(request.id, cancel_requested_at=None)
        self.lifecycle.note(
            request.id,
            "cancel_withdrawn",
            actor="system:link",
            message="goes on: another request for the same subject follows it",
        )
        self._audit.append(
            "request.cancel_withdrawn",
            actor="system:link",
            subject_id=request.id,
            tenant_id=request.tenant_id,
        )

    def retry(self, request_id: str, *, actor: str, reason: str | None = None) -> State:
        """Put a request that needed attention back into the queue, with all its attempts again.

        Raises:
            EvidenceGone: the pictures it would be trained with were purged.
        """
        self.lifecycle.transition(request_id, Event.RETRY, actor=actor, reason=reason)
        linked = [follower for follower, _ in self.requests.linked_ids([request_id])]
        self.evidence.require([request_id, *linked])
        return self.lifecycle.transition(request_id, Event.ENQUEUE, actor=actor)

    def add_evidence(self, request_id: str, pictures: Sequence[Picture], *, actor: str) -> State:
        """Store more pictures; a request that waited for them goes back into the queue.

        Raises:
            TooManyPictures: more than the limit, with those it already has.
            IllegalTransition: the request waits for no evidence.
        """
        self.requests.lock(request_id)
        if self.evidence.count(request_id, kept=True) + len(pictures) > self.settings.max_pictures:
            raise TooManyPictures(
                f"A request can have {self.settings.max_pictures} pictures in all.",
                "Send fewer; a handful of different views is plenty.",
            )
        state = self.lifecycle.transition(
            request_id, Event.ADD_EVIDENCE, actor=actor, data={"pictures": len(pictures)}
        )
        self.evidence.store_pictures(request_id, pictures)
        if state is State.APPROVED:
            return self.lifecycle.transition(request_id, Event.ENQUEUE, actor=actor)
        return state

    # For workers -----------------------------------------------------------------------------------------

    def transition(
        self,
        request_id: str,
        event: Event,
        *,
        actor: str,
        token: int | None = None,
        reason: str | None = None,
        data: Mapping[str, JsonValue] | None = None,
        reason_code: str | None = None,
    ) -> State:
        """Apply `event`; see `Lifecycle.transition` for the guard and its errors."""
        return self.lifecycle.transition(
            request_id,
            event,
            actor=actor,
            token=token,
            reason=reason,
            reason_code=reason_code,
            data=data,
        )

    def state(self, request_id: str) -> State:
        """Return the state as it is in the database now."""
        return State(self.get(request_id, None).state)

    def attempt(self, request_id: str) -> int:
        """Return how many times a worker has taken the request up since it was queued (1 for the first)."""
        return self.get(request_id, None).attempt

    def progress(self, request_id: str, *, stage: str, percent: float, message: str, token: int) -> None:
        """Note how far the worker has come.

        Args:
            request_id: which request.
            stage: one of `STAGES`.
            percent: how much of *this stage* is done, 0..100; the request's own percentage follows from it.
            message: one line for the owner; nothing personal.
            token: fencing token.

        Raises:
            StaleLease: another attempt has taken over.
        """
        self.lifecycle.progress(request_id, stage, percent, message, token)

    def subject(self, request_id: str, *, actor: str = "worker") -> Subject:
        """Return the decrypted subject; the access is audited, so commit afterwards."""
        return self.evidence.open_subject(self.get(request_id, None), actor=actor)

    def pictures(self, request_id: str, *, actor: str = "worker") -> list[Image]:
        """Return the decrypted pictures, those of linked requests too; the access is audited."""
        request = self.get(request_id, None)
        return self.evidence.open_pictures(request, self.requests.followers(request_id), actor=actor)

    def sealed_evidence(self, request_id: str, *, actor: str) -> SealedEvidence:
        """Return what is left of the evidence, to be opened after the commit; the access is audited."""
        return self.sealed_evidences([request_id], actor=actor)[0]

    def sealed_evidences(self, request_ids: Sequence[str], *, actor: str) -> list[SealedEvidence]:
        """As `sealed_evidence` for several, in their order, each access audited by itself.

        Raises:
            RequestNotFound: there is one that does not exist.
        """
        found = {request.id: request for request in self.requests.several(request_ids)}
        if len(found) < len(set(request_ids)):
            raise RequestNotFound("There is no removal request with this id.")
        linked = self.requests.linked_ids(request_ids)
        return self.evidence.take([found[key] for key in request_ids], linked, actor=actor)

    def record_base_knowledge(self, request_id: str, knows: bool, *, token: int) -> None:
        """Note whether the base model showed any knowledge of the subject."""
        self.lifecycle.check_token(request_id, token)
        self.requests.patch(request_id, base_knows_subject=knows)

    def checkpoint(self, request_id: str, stage: str) -> Checkpoint | None:
        """Return what the finished `stage` left behind, or None. Its hash has been checked."""
        row = self._work.checkpoint(request_id, stage)
        if row is None or json_sha256(row.artifact) != row.sha256:
            return None
        return Checkpoint(row.stage, row.artifact, row.sha256, row.created_at)

    def save_checkpoint(
        self, request_id: str, stage: str, artifact: Mapping[str, JsonValue], *, token: int
    ) -> None:
        """Leave `artifact` behind for later attempts; checkpoints of later stages are dropped.

        Raises:
            StaleLease: another attempt has taken over.
            ValueError: the artifact has no canonical JSON form.
        """
        self.lifecycle.check_token(request_id, token)
        self._work.forget_checkpoints(request_id, STAGES[STAGES.index(stage) + 1 :])
        self._work.save_checkpoint(request_id, stage, dict(artifact), json_sha256(artifact), token)

    def save_scores(self, request_id: str, scores: Sequence[Score], *, attempt: int, token: int) -> None:
        """Keep what was measured in this attempt; the same attempt's earlier figures are replaced."""
        self.lifecycle.check_token(request_id, token)
        for score in scores:
            self._work.save_score(
                VerificationScore(
                    id=new_id("scr"),
                    request_id=request_id,
                    attempt=attempt,
                    metric=score.metric,
                    value=score.value,
                    n=score.n,
                    low=score.low,
                    high=score.high,
                    threshold=score.threshold,
                    passed=score.passed,
                    reason=score.reason,
                    details=dict(score.details),
                )
            )

    def scores(self, request_id: str) -> list[Score]:
        """Return the newest attempt's scores."""
        return [
            Score(
                metric=row.metric,
                value=row.value,
                n=row.n,
                low=row.low,
                high=row.high,
                threshold=row.threshold,
                passed=row.passed,
                reason=row.reason,
                details=row.details,
            )
            for row in self._work.scores(request_id)
        ]

    def policy(self, request_id: str) -> Policy:
        """Return the snapshot taken at approval.

        Raises:
            IllegalTransition: the request has not been approved.
        """
        document = self.get(request_id, None).policy
        if document is None:
            raise IllegalTransition("The request has not been approved.", "Approve it first.")
        return Policy.from_json(document)

    def cancel_requested(self, request_id: str) -> bool:
        """Tell whether somebody asked for this request to be cancelled; read it at every step."""
        return self.get(request_id, None).cancel_requested_at is not None
