"""Evidence, policy, and what was measured of all requests together, over HTTP."""

from __future__ import annotations

import io

import pytest
from PIL import Image
from sqlalchemy import select, update

from app.db.models import AuditEvent, Evidence, Remeasurement, VerificationScore
from app.kit.ids import new_id
from app.removal.lifelong import GATE_BINS, GATE_EDGES, wilson
from tests.removal.active import activate_verified
from tests.service import Service, assert_problem


class TestEvidence:
    def test_listed_without_a_look(self, service: Service) -> None:
        request_id = service.file()["id"]
        found = service.get(f"/requests/{request_id}/evidence", service.operator).json()
        assert [(e["width"], e["height"], e["purged_at"]) for e in found] == [(32, 24, None)]
        assert reads(service, request_id) == 0

    def test_a_look_is_audited(self, service: Service) -> None:
        request_id = service.file()["id"]
        [one] = service.get(f"/requests/{request_id}/evidence", service.operator).json()
        answer = service.get(f"/requests/{request_id}/evidence/{one['id']}", service.operator)
        assert Image.open(io.BytesIO(answer.content)).size == (32, 24)
        assert answer.headers["cache-control"] == "no-store"
        assert reads(service, request_id) == 1

    def test_of_another_request(self, service: Service) -> None:
        first, second = service.file()["id"], service.file("Somebody Else")["id"]
        [one] = service.get(f"/requests/{first}/evidence", service.operator).json()
        answer = service.get(f"/requests/{second}/evidence/{one['id']}", service.operator)
        assert_problem(answer, 404, "evidence-not-found")

    def test_purged(self, service: Service) -> None:
        request_id = service.file()["id"]
        with service.sessions.begin() as session:
            session.execute(update(Evidence).values(sealed=None))
        [one] = service.get(f"/requests/{request_id}/evidence", service.operator).json()
        answer = service.get(f"/requests/{request_id}/evidence/{one['id']}", service.operator)
        assert_problem(answer, 409, "evidence-purged")


def reads(service: Service, request_id: str) -> int:
    with service.sessions() as session:
        rows = session.scalars(
            select(AuditEvent).where(AuditEvent.subject_id == request_id, AuditEvent.kind == "evidence.read")
        )
        return len(rows.all())


def test_policy(shared: Service) -> None:
    found = shared.get("/policy", shared.operator).json()
    assert found["review"] == "auto"
    assert found["min_forget_quality"] == shared.settings.min_forget_quality
    assert found["evidence_retention_days"] == 7


class TestLifelong:
    def test_nothing_yet(self, service: Service) -> None:
        found = service.get("/measurements/lifelong").json()
        assert found == {
            "heat_map": {"metric": "forget_quality", "requests": [], "generations": [], "cells": []},
            "curve": [],
            "own_views": {"requests": 0, "views": 0, "edges": list(GATE_EDGES), "counts": [0] * GATE_BINS},
        }

    def test_first_and_again(self, service: Service) -> None:
        first = activate_verified(service)
        second = activate_verified(service, "Somebody Else", expert_id="exp_b")
        newest = service.get("/experts", service.root).json()["generation"]
        with service.sessions.begin() as session:
            for request_id, value in ((first, 0.5), (second, 1.0)):
                session.add(
                    Remeasurement(
                        id=new_id("rms"), request_id=request_id, generation=newest,
                        metric="forget_quality", value=value, n=10,
                    )
                )  # fmt: skip
        found = service.get("/measurements/lifelong").json()
        cells = {
            (c["request_id"], c["generation"]): (c["value"], c["first"]) for c in found["heat_map"]["cells"]
        }
        assert found["heat_map"]["requests"] == [first, second]
        assert cells[first, newest] == (0.5, False)
        assert cells[second, newest] == (1.0, True)  # by the verification that came before it
        assert [value for (request_id, _), (value, _) in cells.items() if request_id == first] == [1.0, 0.5]
        [point] = found["curve"]
        assert (point["experts"], point["error"], point["n"]) == (2, 0.25, 20)
        assert point["low"] < 0.25 < point["high"]

    def test_own_views_of_active_requests(self, service: Service) -> None:
        first = activate_verified(service)
        second = activate_verified(service, "Somebody Else", expert_id="exp_b")
        for request_id, views in ((first, [-0.01, -0.02]), (second, [-9.0])):
            with service.sessions.begin() as session:
                session.add(
                    VerificationScore(
                        id=new_id("scr"), request_id=request_id, attempt=1, metric="gate_tpr", value=1.0, n=2,
                        details={"own_views": views, "claimed_from": -1.3},
                    )
                )  # fmt: skip
        found = service.get("/measurements/lifelong").json()["own_views"]
        assert (found["requests"], found["views"]) == (2, 3)
        assert (found["counts"][0], found["counts"][-1]) == (1, 2)
        assert len(found["edges"]) == len(found["counts"]) + 1
        assert service.get("/measurements/lifelong", service.stranger).json()["own_views"]["views"] == 0
        service.post(f"/requests/{second}/revoke")
        assert service.get("/measurements/lifelong").json()["own_views"]["views"] == 2

    def test_another_tenant_sees_nothing_of_it(self, service: Service) -> None:
        activate_verified(service)
        assert service.get("/measurements/lifelong", service.stranger).json()["heat_map"]["cells"] == []


@pytest.mark.parametrize(
    ("mean", "n", "low", "high"),
    [(0.0, 10, 0.0, 0.2775), (0.5, 10, 0.2366, 0.7634), (1.0, 100, 0.9630, 1.0), (0.5, 0, 0.0, 1.0)],
)
def test_wilson(mean: float, n: int, low: float, high: float) -> None:
    """Values of Wilson's interval from R's `binom.confint(..., methods = "wilson")`."""
    assert wilson(mean, n) == pytest.approx((low, high), abs=5e-4)
