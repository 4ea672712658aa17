"""The replica's side: load, acknowledge, follow, and what it does with what it cannot load."""

import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest
from sqlalchemy.exc import OperationalError

from app.kit.wake import wake_client
from app.registry.replica import ReplicaAgent
from app.registry.repository import ReplicaRepository
from app.registry.service import ExpertRow, InterimRow, RegistryService
from app.settings import Settings
from tests.registry.test_service import Ref, published
from tests.service import Service


def eventually(condition: Callable[[], bool], seconds: float = 5) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False


class Loader:
    """Stands for the router's swap: notes what it was given, fails when told to."""

    def __init__(self) -> None:
        self.applied: list[tuple[int, list[str]]] = []
        self.interims: list[list[str]] = []
        self.broken = False

    def __call__(self, generation: int, experts: list[ExpertRow], interims: list[InterimRow]) -> None:
        if self.broken:
            raise OSError("adapter_model.safetensors does not match its hash")
        self.applied.append((generation, [expert.id for expert in experts]))
        self.interims.append([row.request_id for row in interims])


@pytest.fixture
def loader() -> Loader:
    return Loader()


@pytest.fixture
def agent(service: Service, loader: Loader) -> Iterator[ReplicaAgent]:
    client = wake_client(service.settings.redis_url)
    made = ReplicaAgent(service.sessions, service.settings, client, loader, fingerprint="f" * 64)
    yield made
    made.stop()
    client.close()


def acknowledged(service: Service, generation: int) -> bool:
    with service.sessions.begin() as session:
        return RegistryService(session, service.settings).acknowledged(generation)


def test_starts_with_the_newest_generation(service: Service, agent: ReplicaAgent, loader: Loader) -> None:
    published(service, "A B", "exp_a")
    agent.start()
    assert agent.generation == 2
    assert loader.applied == [(2, ["exp_a"])]
    assert acknowledged(service, 2)


def test_starts_empty(service: Service, agent: ReplicaAgent, loader: Loader) -> None:
    agent.start()
    assert agent.generation == 0
    assert loader.applied == [(0, [])]
    assert acknowledged(service, 0)


def test_follows_when_woken(service: Service, agent: ReplicaAgent, loader: Loader) -> None:
    slow_poll = service.settings.model_copy(update={"registry_poll_seconds": 30.0})
    agent._settings = slow_poll
    agent.start()
    time.sleep(0.3)  # subscribed by now
    began = time.monotonic()
    published(service, "A B", "exp_a")
    assert eventually(lambda: acknowledged(service, 2))
    assert time.monotonic() - began < 5
    assert loader.applied[-1] == (2, ["exp_a"])


