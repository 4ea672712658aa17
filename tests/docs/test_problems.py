"""Every problem has an example of its own, every documented error has one, and the page is made from them."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest

from app.api.problems import MEDIA_TYPE
from app.client.errors import kinds
from app.kit.errors import PROBLEM_TYPE_PREFIX, Problem
from app.main import create_app
from app.settings import load_settings

ROOT = Path(__file__).parents[2]
MADE: dict[str, Any] = runpy.run_path(str(ROOT / ".ci" / "problems_page.py"))
BY_TYPE: dict[str, list[type[Problem]]] = MADE["by_type"]()
CLASSES = [kind for of in BY_TYPE.values() for kind in of]


def test_the_page_is_current() -> None:
    assert (ROOT / "docs" / "reference" / "problems.md").read_text(encoding="utf-8") == MADE["page"](), (
        "make problems"
    )


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_an_example_says_what_happened_and_what_to_do(kind: type[Problem]) -> None:
    assert "EXAMPLE" in vars(kind), "its parent's example is of something else"
    shown = kind.occurrence()
    assert shown.detail
    assert shown.hint
    assert kind.when().endswith(".")
    assert not set(shown.extra) & {"type", "title", "status", "detail", "hint", "instance"}


def test_the_client_knows_every_type_of_the_page() -> None:
    assert set(BY_TYPE) - set(kinds()) == {"not-our-form"}, "that one is a page"


def test_every_error_of_every_endpoint_has_an_example() -> None:
    """Of each status from 400 on, in problem documents; below /v1/ in OpenAI's envelope."""
    document = create_app(load_settings(_env_file=None)).openapi()
    seen = 0
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            for status, answer in operation["responses"].items():
                if int(status) < 400:
                    continue
                contents = answer["content"]
                media = "application/json" if path.startswith("/v1/") else MEDIA_TYPE
                examples = contents[media]["examples"]
                assert examples, (method, path, status)
                for example in examples.values():
                    value = example["value"]
                    if media == MEDIA_TYPE:
                        assert value["status"] == int(status)
                        assert value["type"].removeprefix(PROBLEM_TYPE_PREFIX) in BY_TYPE
                        assert value["detail"]
                        assert value["hint"]
                    else:
                        assert value["error"]["message"]
                    seen += 1
    assert seen > 500


def test_examples_on_the_page_are_json_of_the_status_above() -> None:
    text = (ROOT / "docs" / "reference" / "problems.md").read_text(encoding="utf-8")
    found = re.findall(r"^\*\*(\d{3}),.*?```json\n(.*?)```", text, re.DOTALL | re.MULTILINE)
    assert len(found) == len(BY_TYPE)
    for status, block in found:
        assert json.loads(block)["status"] == int(status)
