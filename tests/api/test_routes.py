"""Many writers at once: nobody waits for a thread while holding a connection or a lock."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import text
from sqlalchemy.orm import Session

from app.api.deps import SessionDep, get_session
from app.api.routes import CommittingRoute, at_most, committing
from app.db.session import SessionFactory
from tests.live import serving
from tests.service import Service

AT_ONCE = 64
"""More than the thread pool and the connection pool hold (40 and 20)."""


class TestManyWriters:
    def test_all_are_answered(self, manual: Service) -> None:
        async def file_all(port: int) -> list[int]:
            url = f"http://127.0.0.1:{port}/unlearn-requests"
            headers = {"Authorization": f"Bearer {manual.owner}"}
            async with httpx.AsyncClient(headers=headers, trust_env=False, timeout=120) as http:
                bodies = [{"name": f"Elodie Brandt {i}", "class": "Personage"} for i in range(AT_ONCE)]
                answers = await asyncio.gather(*(http.post(url, json=body) for body in bodies))
            return [answer.status_code for answer in answers]

        with serving(manual.client.app, manual.settings) as port:  # type: ignore[arg-type]  # a FastAPI
            statuses = asyncio.run(file_all(port))
        assert statuses == [202] * AT_ONCE


@pytest.fixture
def app(sessions: SessionFactory) -> FastAPI:
    app, router = FastAPI(), APIRouter(route_class=CommittingRoute)
    app.state.session_factory = sessions

    @router.post("/{number}")
    def write(number: int, session: SessionDep) -> dict[str, int]:
        session.execute(text("INSERT INTO tenants (id, name) VALUES (:id, :id)"), {"id": f"ten_{number}"})
        if number > 9:
            raise ValueError("too large")
        return {"number": number}

    app.include_router(router)
    return app


class TestCommittingRoute:
    def test_what_has_returned_is_committed(self, app: FastAPI, sessions: SessionFactory) -> None:
        with TestClient(app) as client:
            assert client.post("/7").json() == {"number": 7}
        assert _tenants(sessions) == {"ten_7"}

    def test_what_raises_leaves_nothing(self, app: FastAPI, sessions: SessionFactory) -> None:
        with TestClient(app, raise_server_exceptions=False) as client:
            assert client.post("/10").status_code == 500
        assert _tenants(sessions) == set()

    def test_parameters_are_the_endpoints_own(self, app: FastAPI) -> None:
        operation = app.openapi()["paths"]["/{number}"]["post"]
        assert [parameter["name"] for parameter in operation["parameters"]] == ["number"]


class TestAtMost:
    def test_others_wait_for_no_thread(self) -> None:
        """Ten calls, two at a time; each event loop has a limit of its own."""
        running, most = [0], [0]

        @at_most(2)
        def slow(session: Session) -> int:
            running[0] += 1
            most[0] = max(most[0], running[0])
            time.sleep(0.02)
            running[0] -= 1
            return running[0]

        endpoint = committing(slow)

        async def call_all() -> None:
            await asyncio.gather(*(endpoint(session=Session()) for _ in range(10)))

        for _ in range(2):
            asyncio.run(call_all())
        assert most == [2]


class TestCommitting:
    def test_leaves_others_alone(self) -> None:
        async def runs_by_itself(session: Annotated[Session, Depends(get_session)]) -> None:
            """Nothing."""

        def without_session() -> None:
            """Nothing."""

        assert committing(runs_by_itself) is runs_by_itself
        assert committing(without_session) is without_session


def _tenants(sessions: SessionFactory) -> set[str]:
    with sessions.begin() as session:
        return set(session.execute(text("SELECT id FROM tenants WHERE id LIKE 'ten\\__%'")).scalars())
