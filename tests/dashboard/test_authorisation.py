"""Which page exists for whom: the dashboard's rows of the authorisation table, with sessions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from sqlalchemy import select

from app.accounts.service import SCOPES
from app.db.models import AuditEvent, Evidence
from tests.api.test_authorisation import MATRIX, PAGES
from tests.dashboard.browsing import Browser, browser
from tests.service import Place, Response, Service

OBJECTS = [key for key in PAGES if "{" in key[1]]


@dataclass
class World:
    """A request of each of two tenants, and a browser for every scope of each."""

    service: Service
    browsers: dict[tuple[str, str], Browser] = field(default_factory=dict)
    ids: dict[str, dict[str, str]] = field(default_factory=dict)

    def ask(self, endpoint: tuple[str, str], who: Browser, owner: str = "acme") -> Response:
        method, path = endpoint
        for name, value in self.ids[owner].items():
            path = path.replace(f"{{{name}}}", value)
        if method == "GET":
            return who.get(path)
        body: dict[str, Any] = MATRIX[endpoint].body or {}
        return who.send(path, **body)


def _id(endpoint: tuple[str, str]) -> str:
    return " ".join(endpoint)


@pytest.fixture(scope="module")
def world(place: Place) -> Iterator[World]:
    place.empty()
    service = place.service("auto")
    made = World(service)
    for tenant in ("acme", "rival"):
        made.browsers[tenant, "all"] = browser(service, service.key(tenant, *SCOPES))
        for scope in SCOPES:
            made.browsers[tenant, scope] = browser(service, service.key(tenant, scope))
        key = service.key(tenant, "owner")
        request_id = service.file(f"Subject of {tenant}", key=key)["id"]
        service.post(f"/requests/{request_id}/cancel", key)
        with service.sessions() as session:
            seq = session.scalars(select(AuditEvent.seq).where(AuditEvent.subject_id == request_id)).first()
            evidence = session.scalars(select(Evidence.id).where(Evidence.request_id == request_id)).one()
        made.ids[tenant] = {"request_id": request_id, "seq": str(seq), "evidence_id": evidence}
    service.get("/audit/checkpoint", service.root)
    made.ids["nobody"] = {
        "request_id": "req_" + "0" * 32, "seq": "999999", "evidence_id": "evd_" + "0" * 32
    }  # fmt: skip
    yield made
    place.empty()


@pytest.mark.parametrize("endpoint", PAGES, ids=_id)
def test_without_a_session(world: World, endpoint: tuple[str, str]) -> None:
    path = endpoint[1].format_map(world.ids["acme"])
    answer = Browser(world.service.client).ask(endpoint[0], path)
    assert answer.status_code == 303
    assert answer.headers["location"].startswith("/dashboard/login")


@pytest.mark.parametrize("endpoint", PAGES, ids=_id)
def test_every_scope(world: World, endpoint: tuple[str, str]) -> None:
    row = MATRIX[endpoint]
    for scope in SCOPES:
        who = world.browsers["acme", scope]
        if endpoint[1] == "/dashboard/logout":
            who = browser(world.service, world.service.key("acme", scope))
        answer = world.ask(endpoint, who)
        expected = row.answer if scope in row.scopes else 403
        assert answer.status_code == expected, (scope, answer.text)
        if answer.status_code >= 400:
            assert answer.headers["content-type"].startswith("text/html")


@pytest.mark.parametrize("endpoint", OBJECTS, ids=_id)
def test_anothers_object_is_answered_as_none(world: World, endpoint: tuple[str, str]) -> None:
    who = world.browsers["rival", "all"]
    theirs, nobodys = world.ask(endpoint, who), world.ask(endpoint, who, "nobody")
    assert theirs.status_code == nobodys.status_code == 404
    assert world.ids["acme"]["request_id"] not in theirs.text
    assert "Subject of acme" not in theirs.text


@pytest.mark.parametrize(
    "endpoint", [key for key in PAGES if key[0] == "GET" and key not in OBJECTS], ids=_id
)
def test_pages_show_ones_own_alone(world: World, endpoint: tuple[str, str]) -> None:
    page = world.ask(endpoint, world.browsers["acme", "all"]).text
    assert world.ids["rival"]["request_id"] not in page


def test_navigation_has_what_the_key_may_open(world: World) -> None:
    for scope in SCOPES:
        who = world.browsers["acme", scope]
        page = who.get("/dashboard").text
        for _, path in (key for key in PAGES if key[0] == "GET" and key not in OBJECTS):
            if f'<li><a href="{path}"' in page:
                assert who.get(path).status_code == 200, (scope, path)
