"""Who may do what: every endpoint, every scope, anonymous and dead keys, own tenant and another's.

The endpoints come from the application itself: one without a row in `MATRIX` fails, and so does a row without
an endpoint.
"""

import json
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, Literal

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from prometheus_client import CollectorRegistry
from sqlalchemy import select
from starlette.routing import Route

from app.accounts.service import SCOPES, create_key, revoke_key
from app.db.models import AuditEvent, Evidence, RemovalRequest
from app.kit.clock import utcnow
from app.main import create_app
from app.settings import load_settings
from app.webhooks.service import WebhookService
from tests.service import Json, Place, Response, Service, assert_problem, data_url, png

Kind = Literal["public", "collection", "object", "system", "page", "form"]
READERS = frozenset({"owner", "operator", "auditor"})
OWNERS = frozenset({"owner", "operator"})
OPERATORS = frozenset({"operator"})
AUDITORS = frozenset({"auditor", "operator"})
NOBODY: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Row:
    """What is right for one endpoint.

    Args:
        kind: `public` needs no key; `collection` shows or makes one's own tenant's objects; `object` is
            one of them; `system` says nothing about any tenant's objects.
            `page` and `form` are the dashboard's: the same with a session in place of a key, tried in
            tests/dashboard/test_authorisation.py.
        scopes: which let in.
        answer: what somebody who may gets: what comes of it is other tests' business.
        body: what is sent.
        query: the same.
    """

    kind: Kind
    scopes: frozenset[str] = NOBODY
    answer: int = 200
    body: Json | None = None
    query: str = ""


