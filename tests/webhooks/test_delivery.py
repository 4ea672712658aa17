"""From a change of state to a receiver: signed, in order, again after a failure, and one day no longer."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
from sqlalchemy import select, text
from standardwebhooks import Webhook as Standard

from app.db.models import AuditEvent
from app.db.webhook_models import Webhook, WebhookMessage
from app.doctor.trail import suspicious
from app.kit.crypto import EvidenceCipher
from app.removal.states import Event
from app.webhooks.delivery import BACKOFF, Deliverer
from app.webhooks.repository import MessageRepository
from app.webhooks.sending import Sent
from tests.service import Json, Service
from tests.webhooks.receiver import Receiver, receiver
from workers.webhooks import WebhookLoop


@pytest.fixture
def there() -> Iterator[Receiver]:
    with receiver() as made:
        yield made


def register(house: Service, url: str, key: str | None = None) -> Json:
    response = house.post("/webhooks", key, json={"url": url})
    assert response.status_code == 201, response.text
    found: Json = response.json()
    return found


def deliver(house: Service, **arguments: object) -> int:
    """Send until nothing may be sent now; return how many attempts that were."""
    deliverer = Deliverer(house.sessions, house.settings, **arguments)  # type: ignore[arg-type]  # as they are
    tried = 0
    while n := deliverer.run_once():
        tried += n
    return tried


def hurry(house: Service) -> None:
    """Let whatever waits be due."""
    with house.sessions.begin() as session:
        session.execute(text("UPDATE webhook_messages SET next_at = now() - interval '1 second'"))


def messages(house: Service) -> list[WebhookMessage]:
    with house.sessions() as session:
        return list(session.scalars(select(WebhookMessage).order_by(WebhookMessage.seq)))


class TestWhatIsSent:
    def test_every_change_in_order_and_signed(self, house: Service, there: Receiver) -> None:
        made = register(house, there.url)
        request_id = house.file("Elodie Brandt", note="her flat", requester="me@example.org")["id"]
        house.activate(request_id)
        deliver(house)
        expected = ["received", "in_review", "approved", "queued", "preparing", "training", "calibrating"]
        assert there.states == [*expected, "verifying", "publishing", "active"]
        receiver_side = Standard(made["secret"])
        for headers, body in there.got:
            assert receiver_side.verify(body, headers) == json.loads(body)
            assert headers["content-type"] == "application/json"
        assert len({headers["webhook-id"] for headers, _ in there.got}) == len(there.got)
        last = there.bodies[-1]
        assert last["type"] == "request.state_changed"
        assert last["data"] | {"request_id": request_id, "final": True, "event": "activate"} == last["data"]

    def test_nothing_personal(self, house: Service, there: Receiver) -> None:
        register(house, there.url)
        filed = house.file("Elodie Brandt", aliases=["Lodi"], note="her flat", requester="me@example.org")
        house.post(f"/requests/{filed['id']}/cancel", json={"reason": "Lodi moved"})
        deliver(house)
        sent = b"".join(body for _, body in there.got).decode()
        assert "cancelled" in sent
        for word in ("Elodie", "Brandt", "Lodi", "flat", "example.org", "moved"):
            assert word not in sent

    def test_linked_requests_are_told_of_too(self, house: Service, there: Receiver) -> None:
        first = house.file("Elodie Brandt")["id"]
        second = house.file("Elodie Brandt")["id"]
        register(house, there.url)
        house.activate(first)
        deliver(house)
        told = {(body["data"]["request_id"], body["data"]["state"]) for body in there.bodies}
        assert {(first, "active"), (second, "active")} <= told

    def test_own_tenant_and_root(self, house: Service) -> None:
        with receiver() as own, receiver() as others, receiver() as roots:
            for at, key in ((own, house.owner), (others, house.stranger), (roots, house.root)):
                register(house, at.url, key)
            house.file("Elodie Brandt")
            deliver(house)
        assert len(own.got) == len(roots.got) == 4
        assert others.got == []

    def test_no_change_no_message(self, house: Service, there: Receiver) -> None:
        """What is rolled back is not told: the message is in the transaction of the change."""
        register(house, there.url)
        request_id = house.file()["id"]
        before = len(messages(house))

        def crash() -> None:
            with house.removal() as removal:
                removal.transition(request_id, Event.CANCEL, actor="system:test")
                raise RuntimeError("crash")

        with pytest.raises(RuntimeError, match="crash"):
            crash()
        assert len(messages(house)) == before


class TestFailures:
    def test_again_with_the_same_id_and_others_wait_for_it(self, house: Service, there: Receiver) -> None:
        register(house, there.url)
        there.answers = [500, 200]
        house.file()
        assert deliver(house) == 1, "what comes later of the same request waits"
        assert deliver(house) == 0, "and it is not tried again at once"
        hurry(house)
        deliver(house)
        assert there.states == ["received", "received", "in_review", "approved", "queued"]
        assert there.got[0][0]["webhook-id"] == there.got[1][0]["webhook-id"]

    def test_other_requests_do_not_wait(self, house: Service, there: Receiver) -> None:
        register(house, there.url)
        first = house.file("Elodie Brandt")["id"]
        there.answers = [500, 200]
        deliver(house)
        second = house.file("Mira Tovel")["id"]
        deliver(house)
        told = [body["data"]["request_id"] for body in there.bodies]
        assert told.count(second) == 4
        assert told.count(first) == 1

    def test_disabled_after_the_last_try_and_enabled_again(self, house: Service, there: Receiver) -> None:
        made = register(house, there.url)
        there.answers = [503]
        house.file()
        for _ in range(len(BACKOFF) + 1):
            hurry(house)
            assert deliver(house) == 1
        hurry(house)
        assert deliver(house) == 0
        shown = house.get(f"/webhooks/{made['id']}").json()
        assert (shown["enabled"], shown["disabled_because"], shown["waiting"]) == (False, "failing", 4)

        other = house.file("Mira Tovel")["id"]
        there.answers = [200]
        there.got.clear()
        assert house.post(f"/webhooks/{made['id']}/enable").json()["enabled"]
        deliver(house)
        told = [(body["data"]["request_id"] == other, body["data"]["state"]) for body in there.bodies]
        for whose in (False, True):
            states = [state for found, state in told if found is whose]
            assert states == ["received", "in_review", "approved", "queued"], "nothing was lost"
        with house.sessions() as session:
            trail = session.scalars(
                select(AuditEvent).where(AuditEvent.subject_id == made["id"]).order_by(AuditEvent.seq)
            ).all()
        assert [e.kind for e in trail] == ["webhook.created", "webhook.disabled", "webhook.enabled"]
        assert [suspicious(event) for event in trail] == [None, None, None]

    def test_gone_is_disabled_at_once(self, house: Service, there: Receiver) -> None:
        made = register(house, there.url)
        there.answers = [410]
        house.file()
        deliver(house)
        assert house.get(f"/webhooks/{made['id']}").json()["disabled_because"] == "gone"

    def test_backoff_grows(self, house: Service, there: Receiver) -> None:
        register(house, there.url)
        there.answers = [500]
        house.file()
        waits = []
        for _ in range(3):
            hurry(house)
            deliver(house)
            with house.sessions() as session:
                wait = "SELECT extract(epoch FROM next_at - now()) FROM webhook_messages ORDER BY seq LIMIT 1"
                waits.append(float(session.execute(text(wait)).scalar_one()))
        for found, least in zip(waits, BACKOFF, strict=False):
            assert least * 0.8 < found < least * 1.3

    def test_redirects_are_not_followed(self, house: Service, there: Receiver) -> None:
        with receiver() as elsewhere:
            made = register(house, there.url)
            there.answers, there.location = [302], elsewhere.url
            house.file()
            deliver(house)
            assert elsewhere.got == []
        (attempt,) = house.get(f"/webhooks/{made['id']}/deliveries").json()["items"]
        assert (attempt["delivered"], attempt["status"], attempt["error"]) == (False, 302, "status")

    def test_a_sender_that_died_has_its_message_sent_again(self, house: Service, there: Receiver) -> None:
        register(house, there.url)
        house.file()
        with house.sessions.begin() as session:
            assert len(MessageRepository(session).take(9, timedelta(seconds=60))) == 1
        assert deliver(house) == 0, "somebody has it"
        hurry(house)
        deliver(house)
        assert there.states == ["received", "in_review", "approved", "queued"]

    def test_secret_under_a_key_that_is_not_there(self, house: Service, there: Receiver) -> None:
        made = register(house, there.url)
        house.file()
        other = EvidenceCipher(b"x" * 32)
        with house.sessions.begin() as session:
            row = session.scalars(select(Webhook)).one()
            row.secret_sealed = other.encrypt(b"whsec_", b"webhook:" + row.id.encode())
        deliver(house)
        (attempt,) = house.get(f"/webhooks/{made['id']}/deliveries").json()["items"]
        assert attempt["error"] == "secret_unreadable"
        assert there.got == []

    def test_deleted_while_it_is_sent(self, house: Service, there: Receiver) -> None:
        made = register(house, there.url)
        house.file()

        def post(*_: object, **__: object) -> Sent:
            assert house.call("DELETE", f"/webhooks/{made['id']}").status_code == 204
            return Sent(200, None, 1)

        assert deliver(house, post=post) == 1
        assert messages(house) == []


class TestMany:
    def test_several_senders_send_nothing_twice(self, house: Service) -> None:
        """Two senders at once, each request's messages in order."""
        from concurrent.futures import ThreadPoolExecutor

        got: list[tuple[str, str]] = []

        def post(_: str, __: object, body: bytes, **___: object) -> Sent:
            data = json.loads(body)["data"]
            got.append((data["request_id"], data["state"]))
            return Sent(200, None, 1)

        register(house, "http://127.0.0.1:9/")
        ids = [house.file(f"Subject {n}")["id"] for n in range(6)]
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda _: deliver(house, post=post), range(2)))
        deliver(house, post=post)
        assert len(got) == len(set(got)) == 24
        for request_id in ids:
            states = [state for found, state in got if found == request_id]
            assert states == ["received", "in_review", "approved", "queued"]

    def test_changing_a_webhook_while_it_is_written_for(self, house: Service) -> None:
        """Neither waits for the other for ever: ledger first, then rows, on both sides."""
        from concurrent.futures import ThreadPoolExecutor

        made = register(house, "http://127.0.0.1:9/")

        def change(n: int) -> int:
            if n % 2:
                return house.post(
                    f"/webhooks/{made['id']}/{'enable' if n % 4 == 1 else 'rotate'}"
                ).status_code
            house.file(f"Subject {n}")
            deliver(house, post=lambda *_, **__: Sent(410, "status", 1))
            return 200

        with ThreadPoolExecutor(4) as pool:
            assert set(pool.map(change, range(16))) == {200}

    def test_a_slow_receiver_leaves_room(self, house: Service) -> None:
        register(house, "http://127.0.0.1:9/slow")
        for n in range(5):
            house.file(f"Subject {n}")
        register(house, "http://127.0.0.1:9/quick")
        house.file("Subject 9")
        with house.sessions.begin() as session:
            taken = MessageRepository(session).take(9, timedelta(seconds=60))
        assert sorted(webhook.url[-5:] for _, webhook in taken) == ["/slow", "/slow", "quick"]


class TestLoop:
    def test_delivers_until_it_is_stopped(self, house: Service, there: Receiver) -> None:
        register(house, there.url)
        house.file()
        arrived = _until(lambda: len(there.got) == 4)
        loop = WebhookLoop(house.sessions, house.settings.model_copy(update={"webhook_poll_seconds": 0.01}))
        loop.start()
        assert arrived()
        loop.stop()

    def test_old_messages_are_forgotten(self, house: Service, there: Receiver) -> None:
        register(house, there.url)
        house.file()
        deliver(house)
        deliverer = Deliverer(house.sessions, house.settings)
        assert deliverer.forget() == 0
        with house.sessions.begin() as session:
            for table in ("webhook_messages", "webhook_attempts"):
                session.execute(text(f"UPDATE {table} SET created_at = created_at - interval '31 days'"))
        assert deliverer.forget() == 4
        assert messages(house) == []


def _until(true: Callable[[], bool]) -> Callable[[], bool]:
    """Return a function that waits, for at most 20 s, until something is true, and tells whether it is."""
    import time

    def wait() -> bool:
        deadline = time.monotonic() + 20
        while not true() and time.monotonic() < deadline:
            time.sleep(0.01)
        return true()

    return wait
