"""A request's files are under a key of its own, and that one under the evidence key."""

from __future__ import annotations

import base64
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from app.db.models import DataKey
from app.kit.crypto import DecryptionError, key_id_of
from app.removal.datakeys import DataKeys
from app.settings import Settings, load_settings
from tests.service import Service


@pytest.fixture
def keys(service: Service) -> DataKeys:
    return DataKeys(service.sessions, service.settings)


def under(settings: Settings, key: bytes) -> Settings:
    fresh = load_settings(_env_file=None, evidence_key=base64.b64encode(key).decode())
    return settings.model_copy(update={"evidence_key": fresh.evidence_key})


class TestEncrypt:
    def test_one_key_for_all_files_of_a_request(self, service: Service, keys: DataKeys) -> None:
        request_id, other = service.file()["id"], service.file("Fern Adair")["id"]
        first, second = keys.of(request_id), DataKeys(service.sessions, service.settings).of(request_id)
        sealed = [first.encrypt(b"a", b"1"), second.encrypt(b"b", b"2"), keys.of(other).encrypt(b"c", b"3")]
        names = [key_id_of(one) for one in sealed]
        assert names[0] == names[1] != names[2]
        assert service.settings.evidence_cipher().key_id not in names
        opened = [keys.decrypt(one, aad) for one, aad in zip(sealed, (b"1", b"2", b"3"), strict=True)]
        assert opened == [b"a", b"b", b"c"]
        with service.sessions() as session:
            found = {row.id: row for row in session.scalars(select(DataKey))}
            assert set(found) == set(names)
            assert found[names[0]].request_id == request_id

    def test_many_processes_at_once_agree(self, service: Service) -> None:
        request_id = service.file()["id"]

        def encrypt(_: int) -> bytes:
            return DataKeys(service.sessions, service.settings).of(request_id).encrypt(b"x", b"y")

        with ThreadPoolExecutor(8) as pool:
            assert len({key_id_of(sealed) for sealed in pool.map(encrypt, range(16))}) == 1

    def test_no_request(self, keys: DataKeys) -> None:
        with pytest.raises(IntegrityError):
            keys.of("req_" + "0" * 32).encrypt(b"x", b"y")


class TestDecrypt:
    def test_changed_or_of_another_place(self, service: Service, keys: DataKeys) -> None:
        sealed = keys.of(service.file()["id"]).encrypt(b"x", b"y")
        for text, aad in ((sealed[:-1] + bytes([sealed[-1] ^ 1]), b"y"), (sealed, b"z"), (b"LE1", b"y")):
            with pytest.raises(DecryptionError):
                keys.decrypt(text, aad)

    def test_from_before_data_keys(self, service: Service, keys: DataKeys) -> None:
        assert keys.decrypt(service.settings.evidence_cipher().encrypt(b"x", b"y"), b"y") == b"x"

    def test_evidence_key_is_another(self, service: Service, keys: DataKeys) -> None:
        request_id = service.file()["id"]
        sealed = keys.of(request_id).encrypt(b"x", b"y")
        other = DataKeys(service.sessions, under(service.settings, b"o" * 32))
        with pytest.raises(DecryptionError, match="LETHE_EVIDENCE_KEYS_PREVIOUS"):
            other.decrypt(sealed, b"y")
        with pytest.raises(DecryptionError, match="LETHE_EVIDENCE_KEYS_PREVIOUS"):
            other.of(request_id).encrypt(b"x", b"y")

    def test_a_row_of_another_key(self, service: Service, keys: DataKeys) -> None:
        """Whoever exchanges two rows' ciphertexts is found out."""
        first, second = service.file()["id"], service.file("Fern Adair")["id"]
        sealed = keys.of(first).encrypt(b"x", b"y")
        keys.of(second).encrypt(b"x", b"y")
        with service.sessions.begin() as session:
            one, two = session.scalars(select(DataKey))
            one.sealed, two.sealed = two.sealed, one.sealed
        with pytest.raises(DecryptionError, match="belongs to other data"):
            keys.decrypt(sealed, b"y")
