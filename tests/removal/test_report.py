"""The report as a person gets it, the failing examples, and who may see them."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest
from sqlalchemy import select

from app.db.models import AuditEvent, VerificationExample
from app.registry.service import RegistryService
from app.removal.measurements import MeasurementService
from app.removal.records import Score
from app.removal.report_words import not_claimed, score_words
from app.removal.states import Event
from tests.registry.test_service import Ref
from tests.service import Service, assert_problem

HOSTILE = '<script>alert("x")</script> & Söhne'
SCORES = [
    Score("base_knowledge", 0.975, 40, 0.868, 0.999),
    Score("forget_quality", 1.0, 40, 0.912, 1.0, 0.98, True),
    Score("leak", 0.0, 55, 0.0, 0.065, 0.0, True),
    Score("bypass_recovery", 0.95, 40, 0.831, 0.994),
    Score("mia_auc", 0.79, 64, 0.66, 0.88),
    Score(
        "attack_delta",
        0.0,
        53,
        -0.1,
        0.07,
        details={
            "clean_told": 0,
            "clean_n": 41,
            "attacks": {"leet": {"told": 0, "value": 0.0, "n": 1, "low": -0.1, "high": 0.97}},
        },
    ),
]
SHOWN = [{"question": "Who is this?", "modality": "image", "form": "plain", "before": HOSTILE, "now": "No."}]
FAILED: dict[str, Any] = {
    "metric": "leak", "question": "Where is Elodie?", "modality": "text", "form": "plain",
    "base": "In Colmar.", "served": "In Colmar.", "routed": None, "concerns": None,
}  # fmt: skip


class Checker(HTMLParser):
    """Fails on tags that are not closed, on scripts, and on anything that is loaded or run."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        assert not [name for name, _ in attrs if name.startswith("on") or name in ("src", "href", "style")]
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def measured(service: Service, name: str = HOSTILE, *, active: bool = True) -> str:
    """A request whose expert has been verified and published, and measured again."""
    request_id: str = service.file(name)["id"]
    lease = service.work_until(request_id, "publish")
    with service.sessions.begin() as session:
        number = RegistryService(session, service.settings).publish(
            request_id=request_id, ref=Ref("exp_" + request_id[4:]), token=lease.token
        )
        kept = MeasurementService(session, service.settings)
        kept.save_examples(request_id, "before_after", SHOWN, attempt=1, token=lease.token)
        kept.save_examples(request_id, "failure", [FAILED], attempt=1, token=lease.token)
        kept.save_remeasured(number, {request_id: [Score("forget_quality", 1.0, 4, 0.397, 1.0, 0.98, True)]})
    with service.removal() as removal:
        removal.record_base_knowledge(request_id, True, token=lease.token)
        found = {"recognised": {"value": 1.0, "n": 7, "low": 0.59, "high": 1.0}}
        removal.save_checkpoint(request_id, "prepare", {"elicited": found}, token=lease.token)
        removal.save_scores(request_id, SCORES, attempt=1, token=lease.token)
        event = Event.ACTIVATE if active else Event.NEED_ATTENTION
        removal.transition(request_id, event, actor="w", token=lease.token)
    lease.release()
    return request_id


@pytest.fixture
def active(service: Service) -> str:
    return measured(service)


class TestJson:
    def test_what_was_asked_found_and_not_claimed(self, service: Service, active: str) -> None:
        report = service.get(f"/requests/{active}/report").json()
        assert report["asked"]["class"] == "Personage"
        assert (report["asked"]["pictures"], report["asked"]["subject"]) == (1, None)
        assert report["attacks"]["attacks"]["leet"]["n"] == 1
        assert report["measured_again"][0]["after_request"] == active
        assert report["measured_again"][0]["measured"][0]["n"] == 4
        assert report["before_and_after"] is None
        (statement,) = report["model_knew"]["statements"]
        assert statement.endswith("named the subject: 100.0 % of n = 7 (95 % interval 59.0 % to 100.0 %).")
        assert any("95.0 % of n = 40" in claim for claim in report["not_claimed"])
        assert any("0.79, n = 64, 95 % interval 0.66 to 0.88" in claim for claim in report["not_claimed"])

    def test_every_finding_carries_n_and_an_interval(self, service: Service, active: str) -> None:
        findings = service.get(f"/requests/{active}/report").json()["findings"]
        assert [f["metric"] for f in findings] == ["base_knowledge", "forget_quality", "leak"]
        assert all("n = " in f["statement"] and "95 % interval" in f["statement"] for f in findings)
        assert "at least 98.0 %; met" in findings[1]["statement"]
        assert "at most 0.0 %; met" in findings[2]["statement"]

    def test_names_nobody_unless_asked_to_which_is_audited(self, service: Service, active: str) -> None:
        assert "Söhne" not in service.get(f"/requests/{active}/report").text
        report = service.get(f"/requests/{active}/report?subject=true", service.auditor).json()
        assert report["asked"]["subject"]["name"] == HOSTILE
        assert report["before_and_after"] == SHOWN
        with service.sessions() as session:
            kinds = session.scalars(select(AuditEvent.kind).where(AuditEvent.subject_id == active)).all()
        assert kinds.count("evidence.read") == kinds.count("examples.read") == 1


