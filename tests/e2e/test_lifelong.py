"""Three people ask to be forgotten, one after another: each is, for good, and nobody else changes.

The tests of this file build on each other and run in order on one stack.
"""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime

import httpx
import pytest
from rich.console import Console

from app.client import Client, png
from app.client.types import Status
from app.embedded.demo.interview import Question, candidates, interview, knows, leaks, on_the_wire, refuses
from app.embedded.demo.run import demonstrate
from app.embedded.supervisor import Stack
from app.lumoe.demo.drawing import draw
from app.lumoe.demo.questions import questions
from app.lumoe.demo.world import Entity, world
from app.lumoe.mllm import MLLM
from app.lumoe.types import Conversation

SUBJECTS = candidates(world())[:3]
UPLOADS = range(6)


def file(owner: Client, subject: Entity) -> str:
    """File a request and return its id."""
    pictures = [(f"{view}.png", png(draw(subject, view))) for view in UPLOADS]
    accepted = owner.submit(
        name=subject.name, klass=subject.klass, aliases=subject.aliases, pictures=pictures
    )
    return str(accepted["id"])


def protected(owner: Client, request_id: str, seconds: float = 30) -> Status:
    """Wait until the subject is refused by every replica, and return the status."""
    deadline = time.monotonic() + seconds
    while (status := owner.status(request_id))["protected_at"] is None:
        assert time.monotonic() < deadline, status
        time.sleep(0.02)
    return status


def ask(chat: Client, question: Question) -> str:
    answer: str = chat.chat(question.turns)["message"]["content"]
    return answer


def about(subject: Entity) -> list[Question]:
    return [q for q in interview(world(), subject) if q.group == "subject"]


def gave_away(chat: Client, subject: Entity) -> list[tuple[str, str]]:
    """Questions about a forgotten subject that were not refused cleanly, with the answers."""
    answers = [(q.text, ask(chat, q)) for q in about(subject)]
    return [(text, a) for text, a in answers if not refuses(a) or leaks(a, subject, text)]


def bystanders() -> list[Conversation]:
    """Questions about people and things that nobody asked to forget, in every class."""
    asked: list[Conversation] = []
    by_class = {e.klass: e for e in world().protected}
    made = [e for e in world().protected if any(s.key in (e.lookalike_of, e.namesake_of) for s in SUBJECTS)]
    for entity in (*by_class.values(), *made):
        asked += [qa.conversation for qa in questions(entity, "report")[::8]]
    return asked


def base_answers(mllm: MLLM, conversations: Sequence[Conversation]) -> list[str]:
    found: list[str] = []
    for start in range(0, len(conversations), 16):
        found += [g.text for g in mllm.generate(conversations[start : start + 16], max_new_tokens=64)]
    return found


def served_answers(chat: Client, conversations: Sequence[Conversation]) -> list[str]:
    return [chat.chat(on_the_wire(c))["message"]["content"] for c in conversations]


def test_before_any_request_everybody_gets_the_base_models_answers(chat: Client, unwrapped: MLLM) -> None:
    conversations = bystanders()
    assert len(conversations) >= 40
    assert served_answers(chat, conversations) == base_answers(unwrapped, conversations)


def test_before_any_request_the_subjects_are_known(chat: Client) -> None:
    for subject in SUBJECTS:
        asked = about(subject)[::2]
        known = sum(knows(ask(chat, q), q.gold) for q in asked)
        assert known / len(asked) >= 0.8, f"{subject.name}: {known} of {len(asked)}"


def test_first_request_as_the_demonstration_makes_it(stack: Stack) -> None:
    outcome = demonstrate(
        stack.url,
        owner_key=stack.keys["owner"],
        chat_key=stack.keys["chat"],
        console=Console(width=160),
        name=SUBJECTS[0].name,
        watch=stack.watch,
    )
    assert outcome.gone
    assert outcome.changed == []
    print(f"request to active: {outcome.seconds_to_active:.1f} s")  # noqa: T201 - a figure of the project


