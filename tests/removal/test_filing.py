"""POST /unlearn-requests: what is accepted, what is refused and how."""

import io
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import pytest
from PIL import Image
from sqlalchemy import event, func, select

from app.db.models import (
    AuditEvent,
    Evidence,
    IdempotencyKey,
    OutboxMessage,
    RemovalRequest,
    RequestEvent,
)
from app.removal.filing import FilingService
from app.removal.records import CLASSES
from app.removal.schemas import Submission
from app.removal.states import Event
from tests.service import Service, assert_problem, data_url, png

pytestmark = pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")


def _count(service: Service, model: type) -> int:
    with service.sessions() as session:
        return session.scalar(select(func.count()).select_from(model)) or 0


def _animated() -> bytes:
    sink = io.BytesIO()
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(sink, "GIF", save_all=True, append_images=frames[1:])
    return sink.getvalue()


def _huge() -> bytes:
    sink = io.BytesIO()
    Image.new("1", (10_000, 10_000)).save(sink, "PNG")
    return sink.getvalue()


class TestAccepted:
    def test_json(self, service: Service) -> None:
        response = service.post(
            "/unlearn-requests",
            json={"name": "Elodie Brandt", "class": "personage", "pictures": [data_url(png())]},
        )
        assert response.status_code == 202
        body = response.json()
        assert response.headers["location"] == f"/requests/{body['id']}/status"
        assert body["state"] == "queued"
        assert body["linked_to"] is None
        status = service.get(response.headers["location"])
        assert status.status_code == 200
        states = [t["state"] for t in status.json()["transitions"]]
        assert states == ["received", "in_review", "approved", "queued"]

    def test_multipart(self, service: Service) -> None:
        response = service.post(
            "/unlearn-requests",
            data={
                "name": "Elodie Brandt",
                "aliases": ["E. B.", "Ellie"],
                "class": "Personage",
                "facts": "{}",
            },
            files=[("pictures", ("a.png", png())), ("pictures", ("b.jpg", png("blue", format="JPEG")))],
        )
        assert response.status_code == 202, response.text
        assert _count(service, Evidence) == 2
        with service.removal() as removal:
            subject = removal.subject(response.json()["id"])
            assert subject.name == "Elodie Brandt"
            assert subject.aliases == ("E. B.", "Ellie")
            assert [p.size for p in removal.pictures(response.json()["id"])] == [(32, 24), (32, 24)]

    def test_form_without_files(self, service: Service) -> None:
        response = service.post("/unlearn-requests", data={"name": "Elodie Brandt", "class": "Personage"})
        assert response.status_code == 202

    def test_picture_without_name(self, service: Service) -> None:
        body = service.file(None)
        with service.removal() as removal:
            assert removal.subject(body["id"]).name is None

    def test_name_without_picture(self, service: Service) -> None:
        assert service.file(pictures=[])["state"] == "queued"

    @pytest.mark.parametrize("klass", [*CLASSES, "TV SERIES", " personage "])
    def test_classes_in_any_case(self, service: Service, klass: str) -> None:
        body = service.file(**{"class": klass})
        found = service.get(f"/requests/{body['id']}").json()["class"]
        assert found in CLASSES
        assert found.casefold() == klass.strip().casefold()

    def test_names_in_any_script(self, service: Service) -> None:
        for name in ("Ελένη", "山田 太郎", "نور", "4"):
            assert service.file(name)["state"] == "queued"

    def test_everything_is_on_the_record_in_order(self, service: Service) -> None:
        request_id = service.file()["id"]
        with service.sessions() as session:
            events = session.scalars(
                select(RequestEvent).where(RequestEvent.request_id == request_id).order_by(RequestEvent.seq)
            ).all()
            audited = session.scalars(
                select(AuditEvent).where(AuditEvent.subject_id == request_id).order_by(AuditEvent.seq)
            ).all()
            request = session.get_one(RemovalRequest, request_id)
        assert [(e.event, e.from_state, e.to_state) for e in events] == [
            ("receive", None, "received"),
            ("submit", "received", "in_review"),
            ("approve", "in_review", "approved"),
            ("enqueue", "approved", "queued"),
        ]
        assert events[0].data == {"pictures": 1, "linked_to": None}
        assert [e.actor for e in events] == [request.created_by] * 2 + ["policy:auto"] * 2
        assert [e.kind for e in audited] == [
            "request.receive",
            "request.submit",
            "request.approve",
            "request.enqueue",
            "registry.protect",
            "protection.start",
        ]
        assert "data_token" in audited[0].payload
        assert request.queued_at is not None
        assert request.policy is not None
        assert request.policy["review"] == "auto"

    def test_the_ledger_is_locked_for_little(self, service: Service) -> None:
        """Everybody else who files waits for that, and each statement for the interpreter."""
        said: list[str] = []

        def note(_: object, __: object, statement: str, *___: object) -> None:
            said.append(statement)

        with service.sessions.begin() as session:
            event.listen(session.get_bind(), "before_cursor_execute", note)
            submission = Submission.model_validate({"name": "Mira Tovel", "class": "Personage"})
            FilingService(session, service.settings).file(service.principal(), submission, [png()])
        event.remove(session.get_bind(), "before_cursor_execute", note)
        (locked,) = [i for i, statement in enumerate(said) if "pg_advisory_xact_lock(%(pg" in statement]
        assert len(said[locked + 1 :]) <= 5, "number, generation, protection, end of the chain, events"

    def test_manual_review_waits(self, manual: Service) -> None:
        body = manual.file()
        assert body["state"] == "in_review"
        status = manual.status(body["id"])
        assert status["waiting"]
        assert "approve" in status["hint"]
        assert _count(manual, OutboxMessage) == 0

    def test_nothing_readable_is_stored(self, service: Service) -> None:
        body = service.file("Elodie Brandt", note="secret remark")
        with service.sessions() as session:
            row = session.get_one(RemovalRequest, body["id"])
            assert row.subject_sealed is not None
            for value in vars(row).values():
                assert b"Elodie" not in (value if isinstance(value, bytes) else str(value).encode())
            evidence = session.scalars(select(Evidence)).one()
            assert evidence.sealed is not None
            assert b"PNG" not in evidence.sealed


