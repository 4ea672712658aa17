"""Ours in the lifelong benchmark: the worker's own prepare, train and calibrate, and the real router."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from app.kit.clock import utcnow
from app.lumoe.expert import ExpertRef, LoadedExpert, load_expert
from app.lumoe.gate.calibration import Calibration
from app.lumoe.router import Router
from app.lumoe.writers import bank_of
from benchmarks.farm import Grown, grow_case, grown_one
from benchmarks.lifelong_course import Question, Request, Subject
from benchmarks.lifelong_methods import Setting, Spent, token_nlls
from workers import stages
from workers.forgetset.answering import batches
from workers.forgetset.build import TrainingSet
from workers.training.recipe import RECIPES

_CHUNK = 64


class Lethe:
    """One expert for every subject, trained, calibrated and enrolled as the service does it; then its router.

    What the stage `verify` and the publishing cost is not in the time (`benchmarks.request` measures the
    whole), nor the initial expert of another model than the demo one. An expert that the farm holds is taken
    from there, with the seconds its training took then. With `verify` each expert is verified, and trained
    once more by the stronger recipe where it falls short, as the worker does; that training is in the time.
    """

    last_only = False

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.folder = setting.folder / "lethe"
        self.runtime = setting.course.runtime(setting.mllm, self.folder / "experts")
        self.farm = setting.course.farm(setting.mllm, self.folder / "grown")
        self.router = Router.build(setting.mllm, [])
        self.runtime.negatives()  # once per worker process, not per request
        recipe = RECIPES[self.runtime.settings.recipe]
        if recipe.warm:
            self.runtime.initial_expert(recipe, ())  # once per base model: the demo model's is there already
        self._removed: list[str] = []
        self._looked, self._again = (0.0, 0.0), 0  # seconds of verifying, and trainings that it asked for

    def unlearn(self, request: Request) -> Spent:
        """Enrol one expert per subject."""
        began, busy = time.monotonic(), time.process_time()
        taken: list[Grown] = []
        apart, self._looked, self._again = 0, (0.0, 0.0), 0
        for subject in request.subjects:
            plant, separates = self._enrol(subject)
            apart += not separates
            taken += [plant] if plant is not None else []
        seconds = time.monotonic() - began - self._looked[0]
        cpu_seconds = time.process_time() - busy - self._looked[1]
        earlier = [plant.cpu_seconds for plant in taken if plant.cpu_seconds is not None]
        return Spent(
            {"not_separated": apart, "from_farm": len(taken), "trained_again": self._again},
            seconds + sum(plant.seconds for plant in taken),
            cpu_seconds + sum(earlier) if len(earlier) == len(taken) else None,
        )

    def _enrol(self, subject: Subject) -> tuple[Grown | None, bool]:
        """Train, calibrate, enrol; returns the expert if it was trained earlier, and the gate's verdict."""
        case = self.setting.course.case(self.runtime, subject, self._removed)
        earlier = grown_one(self.farm, subject.key)
        plant = earlier or grow_case(self.runtime, case, subject.key, self.farm)
        training = plant.training_set()
        calibration = self._calibrate(case, training)
        path = self.runtime.experts_dir / case.expert_id
        if not path.is_dir():
            ref = self._write(case, calibration, plant.adapter)
            if self.setting.verify and not self._passes(case, training, ref):
                calibration = self._train_again(case, training, self.folder / "again" / subject.key)
        self._add([self._load(subject)])
        self._removed += subject.names
        return earlier, calibration.separates

    def _calibrate(self, case: stages.Case, training: TrainingSet) -> Calibration:
        live = self.router.gate.thresholds if self.router.experts else None
        return stages.calibrate(self.runtime, case, training, live)

    def _write(self, case: stages.Case, calibration: Calibration, adapter: Path) -> ExpertRef:
        root, cipher = self.runtime.experts_dir, self.runtime.settings.evidence_cipher()
        return stages.write_candidate(self.runtime, case, calibration, adapter, root, utcnow(), cipher)

    def _passes(self, case: stages.Case, training: TrainingSet, ref: ExpertRef) -> bool:
        """Verify an expert beside those that are there; what that takes is not in the time."""
        began, busy = time.monotonic(), time.process_time()
        folder, sha256 = self.runtime.experts_dir / ref.path, ref.manifest_sha256
        verdict = stages.measure(
            self.runtime, case, training.knowledge, self.router, folder, sha256, lambda: False
        )
        spent = (time.monotonic() - began, time.process_time() - busy)
        self._looked = (self._looked[0] + spent[0], self._looked[1] + spent[1])
        return verdict.passed

    def _train_again(self, case: stages.Case, training: TrainingSet, adapter: Path) -> Calibration:
        self._again += 1
        recipe = RECIPES[case.policy.recipe].stronger()
        stages.train(self.runtime, training, recipe, adapter, lambda: False, lambda _: None, None)
        calibration = self._calibrate(case, training)
        self._write(case, calibration, adapter)
        return calibration

    def _load(self, subject: Subject) -> LoadedExpert:
        versions = self.runtime.experts_dir / f"exp_{subject.key}"
        newest = max(versions.iterdir(), key=lambda path: int(path.name))
        return load_expert(newest, self.runtime.cipher)

    def _add(self, experts: Sequence[LoadedExpert]) -> None:
        for expert in experts:
            self.router = self.router.with_expert(expert)
        if self.router.scattered:
            self.router = self.router.compacted()

    def answer(self, questions: Sequence[Question]) -> list[str]:
        """See `Method.answer`: gate, expert or base model, guard."""
        said: dict[int, str] = {}
        for part in batches([q.conversation for q in questions], _CHUNK):
            conversations = [questions[i].conversation for i in part]
            served = self.router.answer(conversations, max_new_tokens=self.setting.course.max_new_tokens)
            said.update(zip(part, (answer.text for answer in served), strict=True))
        return [said[i] for i in range(len(questions))]

    def token_nlls(self, questions: Sequence[Question]) -> list[list[float]]:
        """See `Method.token_nlls`: under the expert that the gate chooses, or the base model."""
        found: dict[int, list[float]] = {}
        groups: dict[str | None, list[int]] = {}
        for part in batches([q.conversation for q in questions], _CHUNK):
            decided = self.router.decide([questions[i].conversation for i in part])
            for i, decision in zip(part, decided, strict=True):
                groups.setdefault(decision.expert_id, []).append(i)
        bank = bank_of(self.setting.mllm)
        for expert_id, index in groups.items():
            expert = self.router.experts[expert_id] if expert_id else None
            slot = bank.load(expert.key, expert.adapter, expert.scale) if expert else None
            for start in range(0, len(index), _CHUNK):
                rows = index[start : start + _CHUNK]
                with bank.active([slot] * len(rows)):
                    nlls = token_nlls(self.setting.mllm, [questions[i] for i in rows], _CHUNK)
                found.update(zip(rows, nlls, strict=True))
        return [found[i] for i in range(len(questions))]

    def keep(self, done: Sequence[Request]) -> None:
        """Nothing to do: experts are on disk since they were enrolled."""

    def restore(self, done: Sequence[Request]) -> bool:
        """Load the experts of the requests; False if one is missing."""
        subjects = [subject for request in done for subject in request.subjects]
        there = self.runtime.experts_dir
        if not subjects or any(not (there / f"exp_{s.key}").is_dir() for s in subjects):
            return False
        self._add([self._load(subject) for subject in subjects])
        self._removed = [name for subject in subjects for name in subject.names]
        return True
