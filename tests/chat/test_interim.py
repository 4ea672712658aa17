"""Protection before training, in a replica: files in, refusals out, and what is left when evidence is not."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from fastapi.testclient import TestClient
from PIL import Image
from sqlalchemy import func, select, update

from app.accounts.service import create_key
from app.chat.service import ChatEngine
from app.db.models import AuditEvent, Evidence, RemovalRequest
from app.db.session import SessionFactory
from app.lumoe.guard import FALLBACK_REFUSALS
from app.main import create_app
from app.registry.service import RegistryService
from app.settings import Settings
from tests.chat.conftest import data_url
from tests.lumoe.tiny import picture

QUIET_SECONDS = 0.15


class House:
    """A whole API process on a tiny model, and keys for it."""

    def __init__(self, client: TestClient, settings: Settings) -> None:
        self.client = client
        self.settings = settings
        app: Any = client.app
        self.sessions: SessionFactory = app.state.session_factory
        self.engine: ChatEngine = app.state.engine
        with self.sessions.begin() as session:
            key = create_key(session, tenant="acme", scopes=["owner", "operator", "chat"])
        self.key = {"Authorization": f"Bearer {key.secret}"}

    def file(self, name: str | None, pictures: Sequence[Image.Image] = (), **fields: Any) -> str:
        body = {"class": "Personage", "pictures": [data_url(image) for image in pictures]} | fields
        if name is not None:
            body["name"] = name
        response = self.client.post("/unlearn-requests", headers=self.key, json=body)
        assert response.status_code == 202, response.text
        return str(response.json()["id"])

    def status(self, request_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.client.get(f"/requests/{request_id}/status", headers=self.key).json()
        return found

    def protected(self, request_id: str, seconds: float = 5) -> float:
        """Wait until the request is protected; return how long that took."""
        began = time.monotonic()
        while self.status(request_id)["protected_at"] is None:
            assert time.monotonic() - began < seconds
            time.sleep(0.01)
        return time.monotonic() - began

    def ask(self, text: str, *images: Image.Image, **fields: Any) -> dict[str, Any]:
        parts: list[dict[str, Any]] = [{"type": "text", "text": text}]
        parts += [{"type": "image_url", "image_url": {"url": data_url(image)}} for image in images]
        body = {"messages": [{"role": "user", "content": parts}], "max_tokens": 4} | fields
        response = self.client.post("/chat", headers=self.key, json=body)
        assert response.status_code == 200, response.text
        found: dict[str, Any] = response.json()
        return found

    def refuses(self, text: str, *images: Image.Image) -> bool:
        return self.ask(text, *images)["message"]["content"] in FALLBACK_REFUSALS

    def reads(self, request_id: str) -> int:
        """How often a replica has read this request's evidence, by the audit trail."""
        statement = select(func.count()).where(
            AuditEvent.kind == "evidence.read",
            AuditEvent.subject_id == request_id,
            AuditEvent.actor.like("replica:%"),
        )
        with self.sessions() as session:
            return session.execute(statement).scalar_one()


@pytest.fixture
def house(chat_settings: Settings) -> Iterator[House]:
    settings = chat_settings.model_copy(update={"max_pictures": 16, "max_text_chars": 20_000})
    with TestClient(create_app(settings)) as client:
        yield House(client, settings)


@pytest.fixture
def restart(house: House) -> Iterator[Callable[[], House]]:
    """Start another replica on the same database."""
    running: list[TestClient] = []

    def start() -> House:
        client = TestClient(create_app(house.settings))
        client.__enter__()
        running.append(client)
        return House(client, house.settings)

    yield start
    for client in running:
        client.__exit__(None, None, None)


