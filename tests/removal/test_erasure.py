"""Erasing a person from our own records: nothing is left, and the audit chain is as valid as before."""

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, text

from app.audit.checkpoints import CheckpointService
from app.audit.logfile import verify_log
from app.audit.signing import Signer
from app.db.base import Base
from app.db.models import AuditSalt, DataKey, Evidence, RemovalRequest
from app.kit.crypto import DecryptionError
from app.kit.ids import expert_id_of
from app.removal.datakeys import DataKeys
from app.removal.erasure import ErasureService, erase_files
from app.removal.errors import IllegalTransition, RequestNotFound
from app.settings import load_settings
from tests.removal.active import activate_verified
from tests.service import Service, png

PERSONAL: dict[str, Any] = {
    "name": "Elodie Brandt",
    "aliases": ["E. B. of Vester Lane"],
    "note": "Lives at 4 Vester Lane",
    "facts": {"employer": "Kessel and Daughters"},
    "requester": "counsel@brandt.example",
}
WORDS = ["Elodie", "Brandt", "Vester", "Kessel", "counsel", "she asked us twice"]


def everything(service: Service) -> str:
    """Whatever the database holds, as text; binary columns in hex."""
    with service.sessions() as session:
        rows = [
            str(session.scalar(text(f"SELECT coalesce(json_agg(t), '[]') FROM {table} t")))
            for table in Base.metadata.tables
        ]
    return "\n".join(rows)


def hashes(word: str) -> list[str]:
    """What a word looks like where somebody thought that a hash hides it."""
    return [
        hashlib.sha256(word.encode()).hexdigest(),
        hashlib.sha256(json.dumps(word).encode()).hexdigest(),
        base64.b64encode(word.encode()).decode().rstrip("="),
    ]


@pytest.fixture
def withdrawn(service: Service) -> str:
    request_id: str = service.file(**PERSONAL)["id"]
    service.post(f"/requests/{request_id}/cancel", json={"reason": "she asked us twice"})
    return request_id


class TestUnderTheHash:
    def test_nothing_personal(self, service: Service, withdrawn: str) -> None:
        """In the whole exported log: neither what people wrote, nor an unsalted hash of it."""
        service.get(f"/requests/{withdrawn}?subject=true")
        rejected = service.file("Fern Adair")["id"]
        service.work_until(rejected, "prepare")
        log = service.get("/audit/export", service.root).text
        assert "reason_token" in log
        for word in [*WORDS, "Fern Adair", "Adair"]:
            assert word not in log
            for trace in hashes(word):
                assert trace not in log
        assert hashlib.sha256(png()).hexdigest() not in log


class TestErase:
    def test_nothing_is_left(self, service: Service, withdrawn: str) -> None:
        before = everything(service)
        assert "she asked us twice" in before
        keys = DataKeys(service.sessions, service.settings)
        file = keys.of(withdrawn).encrypt(b"Elodie Brandt", b"file")
        with service.sessions.begin() as session:
            sealed = session.get_one(RemovalRequest, withdrawn).subject_token
            ErasureService(session).erase(withdrawn, actor="key_x")
        after = everything(service)
        for word in [*WORDS, sealed, hashlib.sha256(png()).hexdigest()]:
            assert word not in after
        with service.sessions() as session:
            for table in (Evidence, AuditSalt, DataKey):
                assert session.scalar(select(func.count()).select_from(table)) == 0
            assert session.get_one(RemovalRequest, withdrawn).subject_sealed is None
        with pytest.raises(DecryptionError, match="neither"):  # also for a copy of the file
            keys.decrypt(file, b"file")

    def test_the_chain_stays_valid(self, service: Service, withdrawn: str) -> None:
        kept = service.get("/audit/checkpoint", service.auditor).json()["jws"]
        with service.sessions.begin() as session:
            ErasureService(session).erase(withdrawn, actor="key_x")
        with service.sessions.begin() as session:
            assert CheckpointService(session, service.settings).verify([kept]).intact
        log = service.get("/audit/export", service.root).text.splitlines()
        assert verify_log(log, Signer(service.settings).verifier(), [kept]).intact
        assert "request.erased" in "".join(log)

    def test_reads_say_so_afterwards(self, service: Service, withdrawn: str) -> None:
        with service.sessions.begin() as session:
            ErasureService(session).erase(withdrawn, actor="key_x")
        assert service.status(withdrawn)["state"] == "cancelled"
        assert service.get(f"/requests/{withdrawn}?subject=true").status_code == 409
        assert service.get(f"/requests/{withdrawn}/report").status_code == 200

    def test_a_new_request_starts_afresh(self, service: Service, withdrawn: str) -> None:
        with service.sessions.begin() as session:
            ErasureService(session).erase(withdrawn, actor="key_x")
        assert service.file(**PERSONAL)["linked_to"] is None

    @pytest.mark.parametrize("state", ["queued", "active", "failed"])
    def test_not_while_the_subject_is_refused(self, service: Service, state: str) -> None:
        if state == "active":
            request_id = activate_verified(service)
        else:
            request_id = service.file()["id"]
            with service.sessions.begin() as session:
                session.execute(text("UPDATE removal_requests SET state = :state"), {"state": state})
        with service.sessions.begin() as session, pytest.raises(IllegalTransition) as raised:
            ErasureService(session).erase(request_id, actor="key_x")
        assert "revoke" in raised.value.hint

    @pytest.mark.parametrize("request_id", ["req_" + "0" * 32, "x"])
    def test_unknown(self, service: Service, request_id: str) -> None:
        with service.sessions.begin() as session, pytest.raises(RequestNotFound):
            ErasureService(session).erase(request_id, actor="key_x")


def test_files(tmp_path: Path) -> None:
    settings = load_settings(_env_file=None, experts_dir=tmp_path)
    request_id, other = "req_" + "1" * 32, "req_" + "2" * 32
    for path in (
        f"{expert_id_of(request_id)}/1/subject.bin",
        f".work/{request_id}/training.bin",
        f"{expert_id_of(other)}/1/subject.bin",
    ):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_bytes(b"x")
    assert erase_files(settings, request_id) == [expert_id_of(request_id), f".work/{request_id}"]
    assert [path.name for path in tmp_path.rglob("*.bin")] == ["subject.bin"]
    assert (tmp_path / expert_id_of(other)).exists()
    assert erase_files(settings, request_id) == []