REFUSED: list[tuple[str, dict[str, Any], int, str]] = [
    ("no name and no picture", {"name": None, "pictures": []}, 422, "no-name-and-no-picture"),
    ("blank name and no picture", {"name": "  ", "pictures": []}, 422, "no-name-and-no-picture"),
    ("unknown class", {"class": "Spaceships"}, 422, "unknown-class"),
    ("no class", {"class": None}, 422, "invalid-input"),
    ("only emoji", {"name": "🦊🎉"}, 422, "invalid-text"),
    ("alias of emoji", {"aliases": ["🦊"]}, 422, "invalid-text"),
    ("NUL in the name", {"name": "Elo\0die"}, 422, "invalid-text"),
    ("NUL in the note", {"note": "a\0b"}, 422, "invalid-text"),
    ("NUL in a fact", {"facts": {"born": "x\0"}}, 422, "invalid-text"),
    ("lone surrogate", {"name": "a\ud800"}, 422, "invalid-text"),
    ("1 MB name", {"name": "a" * 1_000_000}, 422, "text-too-long"),
    ("1 MB note", {"note": "word " * 200_000}, 422, "text-too-long"),
    ("texts too long together", {"note": "a" * 19_990, "name": "b" * 100}, 422, "text-too-long"),
    ("unknown field", {"nmae": "x"}, 422, "invalid-input"),
    ("wrong type", {"aliases": "x"}, 422, "invalid-input"),
    ("unknown legal ground", {"legal_ground": "because"}, 422, "invalid-input"),
    ("empty picture", {"pictures": ["data:image/png;base64,"]}, 422, "picture-invalid"),
    ("truncated picture", {"pictures": [data_url(png(size=(300, 300))[:-200])]}, 422, "picture-invalid"),
    ("no picture at all", {"pictures": [data_url(b"MZ" + b"\0" * 100)]}, 422, "picture-invalid"),
    ("text as a picture", {"pictures": [data_url(b"<svg xmlns='x'/>")]}, 422, "picture-invalid"),
    ("100 megapixels", {"pictures": [data_url(_huge())]}, 422, "picture-too-many-pixels"),
    ("animated", {"pictures": [data_url(_animated())]}, 422, "picture-invalid"),
    ("an address", {"pictures": ["https://example.org/a.png"]}, 422, "picture-invalid"),
    ("broken base64", {"pictures": ["data:image/png;base64,@@@"]}, 422, "picture-invalid"),
    ("too many pictures", {"pictures": [data_url(png())] * 17}, 422, "too-many-pictures"),
]


