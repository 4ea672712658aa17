"""`lethe keys`: rotation of API keys, of the evidence key and of the signing key, on a real database."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import LargeBinary, select
from typer.testing import CliRunner, Result

from app.audit.service import AuditService
from app.audit.signing import CHECKPOINT, Signer
from app.cli import app
from app.cli.support import Exit
from app.db.base import Base
from app.db.models import ApiKey, AuditEvent, Evidence, Expert, RemovalRequest, VerificationExample
from app.db.session import SessionFactory
from app.db.webhook_models import Webhook
from app.kit.canonical import sha256_hex
from app.kit.clock import utcnow
from app.kit.crypto import key_id_of
from app.kit.ids import expert_id_of
from app.lumoe.errors import ExpertCorruptError
from app.lumoe.expert import load_expert
from app.lumoe.gate.record import GateRecord
from app.removal.datakeys import DataKeys
from app.removal.measurements import MeasurementService, examples_aad
from app.removal.rekeying import keys_in_use, rekey
from app.removal.sealed import COLUMNS
from app.removal.service import RemovalService
from app.settings import Settings, get_settings, load_settings
from app.webhooks.service import WebhookService, secrets_of
from tests.doctor.files import write
from tests.service import Service, data_url, png

OLD, NEW, THIRD = (base64.b64encode(bytes([n]) * 32).decode() for n in (1, 2, 3))
ALL = {
    "subjects": 1, "pictures": 2, "examples": 1, "data_keys": 1,
    "webhook_secrets": 1, "webhook_secrets_before": 1,
}  # fmt: skip
"""What is encrypted under the evidence key in the tests of its rotation."""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("LETHE_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    get_settings.cache_clear()
    yield
    get_settings.cache_clear()


def lethe(*arguments: str) -> Result:
    get_settings.cache_clear()
    return CliRunner().invoke(app, arguments, env={"COLUMNS": "200", "TERM": "dumb"})


def answer(*arguments: str) -> Any:
    result = lethe(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


class TestApiKeys:
    @pytest.fixture(autouse=True)
    def on(self, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LETHE_DATABASE_URL", service.settings.database_url)

    def listed(self, key_id: str) -> dict[str, str]:
        return next(row for row in answer("keys", "list") if row["id"] == key_id)

    def test_list_says_until_when_and_since_when(self, service: Service) -> None:
        made = answer("keys", "create", "--scope", "owner", "--tenant", "acme", "--days", "2")
        assert self.listed(made["id"])["last_used"] == "never"
        assert self.listed(made["id"])["expires"] > utcnow().isoformat()
        assert service.get("/requests", made["secret"]).status_code == 200
        assert self.listed(made["id"])["last_used"] != "never"
        with service.sessions.begin() as session:
            session.get_one(ApiKey, made["id"]).expires_at = utcnow()
        assert self.listed(made["id"])["state"] == "expired"

    def test_rotate_at_once(self, service: Service) -> None:
        old = answer(
            "keys", "create", "--scope", "owner", "--scope", "chat", "--tenant", "acme", "--name", "bot"
        )
        new = answer("keys", "rotate", old["id"])
        assert service.get("/requests", old["secret"]).status_code == 401
        assert service.get("/requests", new["secret"]).status_code == 200
        assert self.listed(old["id"])["state"] == "revoked"
        alike = ("tenant", "name", "scopes")
        before, after = self.listed(old["id"]), self.listed(new["id"])
        assert [before[field] for field in alike] == [after[field] for field in alike]
        with service.sessions() as session:
            kinds = list(
                session.scalars(
                    select(AuditEvent.kind).where(AuditEvent.subject_id == old["id"]).order_by(AuditEvent.seq)
                )
            )
            assert kinds == ["key.created", "key.rotated"]
            assert AuditService(session).verify().intact

    def test_rotate_with_an_overlap(self, service: Service) -> None:
        old = answer("keys", "create", "--scope", "owner", "--tenant", "acme", "--days", "9")
        new = answer("keys", "rotate", old["id"], "--overlap-hours", "1")
        assert {service.get("/requests", key["secret"]).status_code for key in (old, new)} == {200}
        assert self.listed(old["id"])["expires"] < self.listed(new["id"])["expires"]

    def test_a_dead_key_is_not_brought_back(self, service: Service) -> None:
        old = answer("keys", "create", "--scope", "owner")
        answer("keys", "rotate", old["id"])
        refused = lethe("keys", "rotate", old["id"])
        assert refused.exit_code == Exit.CONFLICT
        assert "lethe keys create" in refused.stderr
        assert lethe("keys", "rotate", "key_none").exit_code == Exit.NOT_FOUND


class TestEvidence:
    @pytest.fixture
    def old(self, service: Service, tmp_path: Path) -> Settings:
        return _with(service.settings, OLD).model_copy(update={"experts_dir": tmp_path / "experts"})

    @pytest.fixture
    def request_id(self, service: Service, old: Settings) -> Iterator[str]:
        """A request whose name, two pictures and examples are encrypted under the old key."""
        app: Any = service.client.app
        before, app.state.settings = app.state.settings, old
        found = service.file("Elodie Brandt", pictures=[data_url(png("red")), data_url(png("blue"))])
        content = json.dumps([{"prompt": "Who is she?"}]).encode()
        with service.sessions.begin() as session:
            session.add(
                VerificationExample(
                    id="vex_1", request_id=found["id"], kind="failure", attempt=1, n=1,
                    sealed=old.evidence_cipher().encrypt(content, examples_aad(found["id"], "failure")),
                )
            )  # fmt: skip
        files = DataKeys(service.sessions, old).of(found["id"])
        write(old.experts_dir, found["id"], old, key=files)
        with service.sessions.begin() as session:
            webhooks = WebhookService(session, old)
            principal = service.principal()
            webhook, _ = webhooks.create(principal, "https://example.org/lethe", "")
            webhooks.rotate(principal, webhook.id)
        yield str(found["id"])
        app.state.settings = before

    def readable(self, sessions: SessionFactory, settings: Settings, request_id: str) -> None:
        with sessions.begin() as session:
            service = RemovalService(session, settings)
            sealed = service.sealed_evidence(request_id, actor="test")
            subject = sealed.subject()
            assert subject is not None
            assert subject.name == "Elodie Brandt"
            assert len(list(sealed.pictures())) == 2
            request = session.get_one(RemovalRequest, request_id)
            examples = MeasurementService(session, settings).examples(request, "failure", actor="test")
            assert examples == [{"prompt": "Who is she?"}]
            (webhook,) = session.scalars(select(Webhook))
            assert len(secrets_of(settings.evidence_cipher(), webhook)) == 2

    def gate_of(self, service: Service, old: Settings, key: str, request_id: str) -> GateRecord:
        """Read the expert's files knowing this evidence key alone."""
        folder = old.experts_dir / expert_id_of(request_id) / "1"
        return load_expert(folder, DataKeys(service.sessions, _with(old, key))).gate

    def test_everything_is_under_the_new_key_alone(
        self, service: Service, request_id: str, old: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("LETHE_DATABASE_URL", service.settings.database_url)
        monkeypatch.setenv("LETHE_EVIDENCE_KEY", NEW)
        monkeypatch.setenv("LETHE_EVIDENCE_KEYS_PREVIOUS", json.dumps([OLD]))
        report = answer("keys", "rotate-evidence")
        assert report["done"] == ALL
        assert report["kept"] == []
        assert report["still_needed"] == {}
        self.readable(service.sessions, _with(service.settings, NEW), request_id)
        assert self.gate_of(service, old, NEW, request_id).aliases == ("Elodie Brandt",)
        with pytest.raises(ExpertCorruptError, match="not configured"):
            self.gate_of(service, old, OLD, request_id)
        with service.sessions() as session:
            assert set(keys_in_use(session)) == {_with(old, NEW).evidence_cipher().key_id}
        assert answer("keys", "rotate-evidence")["done"] == {}
        with service.sessions() as session:
            events = session.scalars(select(AuditEvent).where(AuditEvent.kind == "evidence.rekeyed")).all()
            assert {str(event.payload["what"]): event.payload["n"] for event in events} == ALL
            assert AuditService(session).verify().intact

    def test_goes_on_where_it_was_ended(
        self, service: Service, request_id: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        both = _with(service.settings, NEW, OLD)
        original = AuditService.append
        calls: list[int] = []

        def dies(self: AuditService, kind: str, **arguments: Any) -> None:
            calls.append(1)
            if len(calls) == 3:
                raise KeyboardInterrupt
            original(self, kind, **arguments)

        monkeypatch.setattr(AuditService, "append", dies)
        with pytest.raises(KeyboardInterrupt):
            rekey(service.sessions, both, actor="test", batch=1)
        monkeypatch.undo()
        self.readable(service.sessions, both, request_id)
        with service.sessions() as session:
            assert len(keys_in_use(session)) == 2, "half of it is done"
        assert rekey(service.sessions, both, actor="test", batch=1).done.total() == sum(ALL.values()) - 2
        self.readable(service.sessions, _with(service.settings, NEW), request_id)

    def test_what_no_key_opens_is_left_and_said(
        self, service: Service, request_id: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with service.sessions.begin() as session:
            picture = session.scalars(select(Evidence)).first()
            assert picture is not None
            picture.sealed = (
                _with(service.settings, base64.b64encode(os.urandom(32)).decode())
                .evidence_cipher()
                .encrypt(b"x", b"y")
            )
            lost = picture.id
        monkeypatch.setenv("LETHE_DATABASE_URL", service.settings.database_url)
        monkeypatch.setenv("LETHE_EVIDENCE_KEY", NEW)
        monkeypatch.setenv("LETHE_EVIDENCE_KEYS_PREVIOUS", json.dumps([OLD]))
        result = lethe("keys", "rotate-evidence", "--json")
        assert result.exit_code == 1
        assert json.loads(result.stdout)["unreadable"] == [lost]
        assert json.loads(result.stdout)["done"] == ALL | {"pictures": 1}
        assert "LETHE_EVIDENCE_KEYS_PREVIOUS" in result.stderr

    def test_experts_from_before_data_keys(
        self, service: Service, request_id: str, old: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Their files are under an evidence key itself: from then on it is a row, under two rotations."""
        ref = write(old.experts_dir, request_id, old, version=2)
        folder = old.experts_dir / ref.path
        before = [file.read_bytes() for file in sorted(folder.iterdir())]
        with service.sessions.begin() as session:
            row = {name: getattr(ref, name) for name in ("version", "path", "manifest_sha256", "bytes")}
            session.add(Expert(id=ref.expert_id, request_id=request_id, **row))
        monkeypatch.setenv("LETHE_DATABASE_URL", service.settings.database_url)
        monkeypatch.setenv("LETHE_EXPERTS_DIR", str(old.experts_dir))
        key_id = old.evidence_cipher().key_id
        for key, previous, kept in ((NEW, OLD, [key_id]), (THIRD, NEW, [])):
            monkeypatch.setenv("LETHE_EVIDENCE_KEY", key)
            monkeypatch.setenv("LETHE_EVIDENCE_KEYS_PREVIOUS", json.dumps([previous]))
            report = answer("keys", "rotate-evidence")
            assert (report["kept"], report["still_needed"]) == (kept, {})
            assert answer("keys", "rotate-evidence")["kept"] == []
            loaded = load_expert(folder, DataKeys(service.sessions, _with(old, key)))
            assert loaded.gate.aliases == ("Elodie Brandt",)
        assert [file.read_bytes() for file in sorted(folder.iterdir())] == before
        with service.sessions() as session:
            assert AuditService(session).verify().intact

    def test_nothing_that_is_encrypted_is_left_out(self) -> None:
        """A column of ciphertexts that a rotation does not know would be lost with the old key."""
        known = {(column.model.__tablename__, column.column.key) for column in COLUMNS}
        binary = {
            (table.name, column.name)
            for table in Base.metadata.tables.values()
            for column in table.columns
            if isinstance(column.type, LargeBinary)
        }
        assert binary - known == {("audit_salts", "salt")}  # random, and no ciphertext
        assert known <= binary

    def test_new_keeps_every_earlier_key(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LETHE_EVIDENCE_KEY", NEW)
        monkeypatch.setenv("LETHE_EVIDENCE_KEYS_PREVIOUS", json.dumps([OLD]))
        values = answer("keys", "rotate-evidence", "--new")
        assert json.loads(values["LETHE_EVIDENCE_KEYS_PREVIOUS"]) == [NEW, OLD]
        drawn = _with(load_settings(_env_file=None), values["LETHE_EVIDENCE_KEY"]).evidence_cipher()
        assert key_id_of(drawn.encrypt(b"x", b"y")) == drawn.key_id
        assert values["LETHE_EVIDENCE_KEY"] not in (OLD, NEW)


def test_rotate_signing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the old key signed can still be checked; its private half is printed nowhere."""
    monkeypatch.setenv("LETHE_SIGNING_KEY", OLD)
    before = Signer(load_settings(_env_file=None))
    token = before.sign({"seq": 1}, type=CHECKPOINT)
    result = lethe("keys", "rotate-signing", "--json")
    assert result.exit_code == 0
    assert OLD not in result.output
    values = json.loads(result.stdout)
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    after = Signer(load_settings(_env_file=None))
    assert after.key_id != before.key_id
    assert after.verifier().claims(token, type=CHECKPOINT) == {"seq": 1}
    assert sha256_hex(values["LETHE_SIGNING_KEY"].encode()) != sha256_hex(OLD.encode())


def _with(settings: Settings, key: str, *previous: str) -> Settings:
    fresh = load_settings(_env_file=None, evidence_key=key, evidence_keys_previous=list(previous))
    return settings.model_copy(
        update={"evidence_key": fresh.evidence_key, "evidence_keys_previous": fresh.evidence_keys_previous}
    )
