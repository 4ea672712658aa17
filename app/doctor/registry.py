"""The registry: one live expert for each active request, protection for others, replicas that serve it."""

from collections import Counter
from collections.abc import Iterator, Sequence

from app.db.models import Expert, Replica
from app.doctor.findings import Check, Finding
from app.doctor.repository import DoctorRepository, RequestRow
from app.lumoe.errors import ExpertCorruptError, ExpertPathError
from app.lumoe.expert import Decrypter
from app.registry.store import StoreError, open_store
from app.removal.states import ENDED, State
from app.settings import Settings

_ENDED = frozenset(state.value for state in ENDED)
_PROTECTED = frozenset(
    state.value for state in State if state not in ENDED - {State.FAILED} and state is not State.RECEIVED
)
Live = Sequence[tuple[str, int, Expert | None]]


def check_registry(
    repository: DoctorRepository, requests: Sequence[RequestRow], live: Live, newest: int
) -> Iterator[Finding]:
    """Yield where the newest generation is not what the requests' states ask for, or what it was made as."""
    size = repository.size(newest)
    if size != len(live):
        yield Finding(
            Check.MISCOUNTED,
            "system",
            f"Generation {newest} was made with {size} expert(s), and has {len(live)}.",
        )
    by_id = {request.id: request for request in requests}
    counted = Counter(expert.request_id for _, _, expert in live if expert is not None)
    for request in requests:
        if request.state == State.ACTIVE and request.linked_to is None and not counted[request.id]:
            yield Finding(
                Check.NO_EXPERT, request.id, "It is active, but the newest generation has no expert of it."
            )
    for request_id, number in sorted(counted.items()):
        owner = by_id.get(request_id)
        if number > 1:
            yield Finding(
                Check.SEVERAL_EXPERTS, request_id, f"The newest generation has {number} experts of it."
            )
        if owner is None or owner.state in _ENDED or owner.linked_to is not None:
            state = owner.state if owner is not None else "unknown"
            yield Finding(
                Check.STRAY_EXPERT, request_id, f"Its expert is live, but the request is `{state}`."
            )
    yield from _protections(repository, requests, counted)


def _protections(
    repository: DoctorRepository, requests: Sequence[RequestRow], experts: Counter[str]
) -> Iterator[Finding]:
    """Every approved request without a live expert has one interim protection; no other has any."""
    standing = Counter(repository.standing_protections())
    taken_over = repository.superseded()
    for request in requests:
        wanted = (
            request.approved
            and request.linked_to is None
            and request.state in _PROTECTED
            and not experts[request.id]
        )
        if wanted and not standing[request.id]:
            if request.state == State.FAILED and request.id in taken_over:
                continue
            yield Finding(
                Check.UNPROTECTED,
                request.id,
                f"It is `{request.state}`, and its subject is refused neither by an expert nor without one.",
            )
        elif standing[request.id] > 1 or (standing[request.id] and not wanted):
            why = "has a live expert" if experts[request.id] else f"is `{request.state}`"
            yield Finding(
                Check.NEEDLESS_PROTECTION,
                request.id,
                f"It {why}, and has {standing[request.id]} interim protection(s).",
            )


def check_files(settings: Settings, live: Live, cipher: Decrypter) -> Iterator[Finding]:
    """Yield live experts whose files are not those that were published, or cannot be decrypted here.

    What counts is what the store itself holds, not this machine's copies.
    """
    store = open_store(settings)
    for expert_id, version, expert in live:
        if expert is None:
            yield Finding(
                Check.EXPERT_FILES, expert_id, f"Version {version} is live, but was never written down."
            )
            continue
        try:
            loaded = store.inspect(expert.path, cipher, expert.manifest_sha256)
        except StoreError as error:
            yield Finding(Check.EXPERT_STORE, "system", f"{error}.")
            return
        except ExpertPathError:
            yield Finding(Check.EXPERT_FILES, expert_id, "Its path leads out of the experts directory.")
            continue
        except (ExpertCorruptError, OSError) as error:
            yield Finding(Check.EXPERT_FILES, expert_id, f"Version {version}: {error}.")
            continue
        wanted = (expert.id, expert.version, expert.request_id)
        if (loaded.expert_id, loaded.version, loaded.request_id) != wanted:
            yield Finding(
                Check.EXPERT_FILES, expert_id, f"Its files are those of {loaded.key} for {loaded.request_id}."
            )


def check_replicas(
    repository: DoctorRepository,
    settings: Settings,
    live: Live,
    newest: tuple[int, float],
    replicas: Sequence[Replica],
) -> Iterator[Finding]:
    """Yield replicas that do not serve the newest generation, all of it."""
    number, age = newest
    grace = settings.replica_lease_seconds + 5 * settings.registry_poll_seconds
    if not replicas and number > 0:
        yield Finding(
            Check.NO_REPLICA, "system", f"Generation {number} is published, and no replica is alive."
        )
    for replica in replicas:
        if replica.error is not None:
            yield Finding(
                Check.REPLICA_ERROR, replica.id, f"Generation {replica.error_generation}: {replica.error}"
            )
        elif replica.generation < number and age > grace:
            yield Finding(
                Check.REPLICA_BEHIND,
                replica.id,
                f"It serves generation {replica.generation}; {number} is there for {age:.0f} s.",
            )
        if replica.generation > number or (
            replica.generation > 0 and not repository.acknowledged(replica.id, replica.generation)
        ):
            yield Finding(
                Check.UNACKNOWLEDGED,
                replica.id,
                f"It says that it serves generation {replica.generation}, but never acknowledged it.",
            )
    yield from _models(live, replicas)


def _models(live: Live, replicas: Sequence[Replica]) -> Iterator[Finding]:
    """Every replica serves the one base model that every live expert was trained for."""
    trained = {expert.model_fingerprint for _, _, expert in live if expert is not None} - {None}
    for replica in replicas:
        others = trained - {replica.model_fingerprint}
        if replica.model_fingerprint is not None and others:
            yield Finding(
                Check.REPLICA_MODEL,
                replica.id,
                f"It serves base model {replica.model_fingerprint[:12]}, but experts are live for "
                + ", ".join(sorted(str(other)[:12] for other in others))
                + ".",
            )
    served = {replica.model_fingerprint for replica in replicas} - {None}
    if len(served) > 1:
        listed = ", ".join(sorted(str(one)[:12] for one in served))
        yield Finding(Check.REPLICA_MODEL, "system", f"Replicas serve different base models: {listed}.")
