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
from app.registry.repository import ReplicaRepository
from app.removal.records import Score
from app.removal.states import State
from app.webhooks.delivery import Deliverer
from app.webhooks.sending import Sent
from tests.service import Service

OPERATIONS = Path(app.__file__).parents[1] / "docs" / "operations"
_NAME = re.compile(r"\b((?:lethe|process)_[a-z0-9_]+)(\{[^}]*\})?")
_LABEL = re.compile(r'([a-z_]+)\s*(=~|!=|!~|=)\s*"([^"]*)"')
_GROUPED = re.compile(r"\b(?:by|on|without)\s*\(([^)]*)\)")
_SCRAPED = {"instance", "job"}
"""Labels that Prometheus adds."""


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


def test_every_metric_and_label_is_exported(service: Service) -> None:
    known = exported(service)
    for where, expression in expressions():
        names = _NAME.findall(expression)
        assert names, (where, expression)
        labels: set[str] = set()
        for name, selector in names:
            assert name in known, f"{where} asks for {name}, which /metrics does not have"
            labels |= {label for one in known[name] for label in one}
            for label, _, value in _LABEL.findall(selector):
                if label in _SCRAPED:
                    continue
                values = {one[label] for one in known[name] if label in one}
                assert values, f"{where}: {name} has no label {label}"
                if label != "state":
                    assert any(re.fullmatch(value, one) for one in values), f"{where}: no {label} is {value}"
                else:
                    states = {*(state.value for state in State), "enabled", "disabled"}
                    assert set(value.split("|")) <= states, f"{where}: unknown state in {value}"
        for grouped in _GROUPED.findall(expression):
            for label in filter(None, (one.strip() for one in grouped.split(","))):
                assert label in labels | _SCRAPED, f"{where} groups by {label}, which is nowhere"
        assert expression.count("(") == expression.count(")"), where


def test_everything_exported_is_on_the_dashboard(service: Service) -> None:
    shown = {
        name for where, text in expressions() if where.startswith("panel") for name, _ in _NAME.findall(text)
    }
    for name in exported(service):
        if not name.startswith("lethe_") or name.endswith("_created"):
            continue
        family = re.sub(r"_(bucket|count|sum)$", "", name)
        assert any(one.startswith(family) for one in shown), f"{name} is on no panel"


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
