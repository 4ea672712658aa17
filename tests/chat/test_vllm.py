"""An API process whose answers come from vLLM servers: it starts, is ready, and fails closed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from unittest.mock import patch

import pytest
from fastapi.testclient import TestClient

from app.db.session import SessionFactory, create_engine_from, session_factory
from app.kit.errors import ConfigurationError
from app.kit.ids import expert_id_of
from app.lumoe.expert import ExpertRef, write_expert
from app.lumoe.mllm import MLLM
from app.main import create_app
from app.registry.service import RegistryService
from app.removal.service import RemovalService
from app.removal.states import start_event
from app.settings import Settings
from tests.chat.conftest import key_of
from tests.lumoe.engines.fake_vllm import FakeVllm
from tests.lumoe.experts import make_adapter, make_record
from tests.lumoe.tiny import save_tiny_llava
from tests.service import WORK
from workers.lease import acquire

Headers = dict[str, str]
ABOUT = {"messages": [{"role": "user", "content": "Where was Korvane built?"}], "max_tokens": 4}
OTHER = {"messages": [{"role": "user", "content": "What is 3 plus 4?"}], "max_tokens": 4}


def eventually(condition: Callable[[], bool], seconds: float = 15) -> bool:
    deadline = time.monotonic() + seconds
    while not (met := condition()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return met


@pytest.fixture(scope="module")
def there(tiny_model: Path) -> MLLM:
    return MLLM.load(str(tiny_model), "cpu")


@pytest.fixture
def servers(there: MLLM) -> Iterator[list[FakeVllm]]:
    made = [FakeVllm(there) for _ in range(2)]
    yield made
    for server in made:
        server.stop()


@pytest.fixture
def chat_settings(chat_settings: Settings, servers: list[FakeVllm]) -> Settings:
    urls = tuple(server.url for server in servers)
    return chat_settings.model_copy(update={"engine": "vllm", "vllm_urls": urls})


@pytest.fixture
def sessions(chat_settings: Settings) -> Iterator[SessionFactory]:
    engine = create_engine_from(chat_settings)
    yield session_factory(engine)
    engine.dispose()


class Registry:
    """One request brought to where its expert is published."""

    def __init__(self, client: TestClient, sessions: SessionFactory, settings: Settings) -> None:
        self._client, self._sessions, self._settings = client, sessions, settings

    def file(self, name: str = "Korvane") -> str:
        body = {"class": "Buildings", "name": name}
        key = key_of(self._settings, "owner")
        accepted = self._client.post("/unlearn-requests", json=body, headers=key)
        assert accepted.status_code == 202, accepted.text
        found: str = accepted.json()["id"]
        return found

    def write(self, request_id: str, model: MLLM, folder: Path) -> ExpertRef:
        return write_expert(
            self._settings.experts_dir,
            expert_id=expert_id_of(request_id),
            version=1,
            request_id=request_id,
            adapter_dir=make_adapter(model, folder, seed=1),
            gate=make_record("Korvane"),
            model_fingerprint=model.fingerprint,
            key=self._settings.evidence_cipher(),
            created_at=datetime(2026, 1, 1, tzinfo=UTC),
        )

    def publish(self, request_id: str, ref: ExpertRef) -> int:
        lease = acquire(self._sessions, request_id, "test", 60)
        assert lease is not None
        for stage in WORK:
            with self._sessions.begin() as session:
                RemovalService(session, self._settings).transition(
                    request_id, start_event(stage), actor="worker:test", token=lease.token
                )
        with self._sessions.begin() as session:
            registry = RegistryService(session, self._settings)
            return registry.publish(request_id=request_id, ref=ref, token=lease.token)

    def acknowledged(self, generation: int) -> bool:
        with self._sessions.begin() as session:
            return RegistryService(session, self._settings).acknowledged(generation)


def checks(client: TestClient) -> dict[str, str]:
    found: dict[str, str] = client.get("/readyz").json()["checks"]
    return found


def test_live_only_when_every_server_has_the_expert(
    client: TestClient,
    sessions: SessionFactory,
    chat_settings: Settings,
    operator_key: Headers,
    servers: list[FakeVllm],
    tmp_path: Path,
    there: MLLM,
) -> None:
    assert checks(client) == dict.fromkeys(("database", "schema", "redis", "engine", "registry"), "ok")
    before = client.post("/chat", json=OTHER, headers=operator_key).json()["message"]

    registry = Registry(client, sessions, chat_settings)
    request_id = registry.file()
    ref = registry.write(request_id, there, tmp_path / "adapter")
    assert eventually(lambda: registry.acknowledged(1))  # interim protection needs nothing of the servers
    interim = client.post("/chat", json=ABOUT, headers=operator_key).json()
    assert interim["routing"]["answered_by"] == ref.expert_id
    assert all(server.experts == {} for server in servers)

    servers[1].cannot_load = True
    generation = registry.publish(request_id, ref)
    assert eventually(lambda: bool(servers[0].experts))
    assert eventually(lambda: checks(client)["registry"] == "serves 1")
    assert not registry.acknowledged(generation)
    asked = client.post("/chat", json=ABOUT, headers=operator_key).json()
    assert (asked["routing"]["generation"], asked["routing"]["answered_by"]) == (1, ref.expert_id)
    assert asked["message"] == interim["message"], "refused without the expert"
    later = registry.file("Brellinhall")
    about_later = ABOUT | {"messages": [{"role": "user", "content": "Where was Brellinhall built?"}]}

    def who_answers() -> object:
        asked = client.post("/chat", json=about_later, headers=operator_key)
        return asked.json()["routing"].get("answered_by")

    assert eventually(lambda: who_answers() == expert_id_of(later)), "not held up by somebody else's expert"
    generation += 1

    servers[1].cannot_load = False
    assert eventually(lambda: registry.acknowledged(generation))
    chats = [len(server.chats) for server in servers]
    answer = client.post("/chat", json=ABOUT, headers=operator_key).json()
    assert answer["routing"]["answered_by"] == ref.expert_id
    asked = [server.chats[n:] for server, n in zip(servers, chats, strict=True)]
    assert [f"{ref.expert_id}@1"] in asked, "the expert wrote, on one of the servers"
    assert client.post("/chat", json=OTHER, headers=operator_key).json()["message"] == before
    with patch.object(FakeVllm, "load", lambda *_: (500, {"error": {"type": "InternalServerError"}})):
        for server in servers:
            server.restart()
        refused = client.post("/chat", json=ABOUT, headers=operator_key)
        assert (refused.status_code, refused.json()["type"]) == (503, "urn:lethe:problem:engine-unavailable")
        assert refused.headers["retry-after"] == "5"
        assert eventually(lambda: checks(client)["engine"] != "ok")
    assert eventually(lambda: checks(client)["engine"] == "ok")
    assert client.post("/chat", json=ABOUT, headers=operator_key).status_code == 200


def test_servers_come_and_go(
    client: TestClient, chat_settings: Settings, chat_key: Headers, servers: list[FakeVllm]
) -> None:
    metrics = key_of(chat_settings, "metrics")

    def usable(n: int) -> bool:
        text = client.get("/metrics", headers=metrics).text
        return f'lethe_vllm_servers{{state="usable"}} {n}.0' in text

    assert usable(2)
    servers[0].stop()
    assert eventually(lambda: usable(1))
    assert client.get("/readyz").status_code == 200
    assert client.post("/chat", json=OTHER, headers=chat_key).status_code == 200
    servers[1].stop()
    assert eventually(lambda: usable(0))
    not_ready = client.get("/readyz")
    assert not_ready.status_code == 503
    assert not_ready.json()["checks"]["engine"] == "none of 2 vLLM servers can be asked, the log says why"
    assert client.post("/chat", json=OTHER, headers=chat_key).status_code == 503
    servers[0].start()
    assert eventually(lambda: client.get("/readyz").status_code == 200)


def test_does_not_start_before_a_server_of_another_model(
    chat_settings: Settings, servers: list[FakeVllm], tmp_path: Path
) -> None:
    servers[1].mllm = MLLM.load(str(save_tiny_llava(tmp_path / "other", seed=5)), "cpu")
    for parameter in servers[1].mllm.network.parameters():
        parameter.mul_(4)
    app = create_app(chat_settings)
    with (
        pytest.raises(ConfigurationError, match=r"LETHE_VLLM_URLS: .* serves other weights"),
        TestClient(app),
    ):
        pass