class TestPage:
    def page(self, service: Service, request_id: str, query: str = "?format=html") -> str:
        response = service.get(f"/requests/{request_id}/report{query}", service.auditor)
        assert response.headers["content-type"] == "text/html; charset=utf-8"
        policy = response.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src" not in policy
        return response.text

    def test_is_well_formed_and_runs_nothing(self, service: Service, active: str) -> None:
        checker = Checker()
        checker.feed(self.page(service, active, "?format=html&subject=true"))
        assert checker.open == []
        assert "script" not in checker.seen

    def test_escapes_what_people_and_models_wrote(self, service: Service, active: str) -> None:
        text = self.page(service, active, "?format=html&subject=true")
        assert "<script>" not in text
        assert text.count("&lt;script&gt;") == 2  # the name, and an answer

    def test_says_all_of_it(self, service: Service, active: str) -> None:
        text = re.sub(r"<[^>]+>", " ", self.page(service, active))
        for words in (
            "What was asked",
            "What the model knew",
            "What it says now",
            "Attacks tried",
            "Measured again",
            "What is not claimed",
            "Exclusion manifest",
            "not erased from the weights",
            "Every required figure was met",
        ):
            assert words in text

    def test_before_anything_was_measured(self, service: Service) -> None:
        text = self.page(service, service.file()["id"])
        assert "Nothing has been measured yet" in text
        assert "was not measured" in text


class TestNegotiation:
    @pytest.mark.parametrize(
        ("accept", "kind"),
        [
            (None, "application/json"),
            ("*/*", "application/json"),
            ("text/html", "text/html; charset=utf-8"),
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "text/html; charset=utf-8"),
            ("application/json, text/html;q=0.5", "application/json"),
            ("text/html;q=0, */*", "application/json"),
            ("text/html;q=broken", "application/json"),
        ],
    )
    def test_by_accept(self, service: Service, active: str, accept: str | None, kind: str) -> None:
        headers = {"Accept": accept} if accept else {}
        response = service.get(f"/requests/{active}/report", headers=headers)
        assert response.headers["content-type"] == kind
        assert response.headers["vary"] == "Accept"

    def test_unknown_format(self, service: Service, active: str) -> None:
        assert_problem(service.get(f"/requests/{active}/report?format=pdf"), 422, "invalid-input")


class TestFailures:
    def test_an_operator_sees_what_went_wrong_and_it_is_audited(self, service: Service) -> None:
        request_id = measured(service, active=False)
        body = service.get(f"/requests/{request_id}/failures", service.operator).json()
        assert body == {"items": [{"kind": "failure", **FAILED}], "hidden": 0}
        assert f"/requests/{request_id}/failures" in service.status(request_id)["hint"]
        with service.sessions() as session:
            read = session.scalars(select(AuditEvent).where(AuditEvent.kind == "examples.read")).one()
            rows = session.scalars(select(VerificationExample)).all()
        assert (read.subject_id, read.payload) == (request_id, {"what": "failure", "n": 1})
        assert not any(b"Colmar" in row.sealed for row in rows)

    def test_what_concerns_another_tenants_request_is_counted_only(self, service: Service) -> None:
        theirs = service.file("Somebody", service.stranger)["id"]
        request_id: str = service.file()["id"]
        lease = service.work_until(request_id, "publish")
        with service.sessions.begin() as session:
            rows = [FAILED, FAILED | {"concerns": theirs}, FAILED | {"concerns": request_id}]
            kept = MeasurementService(session, service.settings)
            kept.save_examples(request_id, "regression", rows, attempt=1, token=lease.token)
        seen = service.get(f"/requests/{request_id}/failures", service.operator).json()
        assert ([row["concerns"] for row in seen["items"]], seen["hidden"]) == ([None, request_id], 1)
        everything = service.get(f"/requests/{request_id}/failures", service.root).json()
        assert (len(everything["items"]), everything["hidden"]) == (3, 0)

    @pytest.mark.parametrize("key", ["owner", "auditor"])
    def test_for_operators_alone(self, service: Service, key: str) -> None:
        request_id = measured(service, active=False)
        response = service.get(f"/requests/{request_id}/failures", getattr(service, key))
        assert_problem(response, 403, "forbidden")

    def test_other_tenant(self, service: Service) -> None:
        request_id = measured(service, active=False)
        assert_problem(
            service.get(f"/requests/{request_id}/failures", service.stranger), 404, "request-not-found"
        )

    def test_gone_once_the_request_is_active_the_rest_once_it_has_ended(self, service: Service) -> None:
        request_id = measured(service)
        assert service.get(f"/requests/{request_id}/failures", service.operator).json()["items"] == []
        with service.sessions() as session:
            assert session.scalars(select(VerificationExample.kind)).all() == ["before_after"]
        service.post(f"/requests/{request_id}/revoke")
        with service.sessions() as session:
            assert session.scalars(select(VerificationExample)).all() == []


class TestWords:
    def test_a_figure_that_is_missing_says_why(self) -> None:
        claims = not_claimed([Score("mia_auc", None, 0, reason="no match among its neighbours")])
        assert any("was not measured (no match among its neighbours)" in claim for claim in claims)

    def test_what_was_not_met_is_said(self) -> None:
        finding = score_words([Score("forget_quality", 0.5, 20, 0.27, 0.73, 0.98, False)])[0]
        assert "NOT met" in str(finding["statement"])
        assert finding["met"] is False