REASON: Json = {"reason": "why not"}
POLICY: Json = {"based_on": 0, "reason": "why not", "rules": {"review": "manual"}}
MATRIX: dict[tuple[str, str], Row] = {
    ("GET", "/"): Row("public"),
    ("GET", "/healthz"): Row("public"),
    ("GET", "/readyz"): Row("public", answer=503),  # there is no engine here
    ("GET", "/docs"): Row("public"),
    ("GET", "/docs/oauth2-redirect"): Row("public"),
    ("GET", "/redoc"): Row("public"),
    ("GET", "/openapi.json"): Row("public"),
    ("GET", "/.well-known/jwks.json"): Row("public"),
    ("POST", "/unlearn-requests"): Row(
        "collection", OWNERS, 202, {"name": "Elodie Brandt", "class": "Personage"}
    ),
    ("GET", "/requests"): Row("collection", READERS),
    ("GET", "/requests/{request_id}"): Row("object", READERS),
    ("GET", "/requests/{request_id}/status"): Row("object", READERS),
    ("GET", "/requests/{request_id}/events"): Row("object", READERS),
    ("GET", "/requests/{request_id}/report"): Row("object", READERS),
    ("GET", "/requests/{request_id}/failures"): Row("object", OPERATORS),
    ("GET", "/requests/{request_id}/certificate"): Row("object", READERS, 409),
    ("POST", "/requests/{request_id}/approve"): Row("object", OPERATORS, 409, REASON),
    ("POST", "/requests/{request_id}/reject"): Row("object", OPERATORS, 409, {"reason_code": "no_match"}),
    ("POST", "/requests/{request_id}/retry"): Row("object", OPERATORS, 409, REASON),
    ("POST", "/requests/{request_id}/cancel"): Row("object", OWNERS, 409, REASON),
    ("POST", "/requests/{request_id}/revoke"): Row("object", OWNERS, 409, REASON),
    ("POST", "/requests/{request_id}/evidence"): Row("object", OWNERS, 409, {"pictures": [data_url(png())]}),
    ("GET", "/requests/{request_id}/evidence"): Row("object", OPERATORS),
    ("GET", "/requests/{request_id}/evidence/{evidence_id}"): Row("object", OPERATORS),
    ("GET", "/policy"): Row("system", OPERATORS),
    ("PUT", "/policy"): Row("system", OPERATORS, 403, POLICY),  # root's alone
    ("GET", "/policy/versions"): Row("system", OPERATORS),
    ("GET", "/measurements/lifelong"): Row("system", READERS),
    ("POST", "/chat/compare"): Row("system", OPERATORS, 422, {"messages": []}),
    ("GET", "/chat/attacks"): Row("system", OPERATORS),
    ("POST", "/chat/attacks"): Row("system", OPERATORS, 404, {"request_id": "req_0", "attack": "none"}),
    ("GET", "/chat/gate"): Row("system", OPERATORS, 503),
    ("POST", "/chat"): Row("system", frozenset({"chat", "operator"}), 422, {"messages": []}),
    ("POST", "/v1/chat/completions"): Row("system", frozenset({"chat", "operator"}), 422, {"messages": []}),
    ("GET", "/v1/models"): Row("system", frozenset({"chat", "operator"})),
    ("GET", "/v1/models/{model_id}"): Row("system", frozenset({"chat", "operator"})),
    ("GET", "/metrics"): Row("system", frozenset({"metrics"})),
    ("GET", "/experts"): Row("collection", OPERATORS),
    ("GET", "/experts/interim"): Row("collection", OPERATORS),
    ("GET", "/experts/generations"): Row("collection", OPERATORS),
    ("POST", "/experts/rollback"): Row("system", OPERATORS, 403, {"generation": 0}),  # root's alone
    ("POST", "/webhooks"): Row("collection", OWNERS, 422, {"url": "http://127.0.0.1/"}),
    ("GET", "/webhooks"): Row("collection", OWNERS),
    ("GET", "/webhooks/{webhook_id}"): Row("object", OWNERS),
    ("DELETE", "/webhooks/{webhook_id}"): Row("object", OWNERS, 204),
    ("GET", "/webhooks/{webhook_id}/deliveries"): Row("object", OWNERS),
    ("POST", "/webhooks/{webhook_id}/enable"): Row("object", OWNERS),
    ("POST", "/webhooks/{webhook_id}/rotate"): Row("object", OWNERS),
    ("POST", "/webhooks/{webhook_id}/test"): Row("object", OWNERS),
    ("GET", "/audit/events"): Row("collection", AUDITORS),
    ("GET", "/audit/events/{seq}/proof"): Row("object", AUDITORS),
    ("GET", "/audit/export"): Row("collection", AUDITORS),
    ("POST", "/audit/verify"): Row("system", AUDITORS, body={"checkpoints": []}),
    ("GET", "/audit/checkpoint"): Row("system", AUDITORS),
    ("GET", "/audit/checkpoints"): Row("system", AUDITORS),
    ("GET", "/audit/consistency"): Row("system", AUDITORS, 404, query="?older=1&newer=1"),
    ("GET", "/dashboard/login"): Row("public"),
    ("POST", "/dashboard/login"): Row("public", answer=415),
    ("GET", "/dashboard/static/{name}"): Row("public"),
    ("GET", "/dashboard"): Row("page", frozenset(SCOPES)),
    ("POST", "/dashboard/logout"): Row("form", frozenset(SCOPES), 303),
    ("GET", "/dashboard/requests"): Row("page", READERS),
    ("POST", "/dashboard/requests"): Row("form", OWNERS, 422, {"class": "Personage"}),
    ("GET", "/dashboard/requests/new"): Row("page", OWNERS),
    ("GET", "/dashboard/requests/{request_id}"): Row("page", READERS),
    ("GET", "/dashboard/requests/{request_id}/live"): Row("page", READERS),
    ("GET", "/dashboard/requests/{request_id}/report"): Row("page", READERS),
    ("GET", "/dashboard/requests/{request_id}/certificate"): Row("page", READERS, 409),
    ("GET", "/dashboard/requests/{request_id}/review"): Row("page", OPERATORS),
    ("POST", "/dashboard/requests/{request_id}/review"): Row("form", OPERATORS, 503),  # no engine here
    ("GET", "/dashboard/requests/{request_id}/failures"): Row("page", OPERATORS),
    ("GET", "/dashboard/requests/{request_id}/pictures/{evidence_id}"): Row("page", OPERATORS),
    ("POST", "/dashboard/requests/{request_id}/approve"): Row("form", OPERATORS, 409, REASON),
    ("POST", "/dashboard/requests/{request_id}/reject"): Row(
        "form", OPERATORS, 409, {"reason_code": "no_match"}
    ),
    ("POST", "/dashboard/requests/{request_id}/retry"): Row("form", OPERATORS, 409, REASON),
    ("POST", "/dashboard/requests/{request_id}/cancel"): Row("form", OWNERS, 409, REASON),
    ("POST", "/dashboard/requests/{request_id}/revoke"): Row("form", OWNERS, 409, REASON),
    ("POST", "/dashboard/requests/{request_id}/evidence"): Row("form", OWNERS, 422),
    ("GET", "/dashboard/queue"): Row("page", OPERATORS),
    ("GET", "/dashboard/registry"): Row("page", OPERATORS),
    ("POST", "/dashboard/registry/rollback"): Row("form", OPERATORS, 403, {"generation": "0"}),
    ("GET", "/dashboard/policy"): Row("page", OPERATORS),
    ("POST", "/dashboard/policy"): Row("form", OPERATORS, 403, {"based_on": "0", "reason": "why not"}),
    ("GET", "/dashboard/playground"): Row("page", frozenset({"chat", "operator"})),
    ("POST", "/dashboard/playground"): Row("form", frozenset({"chat", "operator"}), 503, {"message": "Hi"}),
    ("POST", "/dashboard/playground/attack"): Row("form", OPERATORS, 503, {"about": "x", "attack": "hex"}),
    ("GET", "/dashboard/verification"): Row("page", READERS),
    ("GET", "/dashboard/audit"): Row("page", AUDITORS),
    ("GET", "/dashboard/audit/events/{seq}"): Row("page", AUDITORS),
    ("GET", "/dashboard/audit/export"): Row("page", AUDITORS),
    ("POST", "/dashboard/audit/verify"): Row("form", AUDITORS),
    ("POST", "/dashboard/audit/checkpoint"): Row("form", AUDITORS, 303),
}
PAGES = [key for key, row in MATRIX.items() if row.kind in ("page", "form")]
GUARDED = [key for key, row in MATRIX.items() if row.kind != "public" and key not in PAGES]
OBJECTS = [key for key in GUARDED if MATRIX[key].kind == "object"]
COLLECTIONS = [key for key in GUARDED if MATRIX[key].kind == "collection"]


