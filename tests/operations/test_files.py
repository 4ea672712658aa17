"""The Grafana dashboard and the alert rules: they name nothing that the service does not export."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

import app
from app.chat.metrics import ChatMetrics
from app.db.models import Replica
from app.lumoe.bank import SlotBank
from app.registry.repository import ReplicaRepository
from app.removal.records import Score
from app.webhooks.delivery import Deliverer
from app.webhooks.sending import Sent
from tests.operations.expressions import UnknownError, labels_of, metrics_of
from tests.service import Service

OPERATIONS = Path(app.__file__).parents[1] / "docs" / "operations"


def targets() -> list[dict[str, Any]]:
    """Every query of the dashboard."""
    board = json.loads((OPERATIONS / "grafana.json").read_text(encoding="utf-8"))
    return [target for panel in board["panels"] for target in panel.get("targets", ())]


def expressions() -> list[tuple[str, str]]:
    """Every expression of both files, with where it is from."""
    board = json.loads((OPERATIONS / "grafana.json").read_text(encoding="utf-8"))
    found = [
        (f"panel {panel['title']}", target["expr"])
        for panel in board["panels"]
        for target in panel.get("targets", ())
    ]
    return [*found, *((f"alert {rule['alert']}", rule["expr"]) for rule in alerts())]


def alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load((OPERATIONS / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def exported(service: Service) -> dict[str, list[dict[str, str]]]:
    """Every sample's name with the labels it has, after something of everything has happened."""
    service.post("/webhooks", json={"url": "https://hooks.example.org/"})
    lease = service.work_until(service.file()["id"], "train")
    request_id = service.file("Mira Tovel")["id"]
    other = service.work_until(request_id, "verify")
    with service.removal() as removal:
        scores = [Score(metric, 1.0, 9, passed=True) for metric in ("forget_quality", "leak")]
        removal.save_scores(request_id, scores, attempt=1, token=other.token)
    with service.sessions.begin() as session:
        ReplicaRepository(session).register(Replica(id="rep_1", name="host", generation=1))
    Deliverer(service.sessions, service.settings, post=lambda *_, **__: Sent(200, None, 1)).run_once()
    text = service.get("/metrics", service.key("watch", "metrics")).text
    for held in (lease, other):
        held.release()
    counted = ChatMetrics()
    counted.follow_slots(SlotBank({}))
    counted.batches.observe(1)
    counted.ended("answered", 1.0)
    counted.first_text(1.0)
    for kind in ("prompt", "completion"):
        counted._tokens.labels(kind)
    found: dict[str, list[dict[str, str]]] = {}
    for family in text_string_to_metric_families(text + generate_latest(counted.registry).decode()):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(dict(sample.labels))
    return found


class TestExpressions:
    def test_every_metric_label_and_value_is_exported(self, service: Service) -> None:
        known = exported(service)
        for where, expression in expressions():
            try:
                labels_of(expression, known)
            except (ValueError, UnknownError) as error:
                pytest.fail(f"{where}: {error}")

    def test_what_an_alert_or_a_legend_tells_is_among_the_labels(self, service: Service) -> None:
        known = exported(service)
        for rule in alerts():
            told = " ".join(rule["annotations"].values())
            named = set(re.findall(r"\$labels\.([a-z_]+)", told))
            assert named <= labels_of(rule["expr"], known), rule["alert"]
        for target in targets():
            named = set(re.findall(r"\{\{\s*([a-z_]+)\s*\}\}", target.get("legendFormat", "")))
            assert named <= labels_of(target["expr"], known), target

    def test_everything_exported_is_on_the_dashboard(self, service: Service) -> None:
        shown = set().union(*(metrics_of(target["expr"]) for target in targets()))
        for name in exported(service):
            if not name.startswith("lethe_") or name.endswith("_created"):
                continue
            family = re.sub(r"_(bucket|count|sum)$", "", name)
            assert any(one.startswith(family) for one in shown), f"{name} is on no panel"

    @pytest.mark.parametrize(
        ("expression", "told"),
        [
            ("sum(rate(lethe_jobs[5m])", "parenthesis"),
            ("sum(rate(lethe_jobs_waiting))", "matrix"),
            ("lethe_nothing > 0", "does not have lethe_nothing"),
            ('lethe_requests{stage="active"}', "no label stage"),
            ('lethe_requests{state="activ"}', "is activ"),
            ('lethe_requests{state=~"active|gone"}', "never gone"),
            ("max by (replica) (lethe_requests)", "grouped by replica"),
            ("lethe_requests - on (stage) lethe_stage_requests", "matched on stage"),
        ],
    )
    def test_what_is_wrong_is_found(self, expression: str, told: str) -> None:
        known: dict[str, list[dict[str, str]]] = {
            "lethe_jobs_waiting": [{}], "lethe_requests": [{"state": "active"}],
            "lethe_stage_requests": [{"stage": "train"}],
        }  # fmt: skip
        with pytest.raises((ValueError, UnknownError), match=told):
            labels_of(expression, known)


def test_panels_do_not_overlap_and_have_ids_of_their_own() -> None:
    panels = json.loads((OPERATIONS / "grafana.json").read_text(encoding="utf-8"))["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule["alert"])
def test_an_alert_says_what_is_wrong_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert rule["annotations"]["summary"]
    assert rule["annotations"]["description"]