def test_what_comes_while_it_rests_is_one_step(
    service: Service, agent: ReplicaAgent, loader: Loader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a step it rests; what comes meanwhile is applied together."""
    agent.start()
    time.sleep(0.3)  # subscribed by now
    monkeypatch.setattr("app.registry.replica._REST_SECONDS", 1.0)
    published(service, "A B", "exp_a")
    assert eventually(lambda: agent.generation == 2)
    for name in ("C D", "E F", "G H"):
        service.file(name)
    assert eventually(lambda: agent.generation == 5)
    assert [generation for generation, _ in loader.applied][-1] == 5
    assert len(loader.applied) <= 4


def test_whoever_comes_alone_waits_for_no_rest(
    service: Service, loader: Loader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looking, and finding nothing new, is no step to rest after."""
    monkeypatch.setattr("app.registry.replica._REST_SECONDS", 30.0)
    settings = service.settings.model_copy(update={"registry_poll_seconds": 0.02})
    agent = ReplicaAgent(service.sessions, settings, wake_client("redis://127.0.0.1:1/0"), loader)
    agent.start()
    time.sleep(0.3)  # it has looked several times by now
    published(service, "A B", "exp_a")
    assert eventually(lambda: agent.generation > 0)
    agent.stop()


def test_follows_without_redis(service: Service, loader: Loader) -> None:
    settings = service.settings.model_copy(update={"registry_poll_seconds": 0.05})
    agent = ReplicaAgent(service.sessions, settings, wake_client("redis://127.0.0.1:1/0"), loader)
    agent.start()
    published(service, "A B", "exp_a")
    assert eventually(lambda: agent.generation == 2)
    agent.stop()


def test_a_failed_load_is_recorded_and_never_acknowledged(
    service: Service, agent: ReplicaAgent, loader: Loader
) -> None:
    agent._settings = service.settings.model_copy(update={"registry_poll_seconds": 0.05})
    agent.start()
    loader.broken = True
    published(service, "A B", "exp_a")

    def error() -> str | None:
        with service.sessions.begin() as session:
            replica = ReplicaRepository(session).get(agent.id)
            return replica.error if replica else None

    assert eventually(lambda: error() is not None)
    assert "does not match its hash" in (error() or "")
    assert not acknowledged(service, 1)
    assert agent.generation == 0
    loader.broken = False
    assert eventually(lambda: acknowledged(service, 1))
    assert error() is None


@pytest.mark.parametrize("error", [OperationalError("COMMIT", {}, Exception("gone")), RuntimeError("a bug")])
def test_a_connection_lost_while_acknowledging(
    service: Service, agent: ReplicaAgent, loader: Loader, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    agent._settings = service.settings.model_copy(update={"registry_poll_seconds": 0.05})
    agent.start()
    acknowledge, failed = ReplicaRepository.acknowledge, list[int]()

    def once(self: ReplicaRepository, replica_id: str, generation: int) -> None:
        if generation == 2 and not failed:  # the last there is: nothing later makes up for it
            failed.append(generation)
            raise error
        acknowledge(self, replica_id, generation)

    monkeypatch.setattr(ReplicaRepository, "acknowledge", once)
    published(service, "A B", "exp_a")
    assert eventually(lambda: acknowledged(service, 2))
    assert failed
    assert [generation for generation, _ in loader.applied].count(2) == 1, "loaded once"


def test_an_expert_of_another_model_is_not_served(
    service: Service, agent: ReplicaAgent, loader: Loader
) -> None:
    request_id = service.file()["id"]
    token = service.work_until(request_id, "publish").token
    with service.sessions.begin() as session:
        RegistryService(session, service.settings).publish(
            request_id=request_id, ref=Ref("exp_a"), token=token, model_fingerprint="e" * 64
        )
    agent.start()
    assert loader.applied == []
    assert agent.generation == -1
    assert not acknowledged(service, 1)


def test_a_stopped_one_is_not_waited_for(service: Service, agent: ReplicaAgent, loader: Loader) -> None:
    agent.start()
    other = ReplicaAgent(service.sessions, service.settings, None, loader)
    other.start()
    other.stop()
    with service.sessions.begin() as session:
        live = RegistryService(session, service.settings).live_replicas()
        assert [replica.id for replica in live] == [agent.id]


def test_beats(service: Service, loader: Loader, own_settings: Settings) -> None:
    settings = own_settings.model_copy(update={"replica_lease_seconds": 0.5})
    agent = ReplicaAgent(service.sessions, settings, None, loader)
    agent.start()
    time.sleep(0.8)
    with service.sessions.begin() as session:
        assert [r.id for r in RegistryService(session, settings).live_replicas()] == [agent.id]
    agent.stop()


class TestLease:
    """Nobody waits for a replica whose heartbeat ran out, so it must not answer until it has caught up."""

    @pytest.fixture
    def brief(self, service: Service, agent: ReplicaAgent) -> ReplicaAgent:
        lease = {"replica_lease_seconds": 1.0, "registry_poll_seconds": 0.05}
        agent._settings = service.settings.model_copy(update=lease)
        return agent

    def test_current_while_its_heart_beats(self, brief: ReplicaAgent) -> None:
        assert not brief.current
        brief.start()
        began = time.monotonic()
        while time.monotonic() - began < 2.5:
            assert brief.current
            time.sleep(0.02)

    def test_cut_off_and_back(
        self, service: Service, brief: ReplicaAgent, loader: Loader, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        brief.start()
        with monkeypatch.context() as cut:

            def gone(*_: object) -> None:
                raise OperationalError("UPDATE", {}, Exception("gone"))

            cut.setattr(ReplicaRepository, "beat", gone)
            cut.setattr(RegistryService, "newest", gone)
            assert brief.current, "nobody has given it up yet"
            assert eventually(lambda: not brief.current)
        assert eventually(lambda: brief.current)

    def test_a_heartbeat_alone_is_not_enough(
        self, service: Service, brief: ReplicaAgent, loader: Loader, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It was given up, a request became active without it, and it cannot load the expert."""
        brief.start()
        beat, beats = ReplicaRepository.beat, list[str]()

        def counted(self: ReplicaRepository, replica_id: str) -> None:
            beat(self, replica_id)
            beats.append(replica_id)

        monkeypatch.setattr(ReplicaRepository, "beat", lambda *_: 1 / 0)
        assert eventually(lambda: not brief.current)
        loader.broken = True
        published(service, "A B", "exp_a")
        monkeypatch.setattr(ReplicaRepository, "beat", counted)
        assert eventually(lambda: len(beats) > 3)
        assert brief.generation == 0
        assert not brief.current
        loader.broken = False
        assert eventually(lambda: brief.current)
        assert brief.generation == 2

    def test_a_first_load_that_took_longer_than_the_lease(
        self, brief: ReplicaAgent, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        now = time.monotonic
        with monkeypatch.context() as late:
            late.setattr("app.registry.replica.time", SimpleNamespace(monotonic=lambda: now() - 60))
            brief._register()
        assert brief.sync()
        assert not brief.current, "it may have been given up while it loaded"
        brief._renew(now())
        assert not brief.current
        assert brief.sync()
        assert brief.current
