"""The front page: true, self-contained, and silent about people."""

from __future__ import annotations

import re

import pytest
from fastapi.testclient import TestClient

from app.dashboard.pages import CONTENT_SECURITY_POLICY, Figures, front_page
from app.main import create_app
from app.settings import Settings


def figures(**changed: object) -> Figures:
    known: dict[str, object] = {
        "version": "1",
        "model": "demo",
        "newest": 3,
        "serving": 3,
        "requests": {"active": 2},
        "replicas": [("a", 3)],
    }
    return Figures(**{**known, **changed})  # type: ignore[arg-type]  # tests name the fields they change


class TestPage:
    @pytest.mark.parametrize(("serving", "word"), [(3, "ready"), (2, "not ready"), (None, "not ready")])
    def test_state(self, serving: int | None, word: str) -> None:
        assert f">{word}</b>" in front_page(figures(serving=serving))

    def test_counts(self) -> None:
        page = front_page(figures(requests={"needs_evidence": 7}))
        assert "needs evidence" in page
        assert ">7</td>" in page

    def test_no_counts_where_they_are_not_for_everybody(self) -> None:
        assert "GET /requests" in front_page(figures(requests=None))

    def test_everything_is_escaped(self) -> None:
        page = front_page(figures(model="<script>alert(1)</script>", replicas=[("<b>x", 1)]))
        assert "<script" not in page
        assert "<b>x" not in page

    def test_loads_nothing(self) -> None:
        page = front_page(figures())
        assert "<script" not in page
        assert not re.search(r"(src|href)=\"(?!/)", page)
        assert "'unsafe" not in CONTENT_SECURITY_POLICY


class TestEndpoint:
    def test_without_a_key(self, settings: Settings) -> None:
        with TestClient(create_app(settings, with_engine=False)) as client:
            answer = client.get("/")
        assert answer.status_code == 200
        assert answer.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
        assert "no model loaded" in answer.text
        assert "demo" in answer.text

    def test_production_tells_no_figures(self, settings: Settings) -> None:
        quiet = settings.model_copy(update={"env": "production", "model": "/models/secret"})
        with TestClient(create_app(quiet, with_engine=False)) as client:
            answer = client.get("/")
        assert "/models/secret" not in answer.text
        assert "None yet" not in answer.text
