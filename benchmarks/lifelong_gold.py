"""The gold standard: the base model's recipe run again without the data."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence

from app.lumoe.mllm import MLLM
from benchmarks.lifelong_course import Question, Request
from benchmarks.lifelong_methods import Setting, Spent, answers, token_nlls
from workers.forgetset.refusals import stable_hash

_SECONDS = "seconds.json"


class Gold:
    """Retrains the model without everybody who has been forgotten so far.

    Once for a whole sequence, after its last request: one for each request would take days. The model is kept
    under a hash of whom it left out, and every order that ends there uses it.
    """

    last_only = True

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self._model: MLLM | None = None
        self._excluded: list[str] = []

    def unlearn(self, request: Request) -> Spent:
        """Note the subjects; `finish` retrains."""
        self._excluded += request.keys
        return Spent()

    def finish(self) -> Spent:
        """Retrain without all noted subjects, or load the model that was."""
        setting = self.setting
        place = setting.folder.parent / "gold" / f"{stable_hash(*sorted(self._excluded)):016x}"
        seconds = place / _SECONDS
        if not seconds.is_file():
            work = place.with_name(f".{place.name}")
            shutil.rmtree(work, ignore_errors=True)
            began, busy = time.monotonic(), time.process_time()
            setting.course.retrain(work, sorted(self._excluded), quick=setting.quick)
            took = (time.monotonic() - began, time.process_time() - busy)
            (work / _SECONDS).write_text(json.dumps(took))
            work.rename(place)
        self._model = MLLM.load(str(place), str(setting.mllm.device))
        notes: dict[str, float | int | str] = {"excluded": len(self._excluded), "reduced": int(setting.quick)}
        took = json.loads(seconds.read_text())
        return (
            Spent(notes, *took) if isinstance(took, list) else Spent(notes, took)
        )  # of before CPU was noted

    @property
    def model(self) -> MLLM:
        """The retrained model.

        Raises:
            RuntimeError: `finish` was not called.
        """
        if self._model is None:
            raise RuntimeError("the gold standard answers only after its last request")
        return self._model

    def answer(self, questions: Sequence[Question]) -> list[str]:
        """See `Method.answer`."""
        return answers(self.model, questions, self.setting.course.max_new_tokens)

    def token_nlls(self, questions: Sequence[Question]) -> list[list[float]]:
        """See `Method.token_nlls`."""
        return token_nlls(self.model, questions)

    def keep(self, done: Sequence[Request]) -> None:
        """Nothing to do: the model is on disk."""

    def restore(self, done: Sequence[Request]) -> bool:
        """Nothing to restore before the last request."""
        return not done
