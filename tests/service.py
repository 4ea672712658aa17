"""Fixtures for the service's rooms: an application without an engine on a database of the test's own."""

import base64
import io
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import pytest
import redis
from fastapi.testclient import TestClient
from PIL import Image
from sqlalchemy import text

from app.accounts.principal import Principal
from app.accounts.service import SCOPES, authenticate, create_key
from app.db.base import Base
from app.db.session import SessionFactory, create_engine_from, session_factory
from app.embedded.postgres import EmbeddedPostgres
from app.embedded.valkey import EmbeddedValkey
from app.main import create_app
from app.removal.service import RemovalService
from app.removal.states import Event, State, start_event
from app.settings import Settings, load_settings
from workers.lease import Lease, acquire

Json = dict[str, Any]
WORK = ("prepare", "train", "calibrate", "verify", "publish")


def png(colour: str = "red", size: tuple[int, int] = (32, 24), format: str = "PNG") -> bytes:
    """A small picture of one colour."""
    sink = io.BytesIO()
    Image.new("RGB", size, colour).save(sink, format)
    return sink.getvalue()


def data_url(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64," + base64.b64encode(data).decode()


class Response(Protocol):
    """What the tests look at in an answer."""

    @property
    def status_code(self) -> int: ...

    @property
    def text(self) -> str: ...

    @property
    def content(self) -> bytes: ...

    @property
    def headers(self) -> Mapping[str, str]: ...

    def json(self) -> Any: ...


@dataclass
class Service:
    """A running service without an engine, and keys for it."""

    client: TestClient
    settings: Settings
    sessions: SessionFactory

    def __post_init__(self) -> None:
        with self.sessions.begin() as session:
            self.owner = create_key(session, tenant="acme", scopes=["owner"]).secret
            self.operator = create_key(session, tenant="acme", scopes=["operator"]).secret
            self.auditor = create_key(session, tenant="acme", scopes=["auditor"]).secret
            self.stranger = create_key(session, tenant="rival", scopes=SCOPES).secret
            self.root = create_key(session, tenant="root", scopes=["owner", "operator", "auditor"]).secret

    def key(self, tenant: str, *scopes: str) -> str:
        with self.sessions.begin() as session:
            return create_key(session, tenant=tenant, scopes=scopes).secret

    def principal(self, key: str | None = None) -> Principal:
        return authenticate(self.sessions, key or self.owner)

    def call(self, method: str, path: str, key: str | None = None, **arguments: Any) -> Response:
        headers = {"Authorization": f"Bearer {key or self.owner}"} | arguments.pop("headers", {})
        return self.client.request(method, path, headers=headers, **arguments)

    def get(self, path: str, key: str | None = None, **arguments: Any) -> Response:
        return self.call("GET", path, key, **arguments)

    def post(self, path: str, key: str | None = None, **arguments: Any) -> Response:
        return self.call("POST", path, key, **arguments)

    def file(self, name: str | None = "Elodie Brandt", key: str | None = None, **fields: Any) -> Json:
        """File a request and return the answer's body."""
        body = {"class": "Personage", "pictures": [data_url(png())]} | fields
        if name is not None:
            body["name"] = name
        response = self.post("/unlearn-requests", key, json=body)
        assert response.status_code == 202, response.text
        found: Json = response.json()
        return found

    def status(self, request_id: str) -> Json:
        response = self.get(f"/requests/{request_id}/status")
        assert response.status_code == 200, response.text
        found: Json = response.json()
        return found

    @contextmanager
    def removal(self) -> Iterator[RemovalService]:
        """One committed transaction's removal service."""
        with self.sessions.begin() as session:
            yield RemovalService(session, self.settings)

    def lease(self, request_id: str, seconds: float = 30) -> Lease:
        lease = acquire(self.sessions, request_id, "test", seconds)
        assert lease is not None
        return lease

    def work_until(self, request_id: str, stage: str, lease: Lease | None = None) -> Lease:
        """Bring a queued request into `stage`."""
        lease = lease or self.lease(request_id)
        for name in WORK[: WORK.index(stage) + 1]:
            with self.removal() as removal:
                removal.transition(request_id, start_event(name), actor="worker:test", token=lease.token)
        return lease

    def activate(self, request_id: str) -> None:
        lease = self.work_until(request_id, "publish")
        with self.removal() as removal:
            state = removal.transition(request_id, Event.ACTIVATE, actor="worker:test", token=lease.token)
            assert state is State.ACTIVE
        lease.release()


def assert_problem(response: Response, status: int, type: str) -> Json:
    """Check that `response` is a problem document of this type with a hint, and return it."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem: Json = response.json()
    assert problem["type"] == f"urn:lethe:problem:{type}"
    assert problem["status"] == status
    assert problem["title"]
    assert problem["detail"]
    assert problem["hint"]
    return problem


class Place:
    """A database and a Redis of one test package's own, and applications on them; emptied between tests."""

    def __init__(self, database_url: str, redis_url: str) -> None:
        self.settings = load_settings(
            _env_file=None, database_url=database_url, redis_url=redis_url, device="cpu"
        )
        self.engine = create_engine_from(self.settings)
        self.sessions = session_factory(self.engine)
        self._open = ExitStack()
        self._clients: dict[str, TestClient] = {}
        self.shared: tuple[str, Service] | None = None

    def client(self, policy: str) -> TestClient:
        if policy not in self._clients:
            settings = self.settings.model_copy(update={"review_policy": policy})
            app = create_app(settings, with_engine=False)
            client = TestClient(app, raise_server_exceptions=False)
            self._clients[policy] = self._open.enter_context(client)
        return self._clients[policy]

    def service(self, policy: str) -> Service:
        settings = self.settings.model_copy(update={"review_policy": policy})
        return Service(self.client(policy), settings, self.sessions)

    def empty(self) -> None:
        self.shared = None
        with self.sessions.begin() as session:
            session.execute(text("SET LOCAL session_replication_role = replica"))  # in any order
            for table in Base.metadata.tables:
                session.execute(text(f"DELETE FROM {table}"))
        with redis.Redis.from_url(self.settings.redis_url) as client:
            client.flushdb()

    def close(self) -> None:
        self._open.close()
        self.engine.dispose()


@pytest.fixture(scope="package")
def place(postgres: EmbeddedPostgres, valkey: EmbeddedValkey) -> Iterator[Place]:
    name = f"place_{uuid.uuid4().hex}"
    postgres.clone_database(name, "lethe_template")
    made = Place(postgres.url(name), valkey.url(63))
    yield made
    made.close()
    postgres.drop_database(name)


@pytest.fixture
def own_settings(place: Place) -> Settings:
    """Settings on an empty database."""
    place.empty()
    return place.settings


@pytest.fixture
def sessions(own_settings: Settings, place: Place) -> SessionFactory:
    """Sessions on an empty database."""
    return place.sessions


@pytest.fixture
def service(own_settings: Settings, place: Place) -> Service:
    """The service with automatic review, empty."""
    return place.service("auto")


@pytest.fixture
def manual(own_settings: Settings, place: Place) -> Service:
    """The service with review by an operator, empty."""
    return place.service("manual")


@pytest.fixture
def shared(place: Place, request: pytest.FixtureRequest) -> Service:
    """One service for a module's tests that leave nothing behind, or do not mind what others leave."""
    module = request.node.parent.nodeid.partition("::")[0]
    if place.shared is None or place.shared[0] != module:
        place.empty()
        place.shared = (module, place.service("auto"))
    return place.shared[1]


__all__ = ["manual", "own_settings", "place", "service", "sessions", "shared"]