def endpoints() -> set[tuple[str, str]]:
    """Every endpoint of the application as it is served, with an engine."""
    app = create_app(load_settings(_env_file=None), with_engine=True)
    found = set(_below(app.routes))
    described = {
        (method.upper(), path) for path, methods in app.openapi()["paths"].items() for method in methods
    }
    assert described <= found, "this test does not see all that is served"
    return found


def _below(routes: Sequence[object]) -> Iterator[tuple[str, str]]:
    for route in routes:
        inner = getattr(route, "original_router", None)  # how FastAPI keeps what `include_router` was given
        if inner is not None:
            yield from _below(inner.routes)
            continue
        assert isinstance(route, Route), f"{route} is no endpoint that this test knows: teach it"
        path = route.path.replace(":path}", "}")
        yield from ((method, path) for method in route.methods or () if method != "HEAD")


def test_every_endpoint_has_a_row_and_every_row_an_endpoint() -> None:
    assert endpoints() == set(MATRIX)


@dataclass
class World:
    """Two tenants with an object of every kind each, and a key for every scope of each."""

    client: TestClient
    service: Service
    keys: dict[tuple[str, str], str] = field(default_factory=dict)
    ids: dict[str, dict[str, str]] = field(default_factory=dict)

    def call(self, endpoint: tuple[str, str], key: str | None, tenant: str = "acme") -> Response:
        """Ask for the tenant's object, with a key or without."""
        method, path = endpoint
        row = MATRIX[endpoint]
        for name, value in self.ids[tenant].items():
            path = path.replace(f"{{{name}}}", value)
        assert "{" not in path, f"{path}: give the world an object of this kind"
        headers = {"Authorization": f"Bearer {key}"} if key is not None else {}
        arguments: dict[str, Any] = {"json": row.body} if row.body is not None else {}
        response = self.client.request(method, path + row.query, headers=headers, **arguments)
        if method == "DELETE" and response.status_code == 204:
            self.ids[tenant]["webhook_id"] = self.webhook(tenant)
        return response

    def webhook(self, tenant: str) -> str:
        """Make a webhook of the tenant's; nothing is ever sent to it, since its address is private."""
        principal = self.service.principal(self.keys[tenant, "owner"])
        settings = self.service.settings.model_copy(update={"webhook_private_addresses": True})
        with self.service.sessions.begin() as session:
            service = WebhookService(session, settings)
            webhook, _ = service.create(principal, "https://127.0.0.1:9/", "")
            return webhook.id

    def states(self) -> list[tuple[str, str]]:
        with self.service.sessions() as session:
            rows = select(RemovalRequest.id, RemovalRequest.state).order_by(RemovalRequest.id)
            return [(row.id, row.state) for row in session.execute(rows)]