class TestRefused:
    @pytest.mark.parametrize(
        ("change", "status", "type"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED]
    )
    def test_bad_input(self, shared: Service, change: dict[str, Any], status: int, type: str) -> None:
        body = {"name": "Elodie Brandt", "class": "Personage", "pictures": [data_url(png())]} | change
        body = {k: v for k, v in body.items() if v is not None}
        response = shared.post(
            "/unlearn-requests",
            content=json.dumps(body),
            headers={"Content-Type": "application/json"},
        )
        problem = assert_problem(response, status, type)
        assert "Elodie" not in response.text
        assert len(problem["hint"]) > 10
        assert _count(shared, RemovalRequest) == 0

    def test_unknown_class_lists_the_valid_ones(self, shared: Service) -> None:
        response = shared.post("/unlearn-requests", json={"name": "X", "class": "Spaceships"})
        problem = response.json()
        assert problem["classes"] == list(CLASSES)
        assert all(klass in problem["hint"] for klass in CLASSES)

    def test_picture_too_large(self, shared: Service) -> None:
        noise = Image.effect_noise((4096, 4096), 100)
        sink = io.BytesIO()
        noise.save(sink, "BMP")
        response = shared.post(
            "/unlearn-requests",
            data={"class": "Personage"},
            files=[("pictures", ("a.png", png())), ("pictures", ("b.bmp", sink.getvalue()))],
        )
        assert assert_problem(response, 413, "picture-too-large")["picture"] == 2

    def test_zero_byte_file(self, shared: Service) -> None:
        response = shared.post(
            "/unlearn-requests",
            data={"name": "X", "class": "Personage"},
            files=[("pictures", ("a.png", b""))],
        )
        assert_problem(response, 422, "picture-invalid")

    def test_file_in_another_field(self, shared: Service) -> None:
        response = shared.post(
            "/unlearn-requests", data={"name": "X", "class": "Personage"}, files=[("note", ("a.png", png()))]
        )
        assert_problem(response, 422, "invalid-input")

    @pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b"\xff\xfe\x00", b"[" * 100_000])
    def test_not_json(self, shared: Service, body: bytes) -> None:
        response = shared.post(
            "/unlearn-requests", content=body, headers={"Content-Type": "application/json"}
        )
        assert_problem(response, 400, "malformed-body")

    def test_broken_multipart(self, shared: Service) -> None:
        response = shared.post(
            "/unlearn-requests",
            content=b"nonsense",
            headers={"Content-Type": "multipart/form-data; boundary=x"},
        )
        assert response.status_code in (400, 422)
        assert response.headers["content-type"] == "application/problem+json"

    def test_other_content_type(self, shared: Service) -> None:
        response = shared.post("/unlearn-requests", content=b"x", headers={"Content-Type": "text/plain"})
        assert_problem(response, 415, "unsupported-media-type")

    def test_wrong_method(self, shared: Service) -> None:
        response = shared.get("/unlearn-requests")
        assert_problem(response, 405, "method-not-allowed")
        assert response.headers["allow"] == "POST"


