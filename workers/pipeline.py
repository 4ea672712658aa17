"""One request's way through the stages: prepare, train, calibrate, verify, publish.

Every stage is idempotent and leaves a checkpoint (artifact and hash in SQL, files in the work directory); a
later attempt goes on after the last one whose files are whole. A lease with a fencing token keeps a second
worker out; every write carries the token. Cancelling is a flag in SQL that is read at every step.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import cached_property
from typing import Any

from sqlalchemy.orm import Session

from app.db.models import RemovalRequest
from app.kit.canonical import JsonValue
from app.kit.clock import utcnow
from app.kit.errors import ConfigurationError
from app.kit.logging import get_logger
from app.kit.tracing import span
from app.lumoe.errors import ExpertCorruptError
from app.lumoe.expert import ExpertRef, LoadedExpert, load_expert
from app.lumoe.router import Router
from app.registry.errors import NotLive
from app.registry.service import RegistryService, StalePublish
from app.registry.store import StoreRefusedError, StoreUnavailableError, VersionTakenError
from app.removal.errors import EvidenceGone, StaleLease
from app.removal.lifecycle import Lifecycle
from app.removal.measurements import MeasurementService
from app.removal.records import Checkpoint
from app.removal.service import RemovalService
from app.removal.states import FINAL, WAITING, Event, State
from workers import aftercare, stages
from workers.attempt import Attempt
from workers.forgetset.answering import CancelledError
from workers.forgetset.build import TrainingSet
from workers.lease import Lease, LeaseLost, acquire, attempts_allowed
from workers.runtime import Runtime
from workers.training.recipe import RECIPES, Recipe
from workers.training.train import Progress
from workers.verification.verify import Verdict
from workers.workdir import (
    WorkDirectory,
    directory_sha256,
    pack_training_set,
    unpack_training_set,
)

_log = get_logger("pipeline")

MAX_ROUNDS = 2
ACKNOWLEDGE_SECONDS = 60.0
_POLL_SECONDS = 0.05
_CANCEL_SECONDS = 0.25
_PROGRESS_SECONDS = 0.4
_TRAINING_SET = "training-set"
MAX_FAILURES = 100
"""Failing examples that are kept of one verification."""


class _Stop(Exception):  # noqa: N818  not an error: the request waits for a person now
    """The request was moved to a state in which no worker goes on."""


def process(runtime: Runtime, request_id: str) -> State | None:
    """Work on a request until it is active or waits for somebody; return its state, None if not ours to do.

    An unexpected error leaves the request in its stage. The first one puts it back into the queue at once,
    later ones leave that to the sweeper: a disk that is full, or a database that fails over, needs time. SQL
    counts the attempts, and the one after the last fails the request.
    """
    lease = acquire(runtime.sessions, request_id, runtime.holder, runtime.settings.lease_seconds)
    if lease is None:
        return None
    again = False
    with lease:
        try:
            Job(runtime, lease).run()
        except (LeaseLost, StaleLease, StalePublish):
            _log.warning("another worker has taken over", request=request_id)
        except Exception as error:  # anything a model, a disk or a driver may throw: SQL caps the attempts
            _log.exception("attempt failed", request=request_id, error=type(error).__name__)
            again = True
    with runtime.sessions.begin() as session:
        service = RemovalService(session, runtime.settings)
        state = service.state(request_id)
        once = service.attempt(request_id) == 1
        if again and once and state not in FINAL and state not in WAITING:
            Lifecycle(session).enqueue(request_id)  # after the release, or the next worker finds it leased
    return state


class Job(Attempt):
    """One attempt at one request: the stages in order."""

    def __init__(self, runtime: Runtime, lease: Lease) -> None:
        super().__init__(runtime, lease)
        self.cipher = runtime.cipher.of(self.request_id)
        self.work = WorkDirectory(runtime.experts_dir, self.request_id, self.cipher)
        self._training: TrainingSet | None = None

    # -- the order of things -----------------------------------------------------------------------

    def run(self) -> None:
        """Run every stage that is not done yet."""
        try:
            self._check_model()
            for attempt_round in range(MAX_ROUNDS):
                with span("prepare"):
                    self._prepare()
                with span("train", round=attempt_round):
                    self._train(attempt_round)
                with span("calibrate", round=attempt_round):
                    self._calibrate(attempt_round)
                with span("verify", round=attempt_round):
                    passed = self._verify(attempt_round)
                if passed:
                    break
            with span("publish"):
                self._publish()
            self.work.remove()
        except CancelledError:
            self.transition(Event.CANCEL, reason="cancelled on request")
            self.work.remove()
        except _Stop:
            _log.info("waits for a person", request=self.request_id)
        except StoreRefusedError as error:
            _log.error("the store of the experts refuses", request=self.request_id, error=str(error))
            self.need_attention(
                "configuration",
                "The store of the experts refuses this worker, whose log says why; correct it, then retry.",
            )
        except StoreUnavailableError as error:
            if not self._last():
                raise
            _log.error("the store of the experts is away", request=self.request_id, error=str(error))
            self.need_attention(
                "store_unavailable", "The store of the experts does not answer; retry once it does."
            )
        except ConfigurationError as error:
            self.need_attention("configuration", str(error))
        except EvidenceGone:
            self.need_attention(
                "evidence_purged",
                "Its pictures were purged: send some again with POST /requests/{id}/evidence, or cancel it "
                "and file a new request.",
            )
        except ExpertCorruptError as error:
            _log.error("expert files are not whole", request=self.request_id, error=str(error))
            self.need_attention("expert_corrupt", "A live expert's files are not whole; restore them.")

    def _last(self) -> bool:
        """Whether the request fails after this attempt."""
        with self.session() as session:
            request = session.get_one(RemovalRequest, self.request_id)
            return request.attempt >= attempts_allowed(request)

    def _check_model(self) -> None:
        wanted = self.case.policy.model_fingerprint
        if wanted is not None and wanted != self.runtime.mllm.fingerprint:
            self.need_attention(
                "model_mismatch",
                f"Approved for model {wanted[:12]}; this worker has {self.runtime.mllm.fingerprint[:12]}. "
                "Start the worker with the model that is served, or approve again.",
            )
            raise _Stop

    @cached_property
    def case(self) -> stages.Case:
        """The request, decrypted; the access is audited."""
        router = self.live_router()
        with self.session() as session:
            service = RemovalService(session, self.runtime.settings)
            subject = service.subject(self.request_id, actor=self.actor)
            pictures = service.pictures(self.request_id, actor=self.actor)
            policy = service.policy(self.request_id)
        case = stages.Case(self.request_id, stages.target_of(subject), tuple(pictures), (), policy)
        removed = stages.names_of(router, without=case.expert_id)
        return stages.Case(case.request_id, case.target, case.pictures, removed, policy)

    @property
    def training(self) -> TrainingSet:
        """The training set of the prepare stage."""
        if self._training is None:
            raise RuntimeError("the prepare stage has not run")
        return self._training

    def live_router(self) -> Router:
        """Return the router over the newest generation's experts, this request's own left out."""
        with self.session() as session:
            registry = RegistryService(session, self.runtime.settings)
            rows = [row for row in registry.live_experts() if row.request_id != self.request_id]
            return self.runtime.live_router(rows, registry.newest())

    # -- stages ------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        done = self.checkpoint("prepare")
        if done is not None and (self._training is not None or self._restore(done)):
            return
        self.enter("prepare")
        started = time.monotonic()
        training = stages.prepare(self.runtime, self.case, self.cancelled)
        self._training = training
        known = training.knowledge
        artifact: dict[str, JsonValue] = {
            "file": _TRAINING_SET,
            "sha256": self.work.write(_TRAINING_SET, pack_training_set(training)),
            "known": known.known,
            "reason": known.reason,
            "recognised": known.recognised,
            "answered": known.answered,
            "elicited": stages.elicited(known),
            "forget": len(training.forget),
            "retain": len(training.retain),
            "seconds": round(time.monotonic() - started, 3),
        }
        with self.session() as session:
            service = RemovalService(session, self.runtime.settings)
            service.record_base_knowledge(self.request_id, known.known, token=self.lease.token)
            service.save_checkpoint(self.request_id, "prepare", artifact, token=self.lease.token)
        self.progress(
            "prepare", 100, f"{len(training.forget)} prompts to forget, {len(training.retain)} to keep"
        )

    def _restore(self, done: Checkpoint) -> bool:
        """Read the training set an earlier attempt left behind."""
        content = self.work.read(_TRAINING_SET, str(done.artifact["sha256"]))
        if content is None:
            return False
        self._training = unpack_training_set(content)
        return True

    def _train(self, attempt_round: int) -> None:
        done = self.checkpoint("train")
        if done is not None and self._trained(done, attempt_round):
            return
        self.enter("train", round=attempt_round)
        recipe = self._recipe(attempt_round)
        directory = self.work.path / f"adapter-{attempt_round}"
        initial = stages.initial_expert(self.runtime, self.case, recipe, self.cancelled)
        trained = stages.train(
            self.runtime,
            self.training,
            recipe,
            directory,
            self.cancelled,
            self._training_progress(recipe),
            initial,
        )
        self.save(
            "train",
            {
                "round": attempt_round,
                "directory": directory.name,
                "sha256": directory_sha256(directory),
                "recipe": recipe.as_dict(),
                "steps": trained.steps,
                "refusal": round(trained.refusal, 6),
                "agreement": round(trained.agreement, 6),
                "stopped_early": trained.stopped_early,
                "seconds": round(trained.seconds, 3),
                "initial": None if initial is None else initial.sha256,
                "initial_seconds": None if initial is None else initial.seconds,
            },
        )

    def _trained(self, done: Checkpoint, attempt_round: int) -> bool:
        """Whether an adapter of this round or a later one lies there whole."""
        whole = directory_sha256(self.work.path / str(done.artifact["directory"])) == done.artifact["sha256"]
        return whole and _int(done.artifact["round"]) >= attempt_round

    def _recipe(self, attempt_round: int) -> Recipe:
        recipe = RECIPES.get(self.case.policy.recipe)
        if recipe is None:
            raise ConfigurationError(
                f"LETHE_RECIPE: there is no recipe {self.case.policy.recipe!r}; choose one of "
                + ", ".join(sorted(RECIPES))
            )
        for _ in range(attempt_round):
            recipe = recipe.stronger()
        return replace(recipe, seed=recipe.seed + self.lease.token)  # another attempt, another try

    def _training_progress(self, recipe: Recipe) -> Callable[[Progress], None]:
        def tell(progress: Progress) -> None:
            self.progress(
                "train",
                100 * progress.step / recipe.max_steps,
                f"step {progress.step}: refuses {progress.refusal:.0%}, keeps {progress.agreement:.1%}",
                throttle=True,
            )

        return tell

    def _calibrate(self, attempt_round: int) -> None:
        trained = self.artifact("train")
        done = self.checkpoint("calibrate")
        if done is not None and done.artifact["adapter"] == trained["sha256"] and self._candidate(done):
            return
        self.enter("calibrate", round=attempt_round)
        started = time.monotonic()
        live = self.live_router().gate.thresholds
        calibration = stages.calibrate(self.runtime, self.case, self.training, live)
        if self.cancelled():
            raise CancelledError
        if not calibration.separates and self.training.knowledge.known:
            self.transition(
                Event.NEED_EVIDENCE,
                reason=calibration.reason,
                reason_code="insufficient_evidence",
                data={"found": calibration.true_positives, "of": calibration.positives},
            )
            raise _Stop
        root = self.work.path / f"candidate-{self.lease.token}-{attempt_round}"
        adapter = self.work.path / str(trained["directory"])
        initial = trained.get("initial")  # not in the checkpoint of an earlier release
        ref = stages.write_candidate(
            self.runtime,
            self.case,
            calibration,
            adapter,
            root,
            utcnow(),
            self.cipher,
            None if initial is None else str(initial),
        )
        self.save(
            "calibrate",
            {
                **asdict(ref),
                "root": root.name,
                "adapter": trained["sha256"],
                "separates": calibration.separates,
                "true_positives": calibration.true_positives,
                "positives": calibration.positives,
                "false_positives": calibration.false_positives,
                "negatives": calibration.negatives,
                "seconds": round(time.monotonic() - started, 3),
            },
        )

    def _candidate(self, done: Checkpoint) -> ExpertRef | None:
        """Return the candidate's reference if its files are whole, here or already where experts lie.

        Every file is read: one that no replica can load would keep them from every later generation, too.
        """
        ref, store = _ref(done.artifact), self.runtime.store
        try:
            if store.holds(ref.path):
                store.load(ref.path, self.runtime.cipher, ref.manifest_sha256)
            else:
                place = self.work.path / str(done.artifact["root"]) / ref.path
                load_expert(place, self.runtime.cipher, manifest_sha256=ref.manifest_sha256)
        except ExpertCorruptError as error:
            _log.warning("candidate is not whole", request=self.request_id, error=str(error))
            return None
        return ref

    def _verify(self, attempt_round: int) -> bool:
        candidate = self.artifact("calibrate")
        done = self.checkpoint("verify")
        if done is not None and done.artifact["manifest_sha256"] == candidate["manifest_sha256"]:
            return True
        self.enter("verify", round=attempt_round)
        started = time.monotonic()
        root = self.work.path / str(candidate["root"])
        verdict = stages.measure(
            self.runtime,
            self.case,
            self.training.knowledge,
            self.live_router(),
            root / str(candidate["path"]),
            str(candidate["manifest_sha256"]),
            self.cancelled,
        )
        with self.session() as session:
            service = RemovalService(session, self.runtime.settings)
            attempt = service.attempt(self.request_id)
            service.save_scores(self.request_id, verdict.scores, attempt=attempt, token=self.lease.token)
            self._keep_examples(session, verdict, attempt)
        if verdict.passed:
            passed = {
                "manifest_sha256": candidate["manifest_sha256"],
                "round": attempt_round,
                "seconds": round(time.monotonic() - started, 3),
            }
            self.save("verify", passed)
            return True
        if _int(self.artifact("train")["round"]) >= MAX_ROUNDS - 1:
            self._forget_training()
            self.need_attention("verification_failed", _shortfall(verdict), failures=len(verdict.failures))
            raise _Stop
        _log.warning("verification fell short", request=self.request_id, why=_shortfall(verdict))
        return False

    def _keep_examples(self, session: Session, verdict: Verdict, attempt: int) -> None:
        """Keep what went wrong for whoever looks into it, and a few before and after for the report."""
        kept = MeasurementService(session, self.runtime.settings)
        failures = [aftercare.failure_json(failure) for failure in verdict.failures[:MAX_FAILURES]]
        shown: list[dict[str, JsonValue]] = [asdict(example) for example in verdict.examples]
        token = self.lease.token
        kept.save_examples(self.request_id, "failure", failures, attempt=attempt, token=token)
        kept.save_examples(self.request_id, "before_after", shown, attempt=attempt, token=token)

    def _forget_training(self) -> None:
        """Let a retry by a person train afresh, on the same sets."""
        self.save("prepare", self.artifact("prepare"))

    def _publish(self) -> None:
        done = self.checkpoint("calibrate")
        ref = self._candidate(done) if done is not None else None
        if done is None or ref is None:
            self.need_attention("candidate_lost", "The verified expert's files are gone; retry the request.")
            raise _Stop
        self.enter("publish")
        self._store(done, ref)
        with self.session() as session:
            generation = RegistryService(session, self.runtime.settings).publish(
                request_id=self.request_id,
                ref=ref,
                token=self.lease.token,
                model_fingerprint=self.runtime.mllm.fingerprint,
            )
        self.progress("publish", 50, f"generation {generation} is published; waiting for the replicas")
        if not self._acknowledged(generation):
            self.need_attention(
                "replicas_silent",
                f"Generation {generation} is published, but not every replica confirms that it serves it.",
            )
            raise _Stop
        self.progress("publish", 75, "measuring earlier requests again")
        outcome = aftercare.measure_again(self, self.live_router(), self._published(ref), generation)
        if outcome.regressions:
            self._forget_training()
            aftercare.take_back(self, generation, outcome)
            raise _Stop
        self._activate(ref, generation)

    def _store(self, done: Checkpoint, ref: ExpertRef) -> None:
        """Put the verified files where experts lie; nothing to do when an earlier attempt has.

        Raises:
            VersionTakenError: another attempt's files are there; the next one takes the next number.
        """
        store = self.runtime.store
        if store.holds(ref.path):
            return  # `_candidate` has read them
        try:
            store.publish(self.work.path / str(done.artifact["root"]) / ref.path, ref.path)
        except VersionTakenError:
            self.save("train", self.artifact("train"))  # drops the candidate
            raise
        store.remove_unfinished(ref.expert_id, ref.version)

    def _activate(self, ref: ExpertRef, generation: int) -> None:
        """Say that the request is done, unless the registry was rolled back meanwhile.

        Raises:
            NotLive: then the next attempt publishes it again.
        """
        with self.session() as session:  # the transition takes the ledger's lock, so no rollback slips in
            RemovalService(session, self.runtime.settings).transition(
                self.request_id,
                Event.ACTIVATE,
                actor=self.actor,
                token=self.lease.token,
                data={"generation": generation, "expert": ref.expert_id},
            )
            if not RegistryService(session, self.runtime.settings).serves(self.request_id, ref):
                raise NotLive(f"{self.request_id} was published, and rolled back before it was active.")

    def _published(self, ref: ExpertRef) -> LoadedExpert:
        return self.runtime.store.load(ref.path, self.runtime.cipher, ref.manifest_sha256)

    def _acknowledged(self, generation: int) -> bool:
        """Wait, for a while, until every live replica serves the generation."""
        deadline = time.monotonic() + ACKNOWLEDGE_SECONDS
        while time.monotonic() < deadline:
            self.lease.check()
            with self.session() as session:
                if RegistryService(session, self.runtime.settings).acknowledged(generation):
                    return True
            time.sleep(_POLL_SECONDS)
        return False


def _shortfall(verdict: Verdict) -> str:
    """Return one line without anything personal: which figures miss their threshold."""
    parts = [
        f"{s.metric} {s.value:.3f} (needs {s.threshold:g}, n {s.n})"
        for s in verdict.scores
        if s.passed is False and s.value is not None and s.threshold is not None
    ]
    return "below the policy: " + ", ".join(parts)


def _ref(artifact: dict[str, Any]) -> ExpertRef:
    return ExpertRef(
        expert_id=str(artifact["expert_id"]),
        version=_int(artifact["version"]),
        path=str(artifact["path"]),
        manifest_sha256=str(artifact["manifest_sha256"]),
        bytes=_int(artifact["bytes"]),
    )


def _int(value: object) -> int:
    if not isinstance(value, int):
        raise TypeError(f"expected a whole number in a checkpoint, got {type(value).__name__}")
    return value
