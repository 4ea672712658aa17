"""What holds for every endpoint: problems, limits, headers, health, OpenAPI."""

import re
from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import create_engine, text

from app.api.pagination import decode_cursor, decode_number, encode_cursor
from app.kit.errors import InvalidInput
from app.main import create_app
from app.settings import Settings
from tests.service import Service, assert_problem


class TestProblems:
    def test_unknown_path(self, shared: Service) -> None:
        assert assert_problem(shared.get("/nothing"), 404, "not-found")["instance"] == "/nothing"

    @pytest.mark.parametrize(("method", "path"), [("DELETE", "/requests"), ("PUT", "/unlearn-requests")])
    def test_wrong_method(self, shared: Service, method: str, path: str) -> None:
        response = shared.call(method, path)
        assert_problem(response, 405, "method-not-allowed")
        assert response.headers["allow"]

    @pytest.mark.parametrize(
        "header", ["", "Basic eDp5", "Bearer", "Bearer ", "Bearer x", "bearer lethe_" + "x" * 43, "lethe_x"]
    )
    def test_invalid_key(self, shared: Service, header: str) -> None:
        response = shared.client.get("/requests", headers={"Authorization": header})
        assert_problem(response, 401, "unauthenticated")
        assert response.headers["www-authenticate"]

    def test_database_gone(self, settings: Settings) -> None:
        nowhere = settings.model_copy(update={"database_url": "postgresql+psycopg://x@127.0.0.1:1/x"})
        with TestClient(create_app(nowhere, with_engine=False), raise_server_exceptions=False) as client:
            response = client.get("/requests", headers={"Authorization": "Bearer lethe_x"})
            assert_problem(response, 503, "unavailable")
            assert response.headers["retry-after"]
            problem = assert_problem(client.get("/readyz"), 503, "not-ready")
            assert problem["checks"]["database"] != "ok"
            assert client.get("/healthz").status_code == 200

    def test_our_own_mistakes_show_nothing(self, shared: Service, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(*_: object, **__: object) -> None:
            raise RuntimeError("secret detail")

        monkeypatch.setattr("app.removal.endpoints.ReadingService", broken)
        response = shared.get("/requests")
        assert_problem(response, 500, "internal-error")
        assert "secret" not in response.text


class TestLimits:
    def test_declared_body(self, shared: Service) -> None:
        response = shared.call(
            "POST", "/unlearn-requests", content=b"x", headers={"Content-Length": str(10**12)}
        )
        assert_problem(response, 413, "payload-too-large")

    def test_body_without_a_length(self, shared: Service) -> None:
        def chunks() -> Iterator[bytes]:
            for _ in range(80):
                yield b" " * 1024 * 1024

        for path in ("/unlearn-requests", "/requests/req_x/cancel"):
            response = shared.post(path, content=chunks(), headers={"Content-Type": "application/json"})
            assert_problem(response, 413, "payload-too-large")

    def test_small_where_no_pictures_are_expected(self, shared: Service) -> None:
        response = shared.post("/audit/verify", shared.auditor, content=b" " * 2 * 1024 * 1024)
        assert_problem(response, 413, "payload-too-large")


class TestHeaders:
    @pytest.mark.parametrize("path", ["/", "/healthz", "/nothing", "/requests", "/docs", "/openapi.json"])
    def test_on_every_answer(self, shared: Service, path: str) -> None:
        headers = shared.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == "no-store"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "default-src 'none'" in headers["content-security-policy"]

    def test_on_answers_of_the_middleware_itself(self, shared: Service) -> None:
        response = shared.call("POST", "/requests/x/cancel", headers={"Content-Length": str(10**12)})
        assert response.status_code == 413
        assert response.headers["x-content-type-options"] == "nosniff"

    def test_no_script_but_where_the_documentation_is(self, shared: Service) -> None:
        for path in ("/", "/requests", "/docsx", "/healthz"):
            policy = shared.get(path).headers["content-security-policy"]
            assert "script-src" not in policy, path

    def test_the_documentation_may_load_what_it_names(self, shared: Service) -> None:
        for path in ("/docs", "/redoc"):
            response = shared.get(path)
            policy = response.headers["content-security-policy"]
            sources = re.findall(r'(?:src|href)="(https://[^/"]+)', response.text)
            assert sources
            for source in sources:
                assert source in policy, (path, source)

    def test_strict_transport_in_production_alone(self, own_settings: Settings) -> None:
        for env, expected in (("production", "max-age=31536000"), ("development", None)):
            app = create_app(own_settings.model_copy(update={"env": env}), with_engine=False)
            with TestClient(app) as client:
                assert client.get("/healthz").headers.get("strict-transport-security") == expected

    def test_other_origins_are_not_let_in(self, shared: Service) -> None:
        origin = {"Origin": "https://elsewhere.example", "Access-Control-Request-Method": "POST"}
        for method, path in (("OPTIONS", "/chat"), ("OPTIONS", "/requests"), ("GET", "/requests")):
            response = shared.call(method, path, headers=origin)
            assert not [name for name in response.headers if name.lower().startswith("access-control")]


class TestHealth:
    def test_ready(self, shared: Service) -> None:
        answer = shared.client.get("/readyz")
        assert answer.status_code == 200
        assert answer.json()["checks"] == {"database": "ok", "schema": "ok", "redis": "ok"}

    def test_not_ready_without_redis(self, own_settings: Settings) -> None:
        settings = own_settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"})
        with TestClient(create_app(settings, with_engine=False)) as client:
            problem = assert_problem(client.get("/readyz"), 503, "not-ready")
            assert problem["checks"]["redis"].startswith("not reachable")

    @pytest.mark.parametrize(
        ("revision", "expected"), [("0001", 503), ("9999", 200)], ids=["too old", "of a newer version"]
    )
    def test_schema(self, database: str, own_settings: Settings, revision: str, expected: int) -> None:
        """A database that lacks a migration is no good; one that is ahead is a rolling upgrade."""
        engine = create_engine(database)
        with engine.begin() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = :r"), {"r": revision})
        engine.dispose()
        app = create_app(own_settings.model_copy(update={"database_url": database}), with_engine=False)
        with TestClient(app) as client:
            answer = client.get("/readyz")
        assert answer.status_code == expected
        if expected == 503:
            assert "lethe migrate" in answer.json()["checks"]["schema"]

    @pytest.mark.parametrize(
        ("ready", "generation", "expected"), [(True, 0, 200), (False, 0, 503), (True, -1, 503)]
    )
    def test_needs_the_engine_at_the_newest_generation(
        self, own_settings: Settings, ready: bool, generation: int, expected: int
    ) -> None:
        class Engine:
            def __init__(self) -> None:
                self.ready, self.generation = ready, generation
                self.troubles = [] if ready else ["not loaded"]

            def close(self) -> None:
                self.ready = False

        app = create_app(own_settings, with_engine=False)
        app.state.with_engine, app.state.engine = True, Engine()
        with TestClient(app) as client:
            assert client.get("/readyz").status_code == expected


class TestPagination:
    @pytest.mark.parametrize("key", ["req_0123", 42])
    def test_round_trip(self, key: str | int) -> None:
        assert decode_cursor(encode_cursor(key)) == str(key)

    @pytest.mark.parametrize("cursor", ["", "=", "é", "!", "AA", encode_cursor("a'b"), encode_cursor("a b")])
    def test_not_ours(self, cursor: str) -> None:
        with pytest.raises(InvalidInput):
            decode_cursor(cursor)

    def test_numbers(self) -> None:
        assert decode_number(None) is None
        assert decode_number(encode_cursor(7)) == 7
        with pytest.raises(InvalidInput):
            decode_number(encode_cursor("req_1"))


class TestOpenApi:
    def test_every_error_is_a_problem_with_an_example(self, shared: Service) -> None:
        document = shared.client.get("/openapi.json").json()
        for path, methods in document["paths"].items():
            for method, operation in methods.items():
                assert operation["summary"], (method, path)
                for status, response in operation["responses"].items():
                    if int(status) >= 400:
                        content = response["content"]["application/problem+json"]
                        assert content["examples"], (method, path, status)

    def test_protected_endpoints_say_so(self, shared: Service) -> None:
        document = shared.client.get("/openapi.json").json()
        open_paths = {
            path
            for path, methods in document["paths"].items()
            for operation in methods.values()
            if "security" not in operation
        }
        assert open_paths <= {"/", "/healthz", "/readyz", "/.well-known/jwks.json"}

    def test_filing_takes_json_and_forms(self, shared: Service) -> None:
        document = shared.client.get("/openapi.json").json()
        body = document["paths"]["/unlearn-requests"]["post"]["requestBody"]["content"]
        assert set(body) == {"application/json", "multipart/form-data"}
        assert "class" in body["application/json"]["schema"]["properties"]


class TestMethods:
    def test_all_of_an_address_are_named(self, shared: Service) -> None:
        answer = shared.call("PUT", "/webhooks", shared.owner)
        assert_problem(answer, 405, "method-not-allowed")
        assert answer.headers["allow"] == "GET, POST"