@asynccontextmanager
async def _without_engine(_: FastAPI) -> AsyncIterator[None]:
    yield


def assert_refused(endpoint: tuple[str, str], response: Response, status: int, type: str) -> Json:
    """Check for a problem document, or its like in OpenAI's envelope, and return it."""
    if not endpoint[1].startswith("/v1/"):
        return assert_problem(response, status, type)
    assert response.status_code == status, response.text
    found: Json = response.json()
    codes = {"unauthenticated": "invalid_api_key", "forbidden": "insufficient_permissions"}
    assert found["error"]["code"] == codes[type]
    assert found["error"]["message"]
    return found


@pytest.fixture(scope="module")
def world(place: Place) -> Iterator[World]:
    """The application with all its routes; its engine is not started, and nothing here gets that far."""
    place.empty()
    service = place.service("auto")
    app = create_app(place.settings, with_engine=True)
    app.router.lifespan_context = _without_engine
    app.state.engine = SimpleNamespace(
        mllm=SimpleNamespace(source="demo"), started_at=utcnow(), ready=False, generation=0,
        troubles=["not loaded"], metrics=CollectorRegistry(),
    )  # fmt: skip
    client = TestClient(app, raise_server_exceptions=False)
    made = World(client, service)
    for tenant in ("acme", "rival"):
        for scope in SCOPES:
            made.keys[tenant, scope] = service.key(tenant, scope)
        made.keys[tenant, "all"] = service.key(tenant, *SCOPES)
        request_id = service.file(f"Subject of {tenant}", key=made.keys[tenant, "owner"])["id"]
        cancelled = service.post(f"/requests/{request_id}/cancel", made.keys[tenant, "owner"])
        assert cancelled.status_code == 200
        with service.sessions() as session:
            seq = session.scalars(select(AuditEvent.seq).where(AuditEvent.subject_id == request_id)).first()
            evidence = session.scalars(select(Evidence.id).where(Evidence.request_id == request_id)).one()
        made.ids[tenant] = {
            "request_id": request_id, "seq": str(seq), "model_id": "demo", "name": "style.css",
            "evidence_id": evidence, "webhook_id": made.webhook(tenant),
        }  # fmt: skip
    for scope in SCOPES:
        made.keys["root", scope] = service.key("root", scope)
    with service.sessions.begin() as session:
        gone = create_key(session, tenant="acme", scopes=SCOPES)
        made.keys["acme", "revoked"] = gone.secret
        revoke_key(session, gone.id)
        expired = create_key(session, tenant="acme", scopes=SCOPES, expires_in=timedelta(seconds=-1))
        made.keys["acme", "expired"] = expired.secret
    service.get("/audit/checkpoint", made.keys["acme", "auditor"])
    with client:
        yield made
    app.state.session_factory.kw["bind"].dispose()


def _id(endpoint: tuple[str, str]) -> str:
    return " ".join(endpoint)


@pytest.mark.parametrize("endpoint", [key for key, row in MATRIX.items() if row.kind == "public"], ids=_id)
def test_public(world: World, endpoint: tuple[str, str]) -> None:
    response = world.call(endpoint, None)
    assert response.status_code == MATRIX[endpoint].answer
    for tenant in ("acme", "rival"):
        assert world.ids[tenant]["request_id"] not in response.text


