"""The engine in this process: one thread owns the model; conversations join its running batch."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from app.kit.logging import get_logger
from app.lumoe.decoding import Decoding, Writing
from app.lumoe.engines.queued import MAX_BATCH, MAX_WAITING, Job, QueuedEngine
from app.lumoe.router import Router
from app.lumoe.row import LOOKAHEAD, Row
from app.lumoe.turn import Turn
from app.lumoe.writers import LocalWriter, slot_of

_SLOT_SECONDS = 0.001
_log = get_logger("engine")


@dataclass(slots=True, eq=False)
class _Task:
    """A job that is being answered: its turn, and its rows that are being written."""

    job: Job
    turn: Turn
    router: Router
    rows: list[_Going]


@dataclass(slots=True, eq=False)
class _Going:
    """A row on its way through the model."""

    task: _Task
    row: Row
    writing: Writing


class LocalEngine(QueuedEngine):
    """Answers with the model in this process; see `QueuedEngine`.

    A conversation that arrives while others are being written joins them at the next token, if the model
    allows it (`Decoding.possible`), with the router that is current then. Otherwise those that wait together
    are answered together, batch after batch.

    Args:
        router: the first one; its writer must be a `LocalWriter`.
        wait_seconds: how long the first of a batch waits for company, where nobody can join it later.
        max_batch: how many conversations are answered at once.
        max_waiting, timeout: see `QueuedEngine`.
    """

    def __init__(
        self,
        router: Router,
        *,
        wait_seconds: float = 0.002,
        max_batch: int = MAX_BATCH,
        max_waiting: int = MAX_WAITING,
        timeout: float | None = None,
    ) -> None:
        if not isinstance(router.writer, LocalWriter):
            raise TypeError("the router's writer is not the model in this process")
        self._most = max_batch
        self._joining = Decoding.possible(router.mllm)
        self._wait = 0.0 if self._joining else wait_seconds
        self._decoding = Decoding(router.mllm, router.writer.bank)
        self._tasks: list[_Task] = []
        self._left: list[_Going] = []  # rows whose experts have no slot yet
        super().__init__(router, max_waiting=max_waiting, timeout=timeout)

    def _run(self) -> None:
        while not (self._stopped and not self._tasks):
            fresh = self._take()
            groups = [[job for job in fresh if job.bare is bare] for bare in (False, True)]
            if not self._joining:
                if fresh:
                    self.on_batch(len(fresh))
                for jobs in groups:
                    self._answer_together(jobs)
                continue
            try:
                for jobs in groups:
                    self._begin(jobs)
                if self._left:
                    self._join()
                self._decoding.step()
                self._settle()
                if self._left and not self._decoding.rows:
                    time.sleep(_SLOT_SECONDS)  # somebody beside this engine uses the slots
            except Exception as error:  # of the whole batch: nobody knows what the cache holds
                self._fail(error, fresh)

    def _take(self) -> list[Job]:
        """Return the jobs that may begin: those that wait, and if nothing runs, those of the next moment."""
        idle = not self._tasks
        first = self._jobs.get(timeout=None if idle else 0.0) if len(self._tasks) < self._most else None
        if first is None:
            return []
        found = [first]
        deadline = time.monotonic() + (self._wait if idle else 0.0)
        while len(found) + len(self._tasks) < self._most:
            job = self._jobs.get(timeout=max(0.0, deadline - time.monotonic()))
            if job is None:
                break
            found.append(job)
        for job in found:
            job.begun = True
        return [job for job in found if not job.cancelled]

    # -- joining -----------------------------------------------------------------------------------

    def _begin(self, jobs: Sequence[Job]) -> None:
        """Decide about new jobs and have their first rows written, all in one pass each."""
        if not jobs:
            return
        router = self._router_for(jobs[0])
        able: list[tuple[Job, int]] = []
        for job in jobs:
            try:
                able.append((job, job.limit(router)))
            except Exception as error:
                job.emit(error)
        if not able:
            return
        try:
            router.mllm.features([job.conversation for job, _ in able])  # all pictures at once, then cached
            turns = router.turns(
                [job.conversation for job, _ in able],
                [limit for _, limit in able],
                [job.release for job, _ in able],
                [job.sampling for job, _ in able],
            )
        except Exception as error:
            self._one_by_one([job for job, _ in able], error)
            return
        tasks = [_Task(job, turn, router, []) for (job, _), turn in zip(able, turns, strict=True)]
        self._tasks += tasks
        self._advance(tasks)
        self.on_batch(len(self._tasks) or len(tasks))  # all may be complete already

    def _one_by_one(self, jobs: Sequence[Job], error: Exception) -> None:
        if len(jobs) == 1:
            jobs[0].emit(error)
            return
        for job in jobs:
            self._begin([job])

    def _advance(self, tasks: Sequence[_Task]) -> None:
        """Have the tasks' next rows written; tasks without any are complete."""
        going: list[_Going] = []
        for task in tasks:
            try:
                task.rows = [self._going(task, row) for row in task.turn.due()]
            except Exception as error:
                self._tasks.remove(task)
                task.job.emit(error)
                continue
            going += task.rows
            if not task.rows:
                self._tasks.remove(task)
                self._complete(task)
        self._left += going
        if going:
            self._join()

    def _complete(self, task: _Task) -> None:
        try:
            task.job.complete(task.turn.answer(), task.router)
        except Exception as error:
            task.job.emit(error)

    def _going(self, task: _Task, row: Row) -> _Going:
        slot = slot_of(task.router.held(row))
        writing = Writing(
            task.router.mllm,
            row.conversation,
            slot,
            limit=row.limit,
            lookahead=LOOKAHEAD,
            push=row.push,
            sampling=row.sampling,
        )
        return _Going(task, row, writing)

    def _join(self) -> None:
        left = self._decoding.join([going.writing for going in self._left])
        waiting = {id(writing) for writing in left}
        self._left = [going for going in self._left if id(going.writing) in waiting]
        self._settle()

    def _settle(self) -> None:
        """Finish the rows that have ended, and go on with the conversations that are through with them."""
        through: list[_Task] = []
        for task in list(self._tasks):
            ended = [going for going in task.rows if going.writing.reason is not None]
            try:
                for going in ended:
                    if going.writing.error is not None:
                        raise going.writing.error
                    going.row.finish(going.writing.generation(task.router.mllm))
            except Exception as error:  # of this conversation alone
                for going in task.rows:
                    going.writing.cancel()
                self._tasks.remove(task)
                task.job.emit(error)
                continue
            task.rows = [going for going in task.rows if going not in ended]
            if ended and not task.rows:
                through.append(task)
        if through:
            self._advance(through)

    def _fail(self, error: Exception, fresh: Sequence[Job]) -> None:
        """Tell everybody in the batch, and the `fresh` ones that were to join it."""
        _log.error("batch failed", rows=len(self._decoding.rows), error=type(error).__name__, exc_info=error)
        for job in dict.fromkeys([*(task.job for task in self._tasks), *fresh]):
            job.emit(error)
        self._tasks, self._left = [], []
        self._decoding.clear()
