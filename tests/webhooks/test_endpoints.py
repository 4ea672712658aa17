"""HTTP for webhooks."""

from __future__ import annotations

import json

import pytest
from sqlalchemy import select
from standardwebhooks import Webhook as Standard

from app.db.webhook_models import Webhook
from app.webhooks.service import MAX_WEBHOOKS
from tests.service import Service, assert_problem
from tests.webhooks.receiver import receiver

URL = "https://hooks.example.org/lethe"


class TestCreate:
    def test_secret_is_shown_once_and_stored_encrypted(self, service: Service) -> None:
        response = service.post("/webhooks", json={"url": URL, "description": "ours"})
        assert response.status_code == 201
        made = response.json()
        assert response.headers["location"] == f"/webhooks/{made['id']}"
        assert made["secret"].startswith("whsec_")
        shown = service.get(f"/webhooks/{made['id']}").json()
        assert (shown["url"], shown["description"], shown["enabled"]) == (URL, "ours", True)
        assert shown["secret"] is None
        with service.sessions() as session:
            row = session.scalars(select(Webhook)).one()
        assert made["secret"].removeprefix("whsec_").encode() not in row.secret_sealed

    @pytest.mark.parametrize(
        "url",
        [
            "http://example.org/", "ftp://example.org/", "https://", "https://user:pw@example.org/", "no url",
            "https://example.org/#part", "https://127.0.0.1/", "https://[::1]:8443/", "https://169.254.169.254/",
            "https://10.0.0.8/", "https://[::ffff:10.0.0.8]/", "https://localhost/", "https://localhost./",
            "https://exämple.org/", "https://example.org:0/", "https://example.org:99999/", "https://[::1",
        ],
    )  # fmt: skip
    def test_refused(self, shared: Service, url: str) -> None:
        assert_problem(shared.post("/webhooks", json={"url": url}), 422, "webhook-url-refused")

    def test_a_description_is_plain_text(self, shared: Service) -> None:
        body = {"url": URL, "description": "ours\0"}
        assert_problem(shared.post("/webhooks", json=body), 422, "invalid-input")

    def test_private_where_the_operator_allows_it(self, house: Service) -> None:
        assert house.post("/webhooks", json={"url": "http://10.0.0.8:8080/"}).status_code == 201

    def test_too_many(self, service: Service) -> None:
        for _ in range(MAX_WEBHOOKS):
            assert service.post("/webhooks", json={"url": URL}).status_code == 201
        assert_problem(service.post("/webhooks", json={"url": URL}), 409, "too-many-webhooks")
        assert service.post("/webhooks", service.stranger, json={"url": URL}).status_code == 201


class TestList:
    def test_pages(self, service: Service) -> None:
        ids = [service.post("/webhooks", json={"url": URL}).json()["id"] for _ in range(2)]
        first = service.get("/webhooks?limit=1").json()
        assert [w["id"] for w in first["items"]] == [ids[1]]
        rest = service.get(f"/webhooks?cursor={first['next']}").json()
        assert ([w["id"] for w in rest["items"]], rest["next"]) == ([ids[0]], None)

    def test_counts_what_waits(self, service: Service) -> None:
        service.post("/webhooks", json={"url": URL})
        service.file()
        assert service.get("/webhooks").json()["items"][0]["waiting"] == 4


class TestDelete:
    def test_is_gone(self, service: Service) -> None:
        webhook_id = service.post("/webhooks", json={"url": URL}).json()["id"]
        service.file()
        assert service.call("DELETE", f"/webhooks/{webhook_id}").status_code == 204
        assert_problem(service.get(f"/webhooks/{webhook_id}"), 404, "webhook-not-found")


class TestTest:
    def test_arrives_signed(self, house: Service) -> None:
        with receiver() as there:
            made = house.post("/webhooks", json={"url": there.url}).json()
            found = house.post(f"/webhooks/{made['id']}/test").json()
        assert (found["delivered"], found["status"], found["type"]) == (True, 200, "webhook.test")
        headers, body = there.got[0]
        assert Standard(made["secret"]).verify(body, headers) == json.loads(body)
        assert headers["webhook-id"] == found["message_id"]
        log = house.get(f"/webhooks/{made['id']}/deliveries").json()["items"]
        assert [entry["id"] for entry in log] == [found["id"]]

    def test_private_address_behind_a_setting_that_was_taken_back(
        self, house: Service, service: Service
    ) -> None:
        """Checked when it is sent, not only when it was registered."""
        with receiver() as there:
            made = house.post("/webhooks", json={"url": there.url}).json()
            house.client.app.state.settings = service.settings  # type: ignore[attr-defined]  # a FastAPI
            found = house.post(f"/webhooks/{made['id']}/test").json()
        assert (found["delivered"], found["status"], found["error"]) == (False, None, "address_not_allowed")
        assert there.got == []


class TestRotate:
    def test_both_sign_for_a_day(self, house: Service) -> None:
        with receiver() as there:
            made = house.post("/webhooks", json={"url": there.url}).json()
            rotated = house.post(f"/webhooks/{made['id']}/rotate").json()
            house.post(f"/webhooks/{made['id']}/test")
            with house.sessions.begin() as session:
                row = session.scalars(select(Webhook)).one()
                row.previous_until = row.created_at
            house.post(f"/webhooks/{made['id']}/test")
        assert rotated["secret"] not in (None, made["secret"])
        (first, body), (second, later) = there.got
        for secret in (made["secret"], rotated["secret"]):
            Standard(secret).verify(body, first)
        Standard(rotated["secret"]).verify(later, second)
        with pytest.raises(Exception, match="signature"):
            Standard(made["secret"]).verify(later, second)