@pytest.mark.parametrize("endpoint", GUARDED, ids=_id)
class TestWithoutAKey:
    def test_anonymous(self, world: World, endpoint: tuple[str, str]) -> None:
        response = world.call(endpoint, None)
        assert_refused(endpoint, response, 401, "unauthenticated")
        assert response.headers["www-authenticate"].startswith("Bearer")

    def test_dead_key(self, world: World, endpoint: tuple[str, str]) -> None:
        """Revoked, expired and unknown keys are answered alike."""
        answers = [
            assert_refused(endpoint, world.call(endpoint, key), 401, "unauthenticated")
            for key in (world.keys["acme", "revoked"], world.keys["acme", "expired"], "lethe_" + "x" * 43)
        ]
        assert answers[0] == answers[1] == answers[2]


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("endpoint", GUARDED, ids=_id)
class TestScopes:
    def test_own_tenant(self, world: World, endpoint: tuple[str, str], scope: str) -> None:
        row = MATRIX[endpoint]
        response = world.call(endpoint, world.keys["acme", scope])
        if scope in row.scopes:
            assert response.status_code == row.answer, response.text
        else:
            problem = assert_refused(endpoint, response, 403, "forbidden")
            needed = problem.get("needs_one_of")
            assert needed is None if "error" in problem else set(needed or ()) == row.scopes

    def test_other_tenant(self, world: World, endpoint: tuple[str, str], scope: str) -> None:
        """Another's object is not there; a key without the scope does not learn even that."""
        row, before = MATRIX[endpoint], world.states()
        response = world.call(endpoint, world.keys["rival", scope], tenant="acme")
        if scope not in row.scopes:
            assert_refused(endpoint, response, 403, "forbidden")
        elif row.kind == "object":
            assert response.status_code == 404, response.text
            assert response.headers["content-type"] == "application/problem+json"
        assert row.kind != "object" or world.states() == before
        request_id = world.ids["acme"]["request_id"]
        answer = response.text.replace(
            f"/requests/{request_id}", "/requests/..."
        )  # `instance` repeats the path
        assert request_id not in answer


@pytest.mark.parametrize("endpoint", OBJECTS, ids=_id)
class TestAnothersObject:
    def test_is_answered_as_one_that_does_not_exist(self, world: World, endpoint: tuple[str, str]) -> None:
        """Not a word of the answer tells whether somebody else has such an object."""
        key = world.keys["rival", "all"]
        theirs = world.call(endpoint, key, tenant="acme")
        world.ids["nobody"] = {
            "request_id": "req_" + "0" * 32, "seq": "999999", "evidence_id": "evd_" + "0" * 32,
            "webhook_id": "whk_" + "0" * 32,
        }  # fmt: skip
        nobodys = world.call(endpoint, key, tenant="nobody")
        assert theirs.status_code == nobodys.status_code == 404
        assert _without_ids(theirs) == _without_ids(nobodys)

    def test_root_sees_it(self, world: World, endpoint: tuple[str, str]) -> None:
        for scope in sorted(MATRIX[endpoint].scopes):
            response = world.call(endpoint, world.keys["root", scope], tenant="acme")
            assert response.status_code == MATRIX[endpoint].answer, response.text


def _without_ids(response: Response) -> Json:
    problem: Json = json.loads(
        re.sub(r"(?:req|evd|whk)_[0-9a-f]{32}|(?<=events/)\d+|(?<=event )\d+", "ID", response.text)
    )
    return problem


@pytest.mark.parametrize("endpoint", [key for key in COLLECTIONS if key[0] == "GET"], ids=_id)
class TestCollections:
    def test_hold_ones_own_alone(self, world: World, endpoint: tuple[str, str]) -> None:
        of = "webhook_id" if endpoint[1] == "/webhooks" else "request_id"
        own, other = (world.ids[tenant][of] for tenant in ("acme", "rival"))
        text = world.call(endpoint, world.keys["acme", "all"]).text
        assert other not in text
        if not endpoint[1].startswith("/experts"):  # there is nobody to refuse any more
            assert own in text

    def test_of_root_hold_all(self, world: World, endpoint: tuple[str, str]) -> None:
        for scope in sorted(MATRIX[endpoint].scopes):
            text = world.call(endpoint, world.keys["root", scope]).text
            of = "webhook_id" if endpoint[1] == "/webhooks" else "request_id"
            if not endpoint[1].startswith("/experts"):
                assert all(world.ids[tenant][of] in text for tenant in ("acme", "rival"))


def test_a_key_with_every_scope_may_do_everything_of_its_own(world: World) -> None:
    for endpoint in GUARDED:
        assert world.call(endpoint, world.keys["acme", "all"]).status_code == MATRIX[endpoint].answer, (
            endpoint
        )


def test_an_owner_cannot_widen_its_own_scope(world: World) -> None:
    """There is no endpoint for keys: they are made with the command line alone."""
    assert not [path for _, path in endpoints() if "key" in path and path != "/.well-known/jwks.json"]


@pytest.mark.parametrize("scope", sorted(set(SCOPES) - {"operator"}))
def test_who_is_on_the_list_is_for_operators(world: World, scope: str) -> None:
    for path in ("/experts", "/experts/interim"):
        assert_problem(world.call(("GET", path), world.keys["acme", scope]), 403, "forbidden")
