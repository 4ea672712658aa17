"""Logging in and out: what the cookie holds, when it ends, and forms that are not ours."""

from __future__ import annotations

from datetime import timedelta

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select, update

from app.accounts.service import revoke_key
from app.dashboard.session import local_path
from app.db.models import AuditEvent, BrowserSession
from app.kit.clock import utcnow
from app.main import create_app
from tests.dashboard.browsing import Browser, browser
from tests.service import Service


def test_a_page_leads_to_the_login_and_back(shared: Service) -> None:
    visitor = Browser(shared.client)
    answer = visitor.get("/dashboard/requests?state=active")
    assert answer.status_code == 303
    assert answer.headers["location"] == "/dashboard/login?next=/dashboard/requests%3Fstate%3Dactive"
    after = visitor.log_in(shared.owner, "/dashboard/requests?state=active")
    assert after.headers["location"] == "/dashboard/requests?state=active"
    assert visitor.get("/dashboard/requests").status_code == 200


def test_a_wrong_key(shared: Service) -> None:
    visitor = Browser(shared.client)
    answer = visitor.log_in("lethe_" + "x" * 43)
    assert answer.status_code == 401
    assert "not valid" in answer.text
    assert "lethe" not in visitor.cookies


def test_the_cookie(shared: Service) -> None:
    """Signed, for HTTP alone, for this site, limited; and the key is not in it."""
    visitor = Browser(shared.client)
    header = next(h for h in visitor.log_in(shared.owner).headers.get_list("set-cookie") if h[:6] == "lethe=")
    assert "HttpOnly" in header
    assert "SameSite=lax" in header
    assert "Max-Age=43200" in header
    assert shared.owner not in header
    assert shared.owner.removeprefix("lethe_") not in header


def test_production_sends_it_over_tls_alone(shared: Service) -> None:
    settings = shared.settings.model_copy(update={"env": "production"})
    with TestClient(create_app(settings, with_engine=False), base_url="https://testserver") as client:
        answer = Browser(client).log_in(shared.owner)
        header = next(h for h in answer.headers.get_list("set-cookie") if h.startswith("__Host-lethe="))
        assert "Secure" in header
        assert "Path=/" in header


@pytest.mark.parametrize("forged", ["x", "", "InNlc18wMDAi.aaaa.bbbb"])
def test_a_forged_cookie(shared: Service, forged: str) -> None:
    assert Browser(shared.client, {"lethe": forged}).get("/dashboard").status_code == 303


def test_a_changed_cookie(shared: Service) -> None:
    visitor = browser(shared, shared.owner)
    value = visitor.cookies["lethe"]
    visitor.cookies["lethe"] = value[:-2] + ("AA" if value[-2:] != "AA" else "BB")
    assert visitor.get("/dashboard").status_code == 303


def test_after_logging_out_a_copy_of_the_cookie_is_worth_nothing(shared: Service) -> None:
    visitor = browser(shared, shared.owner)
    copy = dict(visitor.cookies)
    assert visitor.send("/dashboard/logout").headers["location"] == "/dashboard/login"
    assert "lethe" not in visitor.cookies
    assert Browser(shared.client, copy).get("/dashboard").status_code == 303


def test_it_ends_with_the_key(shared: Service) -> None:
    key = shared.key("acme", "owner")
    visitor = browser(shared, key)
    with shared.sessions.begin() as session:
        revoke_key(session, shared.principal(key).key_id)
    assert visitor.get("/dashboard").status_code == 303


def test_it_expires(shared: Service) -> None:
    visitor = browser(shared, shared.key("acme", "owner"))
    with shared.sessions.begin() as session:
        session.execute(update(BrowserSession).values(expires_at=utcnow() - timedelta(seconds=1)))
    assert visitor.get("/dashboard").status_code == 303
    browser(shared, shared.owner)  # whoever logs in next sweeps it away
    with shared.sessions.begin() as session:
        assert not session.scalars(select(BrowserSession).where(BrowserSession.expires_at < utcnow())).all()


def test_begin_and_end_are_audited(shared: Service) -> None:
    key = shared.key("acme", "owner")
    browser(shared, key).send("/dashboard/logout")
    with shared.sessions.begin() as session:
        actor = shared.principal(key).key_id
        kinds = session.scalars(
            select(AuditEvent.kind).where(AuditEvent.actor == actor).order_by(AuditEvent.seq)
        )
        assert list(kinds) == ["session.started", "session.ended"]


@pytest.mark.parametrize(
    "elsewhere",
    [
        "https://evil.example",
        "//evil.example",
        "/dashboard//evil",
        "/requests",
        "/dashboardx",
        "/dashboard/\\x",
    ],
)
def test_login_leads_nowhere_else(elsewhere: str) -> None:
    assert local_path(elsewhere) == "/dashboard"


class TestForms:
    def test_without_a_token(self, shared: Service) -> None:
        visitor = browser(shared, shared.owner)
        answer = visitor.ask("POST", "/dashboard/logout", data={"x": "y"})
        assert answer.status_code == 403
        assert "not from this session" in answer.text
        assert visitor.get("/dashboard").status_code == 200

    def test_with_anothers_token(self, shared: Service) -> None:
        token = browser(shared, shared.operator).token()
        answer = browser(shared, shared.owner).ask("POST", "/dashboard/logout", data={"csrf": token})
        assert answer.status_code == 403

    def test_login_without_its_cookie(self, shared: Service) -> None:
        """Nobody is logged in by another site with a key of that site's choice."""
        token = Browser(shared.client).token("/dashboard/login")
        fields = {"csrf": token, "key": shared.owner}
        assert Browser(shared.client).ask("POST", "/dashboard/login", data=fields).status_code == 403

    @pytest.mark.parametrize(
        "header",
        [{"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}],
    )
    def test_from_another_site(self, shared: Service, header: dict[str, str]) -> None:
        visitor = browser(shared, shared.owner)
        fields = {"csrf": visitor.token()}
        assert visitor.ask("POST", "/dashboard/logout", data=fields, headers=header).status_code == 403

    def test_from_our_own(self, shared: Service) -> None:
        visitor = browser(shared, shared.owner)
        fields, header = (
            {"csrf": visitor.token()},
            {"Origin": "http://testserver", "Sec-Fetch-Site": "same-origin"},
        )
        assert visitor.ask("POST", "/dashboard/logout", data=fields, headers=header).status_code == 303

    def test_an_api_key_is_no_session(self, shared: Service) -> None:
        assert shared.client.get(
            "/dashboard/requests", headers={"Authorization": f"Bearer {shared.owner}"}, follow_redirects=False
        ).status_code == 303  # fmt: skip

    def test_a_session_is_no_api_key(self, shared: Service) -> None:
        assert browser(shared, shared.owner).get("/requests").status_code == 401