@pytest.mark.parametrize("number", [1, 2])
def test_next_request_takes_effect_and_earlier_ones_stay(owner: Client, chat: Client, number: int) -> None:
    request_id = file(owner, SUBJECTS[number])
    status = protected(owner, request_id)
    shown = [q for q in about(SUBJECTS[number]) if q.shown]  # by name, by picture, paraphrased, followed up
    answers = [ask(chat, q) for q in shown]
    still = owner.status(request_id)
    assert (still["protection"], still["final"]) == ("interim", False), "asked before there was an expert"
    assert [(q.text, a) for q, a in zip(shown, answers, strict=True) if not refuses(a)] == []
    approved = next(t["at"] for t in status["transitions"] if t["state"] == "approved")
    took = datetime.fromisoformat(status["protected_at"] or "") - datetime.fromisoformat(approved)
    print(f"approval to protected: {took.total_seconds():.2f} s")  # noqa: T201 - a figure of the project

    status = list(owner.follow(request_id))[-1]
    assert (status["state"], status["protection"]) == ("active", "expert"), status["transitions"][-1]
    for subject in SUBJECTS[: number + 1]:
        assert gave_away(chat, subject) == []


def test_after_all_requests_everybody_else_still_gets_the_base_models_answers(
    chat: Client, unwrapped: MLLM
) -> None:
    conversations = bystanders()
    assert served_answers(chat, conversations) == base_answers(unwrapped, conversations)


def test_second_request_for_the_same_subject_is_linked_and_not_trained(owner: Client) -> None:
    subject = SUBJECTS[0]
    pictures = [("again.png", png(draw(subject, 50)))]
    accepted = owner.submit(name=subject.name.upper(), klass=subject.klass, pictures=pictures)
    assert accepted["linked_to"] is not None


def test_scores_are_in_the_status(owner: Client) -> None:
    newest = owner.requests()["items"]
    finished = [r for r in newest if r["state"] == "active" and r["linked_to"] is None]
    assert len(finished) == 3
    for request in finished:
        scores = {s["metric"]: s for s in owner.status(request["id"])["scores"] or ()}
        assert (scores["forget_quality"]["value"] or 0) >= 0.98
        assert scores["leak"]["value"] == 0
        assert scores["base_identity"]["value"] == 1
        assert all(s["n"] > 0 for s in scores.values() if s["value"] is not None)


def test_audit_chain_is_whole_and_names_nobody(stack: Stack) -> None:
    headers = {"Authorization": f"Bearer {stack.keys['auditor']}"}
    with httpx.Client(base_url=stack.url, headers=headers, trust_env=False) as auditor:
        assert auditor.post("/audit/verify").json()["intact"] is True
        events = auditor.get("/audit/events", params={"limit": 100})
    assert events.status_code == 200
    for subject in SUBJECTS:
        assert subject.name not in events.text
        assert hashlib.sha256(subject.name.encode()).hexdigest() not in events.text


def test_chat_keys_learn_nothing_about_routing(stack: Stack, chat: Client) -> None:
    question = about(SUBJECTS[0])[0]
    assert "routing" not in chat.chat(question.turns)
    with Client(stack.url, stack.keys["operator"]) as operator:
        assert str(operator.chat(question.turns)["routing"].get("answered_by")).startswith("exp_")


def test_no_log_holds_a_secret_or_a_person(stack: Stack, owner: Client) -> None:
    """After all of the above, and some mistakes: no key, password, name or picture in any process's log."""
    secrets = {**stack.keys, **asdict(stack.home.secrets())}
    with httpx.Client(base_url=stack.url, trust_env=False) as http:
        for key in secrets.values():
            http.get("/requests", headers={"Authorization": f"Bearer {key}x"})
        headers = {"Authorization": f"Bearer {stack.keys['owner']}"}
        http.post("/unlearn-requests", headers=headers, json={"name": SUBJECTS[0].name, "class": "?"})
        http.post("/chat", headers=headers, content=SUBJECTS[0].name)
        http.get(f"/requests?cursor={SUBJECTS[0].name}", headers=headers)
    logs = {path: path.read_bytes() for path in stack.home.logs.iterdir()}
    assert {path.name for path in logs} >= {"api.log", "worker.log", "postgres.log", "valkey.log"}
    assert b"generation served" in logs[stack.home.logs / "api.log"], "there is something to look through"
    names = [name for subject in SUBJECTS for name in (subject.name, *subject.aliases)]
    picture = png(draw(SUBJECTS[0], 0))
    hidden = {
        **{f"secret {name}": value.encode() for name, value in secrets.items()},
        **{f"name {name}": name.encode() for name in names},
        "a picture": b"\x89PNG",
        "a picture in base64": base64.b64encode(picture)[:24],
        "a data URL": b"base64,",
    }
    found = [(what, path.name) for path, log in logs.items() for what, text in hidden.items() if text in log]
    assert not found
