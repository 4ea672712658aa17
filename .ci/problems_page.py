"""Writes docs/reference/problems.md from the problem classes (`make problems`); a test keeps it current."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from app.api.problems import ALWAYS, MEDIA_TYPE
from app.client.errors import kinds
from app.kit.errors import PROBLEM_TYPE_PREFIX, Problem
from app.main import create_app
from app.settings import load_settings

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "problems.md"
HEAD = """\
# Problems

Every error is an [RFC 9457](https://www.rfc-editor.org/rfc/rfc9457) document, `application/problem+json`,
with a stable `type`, a `detail` that says what happened this time, and a `hint` that says what to do. Below
`/v1/` the same errors come in OpenAI's envelope. The [Python client](client.md) raises an exception of its
own for each.

This page is made from the problem classes by `make problems`; a test fails when it is not current.

| type | status | title |
|---|---|---|
"""


def problems(base: type[Problem] = Problem) -> Iterator[type[Problem]]:
    """Yield every problem of the service, `Problem` itself (an internal error) first."""
    yield base
    for kind in base.__subclasses__():
        if kind.__module__.startswith("app."):
            yield from problems(kind)


def by_type() -> dict[str, list[type[Problem]]]:
    """Return the problems by type, those of one status together; the first of a type is the most general."""
    create_app(load_settings(_env_file=None))  # imports every room
    found: dict[str, list[type[Problem]]] = {}
    for kind in sorted(dict.fromkeys(problems()), key=lambda one: (one.STATUS, one.TYPE)):
        found.setdefault(kind.TYPE, []).append(kind)
    return found


def answered_by() -> dict[str, list[str]]:
    """Return the endpoints that document each type, as the service's OpenAPI document has them."""
    document = create_app(load_settings(_env_file=None)).openapi()
    found: dict[str, list[str]] = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            for slug in _documented(operation):
                found.setdefault(slug, []).append(f"{method.upper()} {path}")
    return found


def _documented(operation: dict[str, Any]) -> set[str]:
    contents = [
        (answer.get("content") or {}).get(MEDIA_TYPE, {}) for answer in operation["responses"].values()
    ]
    types = [
        example["value"]["type"] for content in contents for example in content.get("examples", {}).values()
    ]
    return {name.removeprefix(PROBLEM_TYPE_PREFIX) for name in types}


def page() -> str:
    """Return the whole page."""
    found, endpoints, raised = by_type(), answered_by(), kinds()
    everywhere = {kind.TYPE for kind in ALWAYS}
    rows = [f"| [`{slug}`](#{slug}) | {k[0].STATUS} | {k[0].TITLE} |" for slug, k in found.items()]
    lines = [HEAD + "\n".join(rows), ""]
    for slug, of in found.items():
        first = of[0]
        lines += [f"## {slug} {{ #{slug} }}", "", f"**{first.STATUS}, {first.TITLE}.** {first.when()}", ""]
        lines += [
            f"Also: {other.when()} {_hint(other)}\n" for other in of[1:] if other.when() != first.when()
        ]
        lines += [f"What to do: {_hint(first)}", ""]
        lines += [_where(slug, slug in everywhere, endpoints.get(slug, [])), ""]
        if slug in raised:
            lines += [f"In the client: `{raised[slug].__name__}`.", ""]
        lines += [
            "```json",
            json.dumps(first.occurrence().problem(), indent=2, ensure_ascii=False),
            "```",
            "",
        ]
    return "\n".join(lines).rstrip() + "\n"


def _hint(kind: type[Problem]) -> str:
    return kind.occurrence().hint


def _where(slug: str, everywhere: bool, endpoints: list[str]) -> str:
    if everywhere:
        return "Any endpoint may answer it."
    if endpoints:
        return "Answered by " + ", ".join(f"`{endpoint}`" for endpoint in endpoints) + "."
    if slug == "method-not-allowed":
        return "Answered wherever a path is asked with a method that it has not."
    if slug == "not-our-form":
        return "Answered, as a page, by forms of the dashboard alone."
    return (
        "No documented endpoint answers it: it ends work inside the service, or is what others are kinds of."
    )


if __name__ == "__main__":
    if "--check" in sys.argv and PAGE.read_text(encoding="utf-8") != page():
        sys.exit(f"{PAGE} is not current: make problems")
    PAGE.write_text(page(), encoding="utf-8")
