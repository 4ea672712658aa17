"""The policy in versions: who may change it, what is refused, and whom a change concerns."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import func, select

from app.accounts.service import create_key
from app.db.models import AuditEvent
from app.db.policy_models import PolicyVersion
from app.doctor.trail import suspicious
from app.removal.errors import PolicyChanged
from app.removal.policies import RULES, PolicyService
from app.removal.records import RECIPES, Policy
from app.removal.schemas import PolicyChange, PolicyRules
from app.removal.service import RemovalService
from app.removal.states import Event
from app.settings import load_settings
from tests.service import Json, Response, Service, assert_problem
from workers.training.recipe import RECIPES as KNOWN

STRICT: Json = {"min_forget_quality": 0.995, "max_gate_fpr": 0.005, "review": "manual"}


def put(
    service: Service, rules: Json, *, based_on: int = 0, key: str | None = None, **other: object
) -> Response:
    body = {"based_on": based_on, "reason": "The regulator asks for it.", "rules": rules} | other
    return service.call("PUT", "/policy", key or service.root, json=body)


def changed(service: Service, rules: Json, based_on: int = 0) -> Json:
    answer = put(service, rules, based_on=based_on)
    assert answer.status_code == 200, answer.text
    found: Json = answer.json()
    return found


def snapshot(service: Service, request_id: str) -> Policy:
    with service.removal() as removal:
        return removal.policy(request_id)


class TestInForce:
    def test_settings_before_anybody_set_anything(self, service: Service) -> None:
        found = service.get("/policy", service.operator).json()
        assert (found["version"], found["overridden"], found["changed_by"]) == (0, [], None)
        assert found["min_forget_quality"] == service.settings.min_forget_quality

    def test_what_is_set_counts_and_the_rest_follows_the_settings(self, service: Service) -> None:
        changed(service, STRICT)
        other = service.settings.model_copy(update={"max_attempts": 7, "max_gate_fpr": 0.5})
        with service.sessions() as session:
            policy = PolicyService(session, other).in_force("f" * 64)
        assert (policy.max_attempts, policy.max_gate_fpr, policy.version) == (7, 0.005, 1)
        assert policy.model_fingerprint == "f" * 64

    def test_left_out_again_is_the_settings_again(self, service: Service) -> None:
        changed(service, STRICT)
        found = changed(service, {"review": "manual"}, based_on=1)
        assert found["overridden"] == ["review"]
        assert found["min_forget_quality"] == service.settings.min_forget_quality


class TestChange:
    def test_a_version_is_any_json_number_that_is_whole(self, service: Service) -> None:
        answer = put(service, STRICT, based_on=0.0)  # type: ignore[arg-type]
        assert answer.status_code == 200, answer.text
        for version in (1.5, "1", True, float(2**31)):
            assert_problem(put(service, STRICT, based_on=version), 422, "invalid-input")  # type: ignore[arg-type]

    def test_by_one_tenant_alone(self, service: Service) -> None:
        problem = assert_problem(put(service, STRICT, key=service.operator), 403, "forbidden")
        assert "`root`" in problem["hint"]
        assert service.get("/policy", service.root).json()["version"] == 0

    def test_not_by_auditors_of_root(self, service: Service) -> None:
        assert_problem(put(service, STRICT, key=service.key("root", "auditor")), 403, "forbidden")

    def test_based_on_an_older_version(self, service: Service) -> None:
        changed(service, STRICT)
        problem = assert_problem(put(service, {"max_leak": 0.1}), 409, "policy-changed")
        assert problem["version"] == 1
        assert service.get("/policy", service.root).json()["max_leak"] == 0

    def test_repeated_makes_no_other_version(self, service: Service) -> None:
        assert changed(service, STRICT) == changed(service, STRICT)
        with service.sessions() as session:
            assert session.scalar(select(func.count()).select_from(PolicyVersion)) == 1
            kinds = select(func.count()).where(AuditEvent.kind == "policy.change")
            assert session.scalar(kinds) == 1

    def test_one_of_many_at_once_wins(self, service: Service) -> None:
        with service.sessions.begin() as session:
            key = create_key(session, tenant="root", scopes=["operator"]).secret
        principal = service.principal(key)

        def change(i: int) -> bool:
            rules = PolicyRules(max_attempts=i + 1)
            try:
                with service.sessions.begin() as session:
                    PolicyService(session, service.settings).change(
                        principal, PolicyChange(based_on=0, reason="race", rules=rules)
                    )
            except PolicyChanged:
                return False
            return True

        with ThreadPoolExecutor(6) as pool:
            assert sum(pool.map(change, range(6))) == 1

    @pytest.mark.parametrize(
        "rules",
        [
            {"max_leak": 1.5}, {"min_gate_tpr": -0.1}, {"review": "never"}, {"recipe": "none"}, {"seed": 3},
            {"max_attempts": 0}, {"max_attempts": 2.5}, {"model": "other"}, {"min_base_identity": "much"},
            {"max_gate_fpr": "NaN"},
        ],
        ids=str,
    )  # fmt: skip
    def test_what_cannot_be_a_rule(self, shared: Service, rules: Json) -> None:
        problem = assert_problem(put(shared, rules), 422, "invalid-input")
        assert problem["errors"][0]["field"].startswith("body.rules." + next(iter(rules)))

    @pytest.mark.parametrize("reason", ["", "ok", "a\x00b", "x" * 2001])
    def test_what_is_no_reason(self, shared: Service, reason: str) -> None:
        assert_problem(put(shared, STRICT, reason=reason), 422, "invalid-input")

    def test_the_trail_says_what_changed_and_nothing_personal(self, service: Service) -> None:
        changed(service, {"max_leak": 0.01})
        changed(service, STRICT, based_on=1)
        with service.sessions() as session:
            events = session.scalars(
                select(AuditEvent).where(AuditEvent.kind == "policy.change").order_by(AuditEvent.seq)
            ).all()
            last = session.get(PolicyVersion, 2)
        assert [event.payload["version"] for event in events] == [1, 2]
        assert events[1].payload["changed"] == ["review", "min_forget_quality", "max_leak", "max_gate_fpr"]
        assert events[1].payload["max_leak"] == 0
        assert last is not None
        assert events[1].subject_id == last.id
        assert "regulator" not in str(events[1].payload)
        assert [suspicious(event) for event in events] == [None, None]


class TestHistory:
    def test_newest_first_in_pages(self, service: Service) -> None:
        for i in range(3):
            changed(service, {"max_attempts": i + 1}, based_on=i)
        page = service.get("/policy/versions?limit=2", service.operator).json()
        assert [v["version"] for v in page["items"]] == [3, 2]
        assert page["items"][0]["reason"] == "The regulator asks for it."
        rest = service.get(f"/policy/versions?limit=2&cursor={page['next']}", service.operator).json()
        assert [(v["version"], v["rules"]["max_attempts"]) for v in rest["items"]] == [(1, 1)]
        assert rest["next"] is None


class TestWhomItConcerns:
    def test_requests_under_way_keep_their_rules(self, service: Service) -> None:
        before = service.file()["id"]
        changed(service, {"min_forget_quality": 0.995})
        after = service.file("Somebody Else")["id"]
        assert (snapshot(service, before).version, snapshot(service, after).version) == (0, 1)
        assert snapshot(service, before).min_forget_quality == 0.98
        assert snapshot(service, after).min_forget_quality == 0.995
        with service.sessions() as session:
            policies = PolicyService(session, service.settings)
            assert policies.under_way(None) == {0: 1, 1: 1}
            assert policies.under_way(service.principal(service.stranger).sees) == {}

    def test_a_retry_keeps_the_rules_of_the_approval(self, service: Service) -> None:
        request_id = service.file()["id"]
        lease = service.work_until(request_id, "verify")
        with service.removal() as removal:
            removal.transition(request_id, Event.NEED_ATTENTION, actor="worker:test", token=lease.token)
        lease.release()
        changed(service, STRICT)
        assert service.post(f"/requests/{request_id}/retry", service.operator).status_code == 200
        assert snapshot(service, request_id).version == 0

    def test_review_by_a_person_from_now_on(self, service: Service) -> None:
        changed(service, {"review": "manual"})
        assert service.file()["state"] == "in_review"

    def test_a_snapshot_from_before_versions_can_be_read(self, service: Service) -> None:
        request_id = service.file()["id"]
        with service.sessions.begin() as session:
            removal = RemovalService(session, service.settings)
            document = removal.policy(request_id).as_json()
            del document["version"]
            removal.requests.patch(request_id, policy=document)
        assert snapshot(service, request_id) == Policy.of(service.settings, None)
        with service.sessions() as session:
            assert PolicyService(session, service.settings).under_way(None) == {0: 1}


def test_rules_are_the_snapshots_and_bounded_as_the_settings() -> None:
    """What an operator may set is what a request is judged by, and what the settings would take too."""
    settings = load_settings(_env_file=None)
    assert set(RULES) <= set(Policy.of(settings, None).as_json())
    assert tuple(KNOWN) == RECIPES
    defaults = Policy.of(settings, None).as_json()
    PolicyRules.model_validate({name: defaults[name] for name in RULES})
