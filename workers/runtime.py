"""What a worker process keeps warm: settings, database, the base model, and the live experts."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from app.db.session import SessionFactory, create_engine_from, session_factory
from app.kit.errors import ConfigurationError
from app.lumoe.expert import LoadedExpert
from app.lumoe.gate.negatives import NegativeSet
from app.lumoe.mllm import MLLM
from app.lumoe.router import Router
from app.registry.service import ExpertRow
from app.registry.store import ExpertStore, open_store
from app.removal.datakeys import DataKeys
from app.settings import Settings
from workers.forgetset.cohort import Cohort
from workers.forgetset.directory_cohort import DirectoryCohort
from workers.forgetset.elicit import Reference
from workers.negatives import negative_set
from workers.training.initial import InitialExpert, find_initial
from workers.training.recipe import Recipe
from workers.verification.remeasure import utility_set
from workers.verification.suite import Kept


@dataclass(slots=True)
class Runtime:
    """One worker process's tools. The base model is loaded once and never changed."""

    settings: Settings
    sessions: SessionFactory
    mllm: MLLM
    cipher: DataKeys
    store: ExpertStore
    holder: str
    references: dict[str, tuple[Reference, ...]] = field(default_factory=dict)
    """Each live expert's fixed prompts after a publish, by the expert's key."""
    _experts: dict[str, LoadedExpert] = field(default_factory=dict)
    _router: Router | None = None
    _negatives: NegativeSet | None = None
    _initial: dict[str, InitialExpert] = field(default_factory=dict)
    _utility: tuple[Kept, ...] = ()
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def start(cls, settings: Settings, mllm: MLLM | None = None) -> Runtime:
        """Connect, and load the base model unless one is given.

        Raises:
            ModelNotFoundError: The setting that names the model must be corrected.
        """
        sessions = session_factory(create_engine_from(settings, connections=8))
        return cls(
            settings=settings,
            sessions=sessions,
            mllm=mllm or MLLM.load(settings.model, settings.device),
            cipher=DataKeys(sessions, settings),
            store=open_store(settings),
            holder=f"{socket.gethostname()}:{os.getpid()}",
        )

    @property
    def experts_dir(self) -> Path:
        """The local directory: of work, and of published experts or copies of them, which `store` handles."""
        return self.settings.experts_dir

    def cohort(self, names: Sequence[str]) -> Cohort:
        """Return everybody but the bearers of ``names``.

        Raises:
            ConfigurationError: A real model needs retain data; the message names the setting.
        """
        if self.settings.retain_data is not None:
            return DirectoryCohort(self.settings.retain_data, names)
        if self.settings.model == "demo":
            from workers.forgetset.demo_cohort import DemoCohort

            return DemoCohort(names)
        raise ConfigurationError(
            "LETHE_RETAIN_DATA: a model of your own needs retain data: a directory with MLUBench-form JSON "
            "files and the pictures they name"
        )

    def negatives(self) -> NegativeSet:
        """Return the negative set of this base model, made on first use.

        Raises:
            ConfigurationError: A real model needs retain data.
        """
        with self._lock:
            if self._negatives is None:
                self._negatives = negative_set(self.mllm, self.cohort(()))
            return self._negatives

    def initial_expert(
        self, recipe: Recipe, exclude: Sequence[str], cancelled: Callable[[], bool] = lambda: False
    ) -> InitialExpert:
        """Return where training starts (`find_initial`), read or made on first use.

        Raises:
            CancelledError: ``cancelled`` said so while it was made.
            ConfigurationError: A real model needs retain data.
        """
        with self._lock:
            held = self._initial.get(recipe.initial_name)
            if held is None or held.knows(exclude):
                root = self.experts_dir / ".initial"
                held = find_initial(
                    self.mllm, recipe, self.cohort, root, exclude=exclude, cancelled=cancelled
                )
                self._initial[recipe.initial_name] = held
            return held

    def utility(self, n: int) -> tuple[Kept, ...]:
        """Return the utility set that is asked after every publish, n prompts, made on first use.

        Raises:
            ConfigurationError: A real model needs retain data.
        """
        with self._lock:
            if not self._utility:
                self._utility = utility_set(self.mllm, self.cohort(()), n)
            return self._utility

    def live_router(self, rows: Sequence[ExpertRow], generation: int) -> Router:
        """Return a router over the live experts; files are read and checked once per version.

        Raises:
            ExpertCorruptError: A live expert's files do not match its manifest, or belong to another model.
            StoreError: They cannot be read now.
        """
        with self._lock:
            wanted = [self._expert(row) for row in rows]
            held = self._router
            if held is None or {e.key for e in held.experts.values()} != {e.key for e in wanted}:
                self._router = held = Router.build(self.mllm, wanted, generation, previous=held)
            live = {row.manifest_sha256 for row in rows}
            self._experts = {key: value for key, value in self._experts.items() if key in live}
            keys = {expert.key for expert in wanted}
            self.references = {key: value for key, value in self.references.items() if key in keys}
            return held

    def _expert(self, row: ExpertRow) -> LoadedExpert:
        held = self._experts.get(row.manifest_sha256)
        if held is None:
            held = self.store.load(row.path, self.cipher, row.manifest_sha256)
            self._experts[row.manifest_sha256] = held
        return held
