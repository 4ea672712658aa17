"""Reading and checking the audit trail over HTTP."""

import json

import pytest
from joserfc import jws
from joserfc.errors import BadSignatureError
from joserfc.jwk import KeySet
from sqlalchemy import text

from tests.service import Service, assert_problem


class TestEvents:
    def test_pages_in_chain_order(self, service: Service) -> None:
        service.file()
        first = service.get("/audit/events?limit=3", service.auditor).json()
        rest = service.get(f"/audit/events?cursor={first['next']}", service.auditor).json()
        numbers = [item["seq"] for item in first["items"] + rest["items"]]
        assert numbers == sorted(numbers)
        assert len(first["items"]) == 3
        assert rest["next"] is None
        kinds = [item["kind"] for item in first["items"] + rest["items"]]
        assert kinds[-6:] == [
            "request.receive",
            "request.submit",
            "request.approve",
            "request.enqueue",
            "registry.protect",
            "protection.start",
        ]

    def test_own_tenant_only(self, service: Service) -> None:
        own, other = service.file()["id"], service.file(key=service.stranger)["id"]
        subjects = {e["subject_id"] for e in service.get("/audit/events", service.auditor).json()["items"]}
        assert own in subjects
        assert other not in subjects
        everybody = {e["subject_id"] for e in service.get("/audit/events", service.root).json()["items"]}
        assert {own, other} <= everybody

    def test_about_one_object(self, service: Service) -> None:
        request_id = service.file()["id"]
        items = service.get(f"/audit/events?subject_id={request_id}", service.auditor).json()["items"]
        assert {item["subject_id"] for item in items} == {request_id}
        assert "Elodie" not in json.dumps(items)

    @pytest.mark.parametrize("query", ["cursor=x!", "cursor=YWJj", "limit=1000"])
    def test_invalid_query(self, shared: Service, query: str) -> None:
        assert_problem(shared.get(f"/audit/events?{query}", shared.auditor), 422, "invalid-input")

    def test_nul(self, shared: Service) -> None:
        assert shared.get("/audit/events?subject_id=%00", shared.auditor).status_code == 200

    def test_not_for_owners(self, shared: Service) -> None:
        assert_problem(shared.get("/audit/events"), 403, "forbidden")


class TestVerify:
    def test_intact(self, service: Service) -> None:
        service.activate(service.file()["id"])
        answer = service.post("/audit/verify", service.auditor).json()
        assert answer["intact"]
        assert answer["events"] == answer["head_seq"] > 10

    def test_broken(self, service: Service) -> None:
        service.file()
        with service.sessions.begin() as session:
            session.execute(text("UPDATE audit_events SET actor = 'x' WHERE seq = 2"))
        answer = service.post("/audit/verify", service.auditor).json()
        assert (answer["intact"], answer["broken_at"]) == (False, 2)
        assert "hash" in answer["reason"]

    def test_not_for_owners(self, shared: Service) -> None:
        assert_problem(shared.post("/audit/verify"), 403, "forbidden")


class TestCheckpoint:
    def test_is_signed(self, service: Service) -> None:
        answer = service.get("/audit/checkpoint", service.auditor).json()
        keys = KeySet.import_key_set(service.client.get("/.well-known/jwks.json").json())
        checked = jws.deserialize_compact(answer["jws"], keys, algorithms=["Ed25519"])
        assert json.loads(checked.payload) == {k: answer[k] for k in ("seq", "hash", "root", "issued_at")}
        head = service.post("/audit/verify", service.auditor).json()
        assert (answer["seq"], answer["hash"]) == (head["head_seq"], head["head_hash"])

    def test_a_changed_one_does_not_pass(self, service: Service) -> None:
        token = service.get("/audit/checkpoint", service.auditor).json()["jws"]
        keys = KeySet.import_key_set(service.client.get("/.well-known/jwks.json").json())
        header, payload, signature = token.split(".")
        with pytest.raises(BadSignatureError):
            jws.deserialize_compact(f"{header}.{payload[:-2]}AA.{signature}", keys, algorithms=["Ed25519"])

    def test_public_keys_hold_nothing_private(self, shared: Service) -> None:
        answer = shared.client.get("/.well-known/jwks.json").json()
        assert all("d" not in key for key in answer["keys"])
