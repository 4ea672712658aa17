"""`GET /metrics`, a replica's half: what it counted while it answered."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from app.chat.service import ChatEngine
from app.lumoe.expert import read_adapter
from app.lumoe.types import Answer, Decision
from app.lumoe.writers import bank_of
from app.settings import Settings
from tests.chat.conftest import key_of
from tests.lumoe.experts import make_adapter

Headers = dict[str, str]
Sample = Callable[..., float]


@pytest.fixture
def sample(client: TestClient, chat_settings: Settings) -> Sample:
    """Return one value as it is now."""
    key = key_of(chat_settings, "metrics")

    def read(name: str, **labels: str) -> float:
        families = text_string_to_metric_families(client.get("/metrics", headers=key).text)
        (found,) = [
            s.value for family in families for s in family.samples if (s.name, s.labels) == (name, labels)
        ]
        return found

    return read


def ask(client: TestClient, key: Headers, text: str, **fields: object) -> int:
    body = {"messages": [{"role": "user", "content": text}], "max_tokens": 4} | fields
    return client.post("/chat", json=body, headers=key).status_code


def test_counts_conversations(
    client: TestClient, chat_key: Headers, sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sample("lethe_chats_total", outcome="answered") == 0
    assert ask(client, chat_key, "Hello") == 200
    assert ask(client, chat_key, "Hello", stream=True) == 200
    assert ask(client, chat_key, "x" * 900) == 422
    with monkeypatch.context() as patch:
        patch.setattr(ChatEngine, "ready", False)
        assert ask(client, chat_key, "Hello") == 503
        assert sample("lethe_serving_generation") == -1
    assert sample("lethe_chats_total", outcome="answered") == 2
    assert sample("lethe_chats_total", outcome="too_long") == 1
    assert sample("lethe_chats_total", outcome="busy") == 1
    assert sample("lethe_chats_total", outcome="failed") == 0
    assert sample("lethe_chat_seconds_count") == sample("lethe_chat_first_text_seconds_count") == 2
    assert 0 < sample("lethe_chat_first_text_seconds_sum") <= sample("lethe_chat_seconds_sum")
    assert sample("lethe_chat_tokens_total", kind="completion") == 8
    assert sample("lethe_gate_decisions_total", decision="base") == 2
    assert sample("lethe_guard_hits_total") == 0
    assert sample("lethe_chat_batch_rows_count") == sample("lethe_chat_batch_rows_sum") == 3
    assert sample("lethe_serving_generation") == 0
    assert sample("lethe_chat_waiting") == 0


def test_counts_what_gate_and_guard_say(client: TestClient, sample: Sample) -> None:
    engine: ChatEngine = client.app.state.engine  # type: ignore[attr-defined]  # a FastAPI application
    for decision, guarded in ((Decision("exp_1"), False), (Decision(watch=frozenset({"exp_2"})), True)):
        engine.counted.answered(Answer("No.", (1, 2), decision, guarded, "stop", 1, prompt_tokens=5))
    assert sample("lethe_gate_decisions_total", decision="claimed") == 1
    assert sample("lethe_gate_decisions_total", decision="watched") == 1
    assert sample("lethe_guard_hits_total") == 1
    assert sample("lethe_chat_tokens_total", kind="prompt") == 10


def test_tells_which_experts_are_on_the_device(client: TestClient, sample: Sample, tmp_path: Path) -> None:
    engine: ChatEngine = client.app.state.engine  # type: ignore[attr-defined]  # a FastAPI application
    bank = bank_of(engine.mllm)
    bank.limit(1)
    assert (sample("lethe_experts_on_device"), sample("lethe_experts_paged_in_total")) == (0, 0)
    adapter = read_adapter(make_adapter(engine.mllm, tmp_path, seed=1))
    held = [bank.load(key, *adapter) for key in ("a@1", "b@1")]
    assert (sample("lethe_experts_on_device"), sample("lethe_experts_paged_in_total")) == (1, 0)
    for slot in reversed(held):
        bank.activation([slot]).close()
    assert (sample("lethe_experts_on_device"), sample("lethe_experts_paged_in_total")) == (1, 2)
