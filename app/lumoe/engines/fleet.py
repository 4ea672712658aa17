"""Several vLLM servers as one writer: kept at what the router needs, asked, and left out while they are not.

What must be so is what the routers in use hold; every replica is looked at again and again and brought there:
is it our model, does it list every expert, from where it should. One that is not there yet is asked nothing.
A lost expert is loaded again, an unknown one is an error; the base model never answers in an expert's place.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from app.kit.logging import get_logger
from app.lumoe.engines.likeness import Likeness
from app.lumoe.engines.remoterow import RemoteRow
from app.lumoe.engines.replica import (
    ExpertLostError,
    ExpertRefusedError,
    ReplicaClient,
    ReplicaError,
    ReplicaUnreachableError,
    RequestRefusedError,
    WrongModelError,
    chat_messages,
)
from app.lumoe.errors import ConversationTooLongError, LumoeError
from app.lumoe.expert import LoadedExpert
from app.lumoe.mllm import MLLM
from app.lumoe.sampling import GREEDY, Sampling
from app.lumoe.steering import TokenSink
from app.lumoe.types import Conversation, Generation
from app.lumoe.writers import Held

_log = get_logger("vllm")
_T = TypeVar("_T")


class ReplicasUnavailableError(LumoeError):
    """No replica can answer now; nothing was answered in its place. Try again later."""


class RemoteExpert:
    """An expert that replicas in rotation list as `key`, loaded from `path`, while this handle is kept."""

    __slots__ = ("__weakref__", "key", "path")

    def __init__(self, key: str, path: str) -> None:
        self.key = key
        self.path = path


class _Replica:
    """One server and what is known of it. `usable`: in rotation, with the experts `holds`."""

    def __init__(self, client: ReplicaClient) -> None:
        self.client = client
        self.lock = threading.Lock()  # one reconciles at a time
        self.wake = threading.Event()
        self.base = ""
        self.verified = False
        self.usable = False
        self.holds: frozenset[str] = frozenset()
        self.trouble = "not looked at yet"
        self.heard = time.monotonic()
        self.in_flight = 0


class Fleet:
    """See the module's docstring; a `Writer`.

    Args:
        mllm: our own copy of the model that the replicas serve.
        urls: where they listen.
        experts_dir: the directory of `write_expert`, as the replicas see it.
        api_key: the replicas' `--api-key`, if they have one.
        timeout: seconds without a token after which an answer counts as failed.
        poll_seconds: how often each replica is looked at.
        gone_after_seconds: how long a silent replica still holds up new experts.
    """

    def __init__(
        self,
        mllm: MLLM,
        urls: Sequence[str],
        *,
        experts_dir: str,
        api_key: str | None = None,
        timeout: float = 60.0,
        poll_seconds: float = 1.0,
        gone_after_seconds: float = 15.0,
    ) -> None:
        self._mllm = mllm
        self._experts_dir = experts_dir.rstrip("/")
        self._poll, self._gone_after = poll_seconds, gone_after_seconds
        self._likeness = Likeness(mllm)
        self._penalty = float(getattr(mllm.network.generation_config, "repetition_penalty", None) or 1.0)
        self._replicas = [_Replica(ReplicaClient(url, api_key=api_key, timeout=timeout)) for url in urls]
        self._wanted: WeakValueDictionary[str, RemoteExpert] = WeakValueDictionary()
        self._lock = threading.Lock()  # guards what is counted and what is wanted
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self.retries = 0
        self.reloads = 0

    # -- life --------------------------------------------------------------------------------------

    def start(self) -> None:
        """Look at every replica, then go on doing so in the background.

        One that does not answer is no obstacle. Raises `WrongModelError` if one serves another model.
        """
        for error in self._everywhere(self._reconcile_quietly):
            if isinstance(error, WrongModelError):
                raise error
        for replica in self._replicas:
            thread = threading.Thread(
                target=self._look_after, args=(replica,), name="lethe-vllm", daemon=True
            )
            thread.start()
            self._threads.append(thread)

    def close(self) -> None:
        """Stop looking and close all connections."""
        self._stop.set()
        for replica in self._replicas:
            replica.wake.set()
        for thread in self._threads:
            thread.join(timeout=10)
        for replica in self._replicas:
            replica.client.close()

    @property
    def usable(self) -> int:
        """How many replicas are in rotation."""
        return sum(replica.usable for replica in self._replicas)

    def __len__(self) -> int:
        return len(self._replicas)

    @property
    def troubles(self) -> list[str]:
        """What keeps replicas out of rotation, one sentence for each."""
        return [replica.trouble for replica in self._replicas if not replica.usable]

    # -- experts -----------------------------------------------------------------------------------

    def hold(self, experts: Sequence[LoadedExpert]) -> list[Held]:
        """Have every replica load `experts` and list them, and return their handles.

        A replica that has been silent for longer than `gone_after_seconds` is not waited for: it is asked
        nothing until it has caught up. At least one must confirm.
        Raises `ReplicaError`: a replica did not, so none of them is used.
        """
        found = [RemoteExpert(e.key, f"{self._experts_dir}/{e.expert_id}/{e.version}") for e in experts]
        if not found:
            return []
        extra = {handle.key: handle.path for handle in found}
        errors = self._everywhere(lambda replica: self._reconcile_quietly(replica, extra))
        for replica, error in zip(self._replicas, errors, strict=True):
            excused = isinstance(error, ReplicaUnreachableError) and self._gone(replica)
            if error is not None and not (excused and None in errors):
                raise error
        with self._lock:
            for handle in found:
                self._wanted[handle.key] = handle
        return list(found)

    def _gone(self, replica: _Replica) -> bool:
        return time.monotonic() - replica.heard > self._gone_after

    def _everywhere(self, work: Callable[[_Replica], _T]) -> list[_T]:
        with ThreadPoolExecutor(max(1, len(self._replicas)), thread_name_prefix="lethe-vllm") as pool:
            return list(pool.map(work, self._replicas))

    def _look_after(self, replica: _Replica) -> None:
        while not self._stop.is_set():
            replica.wake.wait(self._poll)
            replica.wake.clear()
            if not self._stop.is_set():
                self._reconcile_quietly(replica)

    def _reconcile_quietly(
        self, replica: _Replica, extra: Mapping[str, str] | None = None
    ) -> ReplicaError | None:
        try:
            self._reconcile(replica, extra or {})
        except ReplicaError as error:
            return error
        return None

    def _reconcile(self, replica: _Replica, extra: Mapping[str, str]) -> None:
        """Bring a replica to what is wanted and to `extra`, and into rotation. Raises `ReplicaError`."""
        with replica.lock:
            try:
                if not replica.verified:
                    replica.base, context = self._likeness.check(replica.client)
                    if context < self._mllm.max_tokens:
                        raise WrongModelError(
                            f"{replica.client.url} reads {context} tokens at most, the model "
                            f"{self._mllm.max_tokens}: set LETHE_VLLM_CONTEXT to the least --max-model-len"
                        )
                    replica.verified = True
                with self._lock:
                    wanted = {handle.key: handle.path for handle in self._wanted.values()}
                listed = self._load_missing(replica, wanted)
                replica.holds = frozenset(wanted) | (replica.holds & listed.keys())
                replica.heard = time.monotonic()
                if not replica.usable:
                    _log.info("replica in rotation", replica=replica.client.url, experts=len(wanted))
                replica.usable, replica.trouble = True, ""
            except ReplicaError as error:
                self._leave_out(replica, error)
                raise
            fresh = {key: path for key, path in extra.items() if key not in wanted}
            if fresh:
                self._load_missing(replica, fresh, listed)
                replica.holds |= frozenset(fresh)

    def _load_missing(
        self, replica: _Replica, wanted: Mapping[str, str], listed: Mapping[str, str | None] | None = None
    ) -> dict[str, str | None]:
        """Load what is not listed, look again, and return what is listed by then: name -> path."""
        client = replica.client
        found = dict(listed) if listed is not None else _listed(client)
        missing = [key for key in wanted if key not in found]
        if missing and replica.holds & set(missing):
            self.reloads += 1  # it was there: the server has been restarted, perhaps with another model
            replica.holds, replica.usable = frozenset(), False
            replica.base, _ = self._likeness.check(client)
        for key in missing:
            client.load(key, wanted[key])
        if missing:
            found = _listed(client)
        for key, path in wanted.items():
            if key not in found:
                raise ExpertRefusedError(f"{client.url} does not list expert {key} after loading it")
            if found[key] != path:
                raise ExpertRefusedError(
                    f"{client.url} has expert {key} from {found[key]} instead of {path}: restart it; "
                    "all that use it must see the experts directory at one path"
                )
        return found

    def _leave_out(self, replica: _Replica, error: ReplicaError) -> None:
        if replica.usable or replica.trouble != str(error):
            _log.warning("replica not in rotation", replica=replica.client.url, error=str(error))
        replica.usable, replica.trouble, replica.holds = False, str(error), frozenset()
        if not isinstance(error, ExpertRefusedError):
            replica.verified = False  # whoever answers there next is to be looked at afresh
        if not isinstance(error, ReplicaUnreachableError):
            replica.heard = time.monotonic()

    # -- writing -----------------------------------------------------------------------------------

    def write(
        self,
        conversations: Sequence[Conversation],
        held: Sequence[Held | None],
        *,
        max_new_tokens: int,
        lookahead: int = 0,
        sink: TokenSink | None = None,
        samplings: Sequence[Sampling] = (),
    ) -> list[Generation]:
        """Write every row on whichever replica has the least to do, all at once; see `Writer.write`.

        Raises `ConversationTooLongError`, `ReplicasUnavailableError`.
        """
        prompts = [self._mllm.prompt_ids(conversation) for conversation in conversations]
        longest = max((len(prompt) for prompt in prompts), default=0) + max_new_tokens
        if longest > self._mllm.max_tokens:
            raise ConversationTooLongError(longest, self._mllm.max_tokens)
        one_at_a_time = threading.Lock()

        def push(i: int, token: int) -> bool:
            with one_at_a_time:
                return sink is None or sink(i, token)

        def row(i: int) -> Generation:
            room = self._mllm.max_tokens - len(prompts[i])
            body = {
                "messages": chat_messages(self._mllm, conversations[i]),
                "max_tokens": max(max_new_tokens, min(max_new_tokens + lookahead, room)),
                **_choice(samplings[i] if samplings else GREEDY),
                "repetition_penalty": self._penalty,
                "presence_penalty": 0,
                "frequency_penalty": 0,
                "stop_token_ids": sorted(self._mllm.eos_ids),
                "return_token_ids": True,
            }
            answer = RemoteRow(self._mllm, prompts[i], (lambda t: push(i, t)) if sink is not None else None)
            return self._write_row(held[i], body, answer)

        if len(conversations) < 2:
            return [row(i) for i in range(len(conversations))]
        with ThreadPoolExecutor(len(conversations), thread_name_prefix="lethe-vllm-row") as pool:
            return list(pool.map(row, range(len(conversations))))

    def _write_row(self, held: Held | None, body: dict[str, Any], row: RemoteRow) -> Generation:
        """Write one row, on another replica if one fails, on the same if it has its expert again."""
        failed: set[_Replica] = set()
        last: ReplicaError | None = None
        for attempt in range(len(self._replicas) + 1):
            replica = self._pick(held, failed)
            if replica is None:
                break
            self.retries += attempt > 0
            name = held.key if held is not None else replica.base
            try:
                with self._counted(replica), replica.client.answering({**body, "model": name}) as chunks:
                    return row.read(chunks, replica.client.url)
            except ReplicaError as error:
                last = error
                if not isinstance(error, RequestRefusedError):
                    self._leave_out(replica, error)
            if not isinstance(last, ExpertLostError) or self._reconcile_quietly(replica) is not None:
                failed.add(replica)
                replica.wake.set()
        told = str(last) if last is not None else "; ".join(self.troubles) or "all replicas are catching up"
        raise ReplicasUnavailableError(f"no vLLM replica can answer: {told}")

    def _pick(self, held: Held | None, failed: set[_Replica]) -> _Replica | None:
        able = [
            replica
            for replica in self._replicas
            if replica.usable and replica not in failed and (held is None or held.key in replica.holds)
        ]
        return min(able, key=lambda replica: replica.in_flight, default=None)

    @contextmanager
    def _counted(self, replica: _Replica) -> Iterator[None]:
        with self._lock:
            replica.in_flight += 1
        try:
            yield
        finally:
            with self._lock:
                replica.in_flight -= 1


def _choice(sampling: Sampling) -> dict[str, Any]:
    """Return how vLLM is to choose tokens; seeded, so that another replica can go on."""
    if sampling.greedy:
        return {"temperature": 0}
    seeded = sampling.seeded()
    return {"temperature": seeded.temperature, "top_p": seeded.top_p, "seed": seeded.seed}


def _listed(client: ReplicaClient) -> dict[str, str | None]:
    return {card.id: card.root for card in client.models()}