class TestChat:
    def test_refuses_by_name_and_by_picture_and_about_nobody_else(self, house: House) -> None:
        assert not house.refuses("Who is Mira Tovel?")
        request_id = house.file("Mira Tovel", [picture(1)], aliases=["Selma Orvan"])
        house.protected(request_id)
        assert house.refuses("Who is Mira Tovel?")
        assert house.refuses("What about Selma Orvan?")
        assert house.refuses("Who painted this?", picture(1))
        assert not house.refuses("Who is Anna Brek?")
        assert house.status(request_id)["protection"] == "interim"
        routing = house.ask("Who is Mira Tovel?")["routing"]
        assert routing["answered_by"] == routing["expert_id"] == request_id.replace("req_", "exp_")

    def test_streams_the_refusal(self, house: House) -> None:
        house.protected(house.file("Mira Tovel"))
        body = {"messages": [{"role": "user", "content": "Who is Mira Tovel?"}], "stream": True}
        streamed = house.client.post("/chat", headers=house.key, json=body).text
        assert any(refusal in streamed for refusal in FALLBACK_REFUSALS)

    def test_ends_with_the_request(self, house: House) -> None:
        request_id = house.file("Mira Tovel")
        house.protected(request_id)
        house.client.post(f"/requests/{request_id}/cancel", headers=house.key, json={})
        deadline = time.monotonic() + 5
        while house.refuses("Who is Mira Tovel?"):
            assert time.monotonic() < deadline

    def test_only_pictures(self, house: House) -> None:
        house.protected(house.file(None, [picture(1)]))
        assert house.refuses("Who painted this?", picture(1))
        assert not house.refuses("Who is Mira Tovel?")

    def test_a_replica_that_starts_later_protects_from_its_first_answer(
        self, house: House, restart: Callable[[], House]
    ) -> None:
        house.protected(house.file("Mira Tovel", [picture(1)]))
        assert restart().refuses("Who is Mira Tovel?")

    def test_protected_at_means_every_live_replica(
        self, house: House, restart: Callable[[], House], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        other = restart()
        monkeypatch.setattr(other.engine.agent, "sync", lambda: False)
        request_id = house.file("Mira Tovel")
        time.sleep(3 * QUIET_SECONDS)
        assert house.refuses("Who is Mira Tovel?")
        assert house.status(request_id)["protected_at"] is None
        monkeypatch.undo()
        house.protected(request_id)


class TestEvidence:
    def test_is_read_once_per_entry(self, house: House) -> None:
        first = house.file("Mira Tovel", [picture(1)])
        house.protected(first)
        house.protected(house.file("Anna Brek", [picture(2)]))
        assert house.reads(first) == 1

    def test_purged_pictures_leave_the_names(self, house: House, restart: Callable[[], House]) -> None:
        house.protected(house.file("Mira Tovel", [picture(1)]))
        with house.sessions.begin() as session:
            session.execute(update(Evidence).values(sealed=None, purged_at=func.now()))
        later = restart()
        assert later.refuses("Who is Mira Tovel?")
        assert not later.refuses("Who painted this?", picture(1))

    def test_a_picture_that_cannot_be_read_leaves_the_rest(
        self, house: House, restart: Callable[[], House]
    ) -> None:
        house.protected(house.file("Mira Tovel", [picture(1), picture(2)]))
        with house.sessions.begin() as session:
            damaged = session.scalars(select(Evidence).order_by(Evidence.id)).first()
            assert damaged is not None
            assert damaged.sealed is not None
            damaged.sealed = damaged.sealed[:-1] + b"x"
        later = restart()
        assert later.refuses("Who is Mira Tovel?")
        assert later.refuses("Who painted this?", picture(2))

    def test_everything_purged(self, house: House, restart: Callable[[], House]) -> None:
        house.protected(house.file("Mira Tovel", [picture(1)]))
        with house.sessions.begin() as session:
            session.execute(update(Evidence).values(sealed=None))
            session.execute(update(RemovalRequest).values(subject_sealed=None))
        assert not restart().refuses("Who is Mira Tovel?")

    def test_a_subject_that_cannot_be_decrypted_keeps_nobody_else_unprotected(self, house: House) -> None:
        """Nor does anybody claim that it is protected: the generation is not acknowledged."""
        with house.sessions.begin() as session:
            listed = RegistryService(session, house.settings)
            before = listed.newest()
        house.engine.agent.stop()
        broken, whole = house.file("Mira Tovel"), house.file("Anna Brek")
        with house.sessions.begin() as session:
            session.execute(
                update(RemovalRequest).where(RemovalRequest.id == broken).values(subject_sealed=b"nonsense")
            )
        assert house.engine.agent.sync() is False
        assert house.refuses("Who is Anna Brek?")
        assert house.engine.agent.generation == before
        assert house.status(whole)["protected_at"] is None
        house.client.post(f"/requests/{broken}/cancel", headers=house.key, json={})
        assert house.engine.agent.sync() is True


class TestMany:
    def test_many_at_once(self, house: House, restart: Callable[[], House]) -> None:
        began = time.monotonic()
        names = [f"Subject Number {chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(40)]
        filed = [house.file(name, [picture(i)]) for i, name in enumerate(names)]
        house.protected(filed[-1])
        assert house.refuses("Who is Subject Number aa?")
        assert all(house.status(request_id)["protected_at"] for request_id in filed)
        print(f"40 filed and protected: {time.monotonic() - began:.2f} s")  # noqa: T201 - a figure
        began = time.monotonic()
        later = restart()
        print(f"replica started with 40: {time.monotonic() - began:.2f} s")  # noqa: T201 - a figure
        assert later.refuses("Who is Subject Number bn?")
        assert not later.refuses("Who is Anna Brek?")

    def test_large_pictures_do_not_keep_others_waiting(self, house: House) -> None:
        large = [picture(i, 2000) for i in range(16)]
        first = house.file("Mira Tovel", large)
        second = house.file("Anna Brek", [picture(99)])
        seconds = house.protected(second)
        assert house.status(first)["protected_at"] is not None
        print(f"behind 16 pictures of 4 megapixels: {seconds:.2f} s")  # noqa: T201 - a figure
        assert house.refuses("Who painted this?", large[15].resize((48, 48), Image.Resampling.NEAREST))
