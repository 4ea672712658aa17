"""Every setting can be set where people deploy: it is in `.env.example` and handed on by the compose file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.settings import Settings, load_settings

ROOT = Path(__file__).parents[1]
KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="

NOT_FOR_CONTAINERS = {
    "LETHE_ENV": "the compose file is for production",
    "LETHE_DATABASE_URL": "made of POSTGRES_PASSWORD",
    "LETHE_REDIS_URL": "made of REDIS_PASSWORD",
    "LETHE_EXPERTS_URL": "not set by people: LETHE_EXPERTS_DIR where it is a URL",
    "LETHE_EXPERTS_CACHE": "within the volume, whose place the image knows",
    "LETHE_SEED": "for tests that train twice",
    "LETHE_CHECKPOINT_SECONDS": "a pace between processes; changed for tests",
    "LETHE_LEASE_SECONDS": "a pace between processes; changed for tests",
    "LETHE_REGISTRY_POLL_SECONDS": "a pace between processes; changed for tests",
    "LETHE_OUTBOX_POLL_SECONDS": "a pace between processes; changed for tests",
    "LETHE_SWEEP_SECONDS": "a pace between processes; changed for tests",
    "LETHE_REDELIVERY_SECONDS": "a pace between processes; changed for tests",
    "LETHE_WEBHOOK_POLL_SECONDS": "a pace between processes; changed for tests",
}
"""Settings that `.env.example` does not have, and why."""

COMPOSE_ALONE = {"LETHE_BIND", "LETHE_EXTRAS", "LETHE_PORT", "LETHE_PROXY_PORT", "LETHE_VERSION"}
"""Variables of the compose file that are no settings of the service."""

OTHERWISE = {"LETHE_REVIEW_POLICY": "manual", "LETHE_RATE_LIMIT": "1200/minute"}
"""What holds in containers, where it is not the service's own default."""

EXAMPLES = {
    "LETHE_SIGNING_KEY", "LETHE_SIGNING_KEYS_RETIRED", "LETHE_EVIDENCE_KEYS_PREVIOUS", "LETHE_RETAIN_DATA",
    "LETHE_VLLM_URLS", "LETHE_VLLM_API_KEY", "LETHE_VLLM_EXPERTS_DIR", "LETHE_VLLM_CONTEXT",
    "LETHE_OTLP_ENDPOINT", "LETHE_EXPERTS_DIR", "LETHE_EXPERTS_OPTIONS",
}  # fmt: skip
"""Settings without a default: what `.env.example` shows is how one looks."""


def field_of(variable: str) -> str:
    return variable.removeprefix("LETHE_").lower()


def settings_variables() -> set[str]:
    return {f"LETHE_{name.upper()}" for name in Settings.model_fields}


def example() -> dict[str, str]:
    lines = re.findall(r"^#?(LETHE_\w+)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE)
    assert len({name for name, _ in lines}) == len(lines), "a variable is there twice"
    return dict(lines)


def compose() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return document


@pytest.mark.parametrize("variable", sorted(settings_variables() - NOT_FOR_CONTAINERS.keys()))
def test_is_in_the_example_and_handed_on(variable: str) -> None:
    assert variable in example()
    for service in ("api", "worker", "migrate"):
        handed = compose()["services"][service]["environment"]
        assert variable in handed, service
        assert handed[variable] is None or f"${{{variable}" in handed[variable], service


@pytest.mark.parametrize("variable", sorted(NOT_FOR_CONTAINERS))
def test_is_left_out_on_purpose(variable: str) -> None:
    assert variable in settings_variables(), "there is no such setting any more"
    assert variable not in example()


def test_nothing_else_is_there() -> None:
    """A variable that nothing reads is misspelt, or gone."""
    known = settings_variables() | COMPOSE_ALONE
    assert set(example()) <= known
    named = set(re.findall(r"\bLETHE_\w+", (ROOT / "docker-compose.yml").read_text()))
    assert named <= known


@pytest.mark.parametrize("variable", sorted(example().keys() - EXAMPLES - COMPOSE_ALONE))
def test_what_is_shown_is_what_holds(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = example()[variable]
    if not shown:
        return
    monkeypatch.setenv(variable, shown)
    found = getattr(load_settings(_env_file=None), field_of(variable))
    default = OTHERWISE.get(variable, Settings.model_fields[field_of(variable)].default)
    assert found == default
    handed = compose()["services"]["api"]["environment"][variable]
    assert handed is None or handed.split(":-")[1].rstrip("}") in (shown, "")


def test_the_example_filled_in_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every line uncommented, with the four secrets: nothing of it is refused."""
    secrets = {"LETHE_SECRET_KEY": "s" * 32, "LETHE_EVIDENCE_KEY": KEY, "LETHE_SIGNING_KEY": KEY}
    lists = dict.fromkeys(("LETHE_SIGNING_KEYS_RETIRED", "LETHE_EVIDENCE_KEYS_PREVIOUS"), f'["{KEY}"]')
    for name, shown in (example() | secrets | lists | {"LETHE_ENV": "production"}).items():
        monkeypatch.setenv(name, shown)
    assert load_settings(_env_file=None).env == "production"
