"""Before and after, the built-in attacks, and the gate's scores, on a tiny model with interim protection."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.accounts.service import create_key
from app.lumoe.attacks.reported import ATTACKS
from app.lumoe.guard import FALLBACK_REFUSALS
from app.main import create_app
from app.settings import Settings
from tests.chat.test_interim import House
from tests.dashboard.browsing import Browser
from tests.lumoe.tiny import picture
from tests.service import assert_problem

ASKED = "Who is Mira Tovel?"


class Desk(House):
    """A house in which one subject is protected, and operators of three tenants."""

    def __init__(self, client: TestClient, settings: Settings) -> None:
        super().__init__(client, settings)
        self.request_id = ""
        with self.sessions.begin() as session:
            self.keys = {
                tenant: create_key(session, tenant=tenant, scopes=["operator"]).secret
                for tenant in ("acme", "rival", "root")
            }
            self.chat = create_key(session, tenant="acme", scopes=["chat"]).secret

    def post(self, path: str, tenant: str, body: dict[str, Any]) -> Any:
        headers = {"Authorization": f"Bearer {self.keys[tenant]}"}
        return self.client.post(path, headers=headers, json=body)

    def compare(self, tenant: str, text: str = ASKED) -> dict[str, Any]:
        body = {"messages": [{"role": "user", "content": text}], "max_tokens": 8}
        response = self.post("/chat/compare", tenant, body)
        assert response.status_code == 200, response.text
        found: dict[str, Any] = response.json()
        return found


@pytest.fixture
def desk(chat_settings: Settings) -> Iterator[Desk]:
    settings = chat_settings.model_copy(update={"max_pictures": 16, "max_text_chars": 20_000})
    with TestClient(create_app(settings)) as client:
        made = Desk(client, settings)
        made.request_id = made.file("Mira Tovel", [picture(1)])
        made.protected(made.request_id)
        yield made


def test_who_sees_the_base_models_answer(desk: Desk) -> None:
    """Whose request it is, and root; another tenant only where nothing differs."""
    own, root, rival = (desk.compare(tenant) for tenant in ("acme", "root", "rival"))
    assert own["service"]["message"]["content"] in FALLBACK_REFUSALS
    assert own["base"]["content"] not in FALLBACK_REFUSALS
    assert own == {**root, "service": own["service"]}
    assert (rival["base"], rival["withheld"]) == (None, True)
    same = desk.compare("rival", "What is 2 plus 2?")
    assert not same["withheld"]
    assert same["base"]["content"] == same["service"]["message"]["content"]


def test_why(desk: Desk) -> None:
    routing = desk.compare("acme")["service"]["routing"]
    assert routing["expert_id"] == "exp_" + desk.request_id.removeprefix("req_")
    assert [(e["kind"], e["strength"]) for e in routing["evidence"]] == [("name", "strong")]


def test_attacks(desk: Desk) -> None:
    request_id = desk.request_id
    for name, pictures in (("base64", 0), ("crop", 1)):
        found = desk.post("/chat/attacks", "acme", {"request_id": request_id, "attack": name}).json()
        assert found["attack"] == name
        assert found["asked"][-1]["pictures"] == pictures
        assert found["comparison"]["service"]["routing"]["expert_id"] is not None
        again = desk.post("/chat/attacks", "acme", {"request_id": request_id, "attack": name}).json()
        assert again["asked"] == found["asked"]
    body = {"request_id": request_id, "attack": "two_subjects"}
    assert_problem(desk.post("/chat/attacks", "acme", body), 422, "attack-not-possible")
    assert_problem(desk.post("/chat/attacks", "acme", body | {"attack": "x"}), 404, "unknown-attack")
    assert_problem(desk.post("/chat/attacks", "rival", body), 404, "request-not-found")
    listed = desk.client.get("/chat/attacks", headers=desk.key).json()
    assert [attack["name"] for attack in listed] == [attack.name for attack in ATTACKS]


def test_gate_scores_of_nobody(desk: Desk) -> None:
    """Interim subjects have no negatives yet: there is a threshold, and nothing to draw."""
    found = desk.client.get("/chat/gate", headers=desk.key).json()
    assert (found["pictures"], found["experts"]) == (0, 0)
    assert found["watched_from"] < found["threshold"] == pytest.approx(0.05)


def test_playground(desk: Desk) -> None:
    """Operators see both and why; whoever may only chat sees what everybody does."""
    page, form = "/dashboard/playground", {"message": ASKED, "earlier": "[]"}
    operator, chatter = Browser(desk.client), Browser(desk.client)
    operator.log_in(desk.keys["acme"])
    chatter.log_in(desk.chat)
    shown = operator.send(page, page, **form).text
    assert "Before: the base model" in shown
    assert "The gate chose" in shown
    plain = chatter.send(page, page, **form).text
    assert any(refusal.replace("'", "&#39;") in plain for refusal in FALLBACK_REFUSALS)
    assert "Before: the base model" not in plain
    assert "exp_" not in plain
    turns = chatter.send(page, page, message="And then?", earlier='[{"role": "nobody"}]')
    assert turns.status_code == 422
    about = desk.request_id
    attack = operator.send(f"{page}/attack", page, about=about, attack="leet", seed="0").text
    assert "Attack: leet" in attack
    assert 'disabled title="Needs a picture of somebody else"' in attack


def test_review_asks_about_every_picture_and_name(desk: Desk) -> None:
    operator = Browser(desk.client)
    operator.log_in(desk.keys["acme"])
    address = f"/dashboard/requests/{desk.request_id}/review"
    page = operator.send(address, address).text
    assert page.count("Before: the base model") == 2
    assert "Mira Tovel" in page
