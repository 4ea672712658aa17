"""A replica's side of the registry: heartbeat, wake, load, acknowledge."""

import math
import socket
import threading
import time
from collections.abc import Callable

import redis
from sqlalchemy.exc import SQLAlchemyError

from app.db.models import Replica
from app.db.session import SessionFactory
from app.kit.ids import new_id
from app.kit.logging import get_logger
from app.registry.generations import CHANNEL
from app.registry.repository import ReplicaRepository
from app.registry.service import ExpertRow, InterimRow, RegistryService
from app.settings import Settings

Apply = Callable[[int, list[ExpertRow], list[InterimRow]], None]
_log = get_logger("replica")
_LONG_GONE_SECONDS = 24 * 3600.0
_LISTEN_SECONDS = 0.5
_RECONNECT_SECONDS = 1.0
_REST_SECONDS = 0.1


class ReplicaAgent:
    """Keeps one process at the newest generation.

    Three threads: one beats the heart, so that a slow load does not look like death; one listens to Redis;
    one waits for its word or the poll interval, has `apply` load the generation's experts and interim
    subjects and swap them in, and acknowledges. What cannot be applied is written down as this replica's
    error, is never acknowledged, and is tried again at every poll.

    Nobody waits for a replica whose heartbeat is older than `replica_lease_seconds`: requests become active
    without it. So it must not answer then (`current`), until it has beaten and served the newest generation
    again. A process that was stopped, or could not reach the database, finds that out by its own clock.

    Args:
        session_factory: where the truth is.
        settings: poll interval, heartbeat.
        client: Redis, or None to rely on polling alone.
        apply: loads experts and interim subjects and swaps atomically; raises if any cannot be served.
        fingerprint: of the base model this replica serves.
        name: for people; by default the host's name.
    """

    def __init__(
        self,
        session_factory: SessionFactory,
        settings: Settings,
        client: "redis.Redis | None",
        apply: Apply,
        *,
        fingerprint: str | None = None,
        name: str | None = None,
    ) -> None:
        self.id = new_id("rep")
        self._sessions = session_factory
        self._settings = settings
        self._redis = client
        self._apply = apply
        self._fingerprint = fingerprint
        self._name = name or socket.gethostname()
        self._stop = threading.Event()
        self._woken = threading.Event()
        self._threads: list[threading.Thread] = []
        self._generation = -1
        self._acknowledged = -1
        self._registered = False
        self._beaten = self._alive = -math.inf  # both on this process's clock, see `current`

    @property
    def generation(self) -> int:
        """The generation being served; -1 before the first one was applied."""
        return self._generation

    @property
    def current(self) -> bool:
        """Whether this replica may answer: it serves a generation, and nobody can have given it up since."""
        age = time.monotonic() - self._alive
        return self._generation >= 0 and age < self._settings.replica_lease_seconds

    def start(self) -> None:
        """Register, apply the newest generation before returning, then follow it in the background.

        A generation that cannot be applied is recorded and does not keep the process from starting; `/readyz`
        tells.
        """
        self._register()
        self.sync()
        for name, loop in (("heartbeat", self._beat), ("reconcile", self._follow), ("listen", self._listen)):
            thread = threading.Thread(target=loop, name=f"replica-{name}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """Stop the threads and sign off, so that nobody waits for this replica's acknowledgement."""
        self._stop.set()
        self._woken.set()
        for thread in self._threads:
            thread.join(timeout=10)
        if not self._registered:
            return
        try:
            with self._sessions.begin() as session:
                ReplicaRepository(session).stop(self.id)
        except SQLAlchemyError as error:
            _log.warning("could not sign off; the heartbeat will run out", error=type(error).__name__)

    def sync(self) -> bool:
        """Apply and acknowledge the newest generation if it is not served yet; tell whether it is served now.

        Raises:
            SQLAlchemyError: the database cannot be reached.
        """
        beaten = self._beaten  # a heartbeat that is older than what is read next
        with self._sessions.begin() as session:
            registry = RegistryService(session, self._settings)
            newest = registry.newest()
            if newest == self._acknowledged:
                self._alive = max(self._alive, beaten)
                return True
            experts = registry.live_experts(newest)
            interims = registry.live_interims(newest)
        try:
            if newest != self._generation:  # else it is served, but the database did not learn of it
                self._check_model(experts)
                self._apply(newest, experts, interims)
        except Exception as error:  # whatever the loader raises, this generation is not served here
            _log.error("generation not applied", generation=newest, replica=self.id, exc_info=True)
            with self._sessions.begin() as session:
                ReplicaRepository(session).failed(self.id, newest, f"{type(error).__name__}: {error}"[:2000])
            return False
        self._generation = newest
        with self._sessions.begin() as session:
            RegistryService(session, self._settings).acknowledge(self.id, newest)
        self._acknowledged = newest
        self._alive = max(self._alive, beaten)
        _log.info(
            "generation served",
            generation=newest,
            experts=len(experts),
            interim=len(interims),
            replica=self.id,
        )
        return True

    def _check_model(self, experts: list[ExpertRow]) -> None:
        for expert in experts:
            if self._fingerprint and expert.model_fingerprint not in (None, self._fingerprint):
                raise ValueError(
                    f"expert {expert.id} was trained for base model {expert.model_fingerprint}, "
                    f"this replica serves {self._fingerprint}"
                )

    def _register(self) -> None:
        began = time.monotonic()
        with self._sessions.begin() as session:
            replicas = ReplicaRepository(session)
            replicas.forget_long_gone(_LONG_GONE_SECONDS)
            replicas.register(Replica(id=self.id, name=self._name, model_fingerprint=self._fingerprint))
        self._registered = True
        self._beaten = began

    def _renew(self, began: float) -> None:
        """Note a heartbeat that is in the database since some moment after `began`.

        If the one before had run out by now, somebody may have stopped waiting for this replica in between:
        then it is `current` again only when it serves the newest generation.
        """
        self._beaten = began
        if time.monotonic() - self._alive < self._settings.replica_lease_seconds:
            self._alive = began
        else:
            _log.warning("the heartbeat had run out; nothing is answered until the registry is read again")
            self._woken.set()

    def _beat(self) -> None:
        while not self._stop.wait(self._settings.replica_lease_seconds / 5):
            try:
                began = time.monotonic()
                with self._sessions.begin() as session:
                    ReplicaRepository(session).beat(self.id)
                self._renew(began)
                with self._sessions.begin() as session:  # a replica that was waited for may have died
                    RegistryService(session, self._settings).confirm()
            except SQLAlchemyError as error:
                _log.warning("heartbeat not written", error=type(error).__name__)
            except Exception:  # whatever a driver throws: without this thread the replica looks dead
                _log.exception("heartbeat failed")

    def _follow(self) -> None:
        """Follow the registry, and rest after each step that there was anything to do in.

        Whoever comes alone waits for nothing. Where one generation follows another without a pause, a step
        takes several at once: most of what a step computes is the same for one subject as for many.
        """
        while not self._stop.is_set():
            self._woken.wait(self._settings.registry_poll_seconds)
            self._woken.clear()
            if self._stop.is_set():
                return
            before, idle = self._acknowledged, False
            try:
                idle = self.sync() and self._acknowledged == before
            except SQLAlchemyError as error:
                _log.warning("registry not reachable", error=type(error).__name__)
            except Exception:  # or it would serve an old generation for ever, and look alive
                _log.exception("registry not followed")
            if not idle:
                self._stop.wait(_REST_SECONDS)

    def _listen(self) -> None:
        """Wake the other thread at every message. Without Redis it wakes by itself at every interval."""
        while not self._stop.is_set() and self._redis is not None:
            try:
                # redis-py has no types here
                with self._redis.pubsub(ignore_subscribe_messages=True) as channel:  # type: ignore[no-untyped-call]
                    channel.subscribe(CHANNEL)
                    self._woken.set()  # whatever was announced before this is found now
                    while not self._stop.is_set():
                        if channel.get_message(timeout=_LISTEN_SECONDS) is not None:
                            self._woken.set()
            except (redis.RedisError, OSError, ValueError) as error:  # the last: a socket closed under it
                _log.debug("no Redis, polling", error=type(error).__name__)
                self._stop.wait(_RECONNECT_SECONDS)