class TestSameSubject:
    def test_is_linked_and_not_trained_twice(self, service: Service) -> None:
        first = service.file("Élodie  BRANDT")
        second = service.file("elodie brandt", pictures=[])
        assert second["linked_to"] == first["id"]
        assert second["state"] == "queued"
        assert second["links"]["linked_to"] == f"/requests/{first['id']}"
        assert _count(service, OutboxMessage) == 1

    def test_follows_the_first_ones_state(self, service: Service) -> None:
        first, second = service.file(), service.file()
        service.activate(first["id"])
        status = service.status(second["id"])
        assert status["state"] == "active"
        assert status["percent"] == 100
        third = service.file()
        assert third["state"] == "active"

    def test_another_class_is_another_subject(self, service: Service) -> None:
        service.file("Mercury", **{"class": "Astronomy"})
        assert service.file("Mercury", **{"class": "Corporation"})["linked_to"] is None

    def test_another_tenants_is_not_linked(self, service: Service) -> None:
        service.file()
        assert service.file(key=service.stranger)["linked_to"] is None

    def test_an_ended_one_is_not_linked_to(self, service: Service) -> None:
        first = service.file()
        assert service.post(f"/requests/{first['id']}/cancel").json()["state"] == "cancelled"
        assert service.file()["linked_to"] is None

    def test_the_same_pictures_without_a_name(self, service: Service) -> None:
        first = service.file(None)
        assert service.file(None)["linked_to"] == first["id"]
        assert service.file(None, pictures=[data_url(png("blue"))])["linked_to"] is None

    def test_pictures_help_the_first_one(self, service: Service) -> None:
        first = service.file(pictures=[])
        lease = service.work_until(first["id"], "calibrate")
        with service.removal() as removal:
            removal.transition(first["id"], Event.NEED_EVIDENCE, actor="worker:test", token=lease.token)
        lease.release()
        second = service.file()
        assert second["state"] == "queued"
        assert service.status(first["id"])["state"] == "queued"
        with service.removal() as removal:
            assert len(removal.pictures(first["id"])) == 1

    def test_in_parallel(self, service: Service) -> None:
        with ThreadPoolExecutor(6) as pool:
            bodies = list(pool.map(lambda _: service.file(), range(6)))
        assert sum(body["linked_to"] is None for body in bodies) == 1
        assert _count(service, OutboxMessage) == 1


class TestIdempotency:
    BODY: ClassVar = {"name": "Elodie Brandt", "class": "Personage"}

    def test_same_key_and_body_same_answer(self, service: Service) -> None:
        headers = {"Idempotency-Key": "abc"}
        first = service.post("/unlearn-requests", json=self.BODY, headers=headers)
        second = service.post("/unlearn-requests", data=self.BODY, headers=headers)  # the content counts
        assert (second.status_code, second.json()) == (202, first.json())
        assert second.headers["location"] == first.headers["location"]
        assert _count(service, RemovalRequest) == 1

    def test_other_body(self, service: Service) -> None:
        headers = {"Idempotency-Key": "abc"}
        service.post("/unlearn-requests", json=self.BODY, headers=headers)
        response = service.post("/unlearn-requests", json=self.BODY | {"note": "x"}, headers=headers)
        assert_problem(response, 422, "idempotency-key-reused")

    def test_other_clients_key(self, service: Service) -> None:
        headers = {"Idempotency-Key": "abc"}
        first = service.post("/unlearn-requests", json=self.BODY, headers=headers)
        second = service.post("/unlearn-requests", service.stranger, json=self.BODY, headers=headers)
        assert first.json()["id"] != second.json()["id"]

    def test_refused_request_does_not_use_the_key_up(self, service: Service) -> None:
        headers = {"Idempotency-Key": "abc"}
        bad = service.post("/unlearn-requests", json=self.BODY | {"class": "?"}, headers=headers)
        assert bad.status_code == 422
        assert service.post("/unlearn-requests", json=self.BODY, headers=headers).status_code == 202

    @pytest.mark.parametrize("key", ["", "a" * 256, "a\tb"])
    def test_invalid_key(self, service: Service, key: str) -> None:
        response = service.post("/unlearn-requests", json=self.BODY, headers={"Idempotency-Key": key})
        assert_problem(response, 422, "invalid-input")

    def test_in_parallel(self, service: Service) -> None:
        def post(_: int) -> Any:
            return service.post("/unlearn-requests", json=self.BODY, headers={"Idempotency-Key": "abc"})

        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(post, range(16)))
        assert {answer.status_code for answer in answers} <= {202, 409}
        accepted = {answer.json()["id"] for answer in answers if answer.status_code == 202}
        assert len(accepted) == 1
        for answer in answers:
            if answer.status_code == 409:
                assert_problem(answer, 409, "idempotency-in-flight")
        assert _count(service, RemovalRequest) == 1
        assert _count(service, IdempotencyKey) == 1
