"""Certificates: what they say, who signed them, and when there is none."""

import base64
import hashlib
import json
import os
from typing import Any

import pytest
from joserfc import jws
from joserfc.jwk import KeySet
from sqlalchemy import delete, select

from app.audit.signing import CERTIFICATE, SignatureProblem, Signer, Verifier, read_public_keys
from app.db.models import AuditEvent, GenerationExpert
from app.kit.canonical import json_sha256
from app.registry.service import RegistryService
from app.removal.certificates import CertificateService
from app.settings import Settings, load_settings
from tests.removal.active import activate_verified
from tests.service import Service, assert_problem, data_url, png


def claims_of(service: Service, token: str) -> dict[str, Any]:
    keys = KeySet.import_key_set(service.client.get("/.well-known/jwks.json").json())
    checked = jws.deserialize_compact(token, keys, algorithms=["Ed25519"])
    found: dict[str, Any] = json.loads(checked.payload or b"")
    return found


@pytest.fixture
def active(service: Service) -> str:
    return activate_verified(service)


class TestContent:
    def test_says_what_is_claimed_and_what_is_not(self, service: Service, active: str) -> None:
        response = service.get(f"/requests/{active}/certificate")
        assert response.headers["content-type"] == "application/jose"
        claims = claims_of(service, response.text)
        assert claims["claimed"].startswith("Suppressed at this endpoint")
        assert claims["not_claimed"][0].startswith("Not erased from the weights")
        assert claims["sub"] == claims["request"]["id"] == active
        assert claims["expert"] == {
            "id": "exp_a", "version": 1, "manifest_sha256": "a" * 64, "generation": 2,
        }  # fmt: skip
        assert claims["base_model"]["fingerprint"] == "f" * 64
        assert claims["measured"][0] | {"details": None} == {
            "metric": "forget_quality", "value": 1, "n": 40, "interval_95": [0.912, 1], "threshold": 0.98,
            "passed": True, "reason": None, "details": None,
        }  # fmt: skip
        assert claims["passed"] is True
        digest = claims.pop("digest")
        assert digest == json_sha256(claims)

    def test_names_the_event_by_which_it_became_active(self, service: Service, active: str) -> None:
        claims = claims_of(service, service.get(f"/requests/{active}/certificate").text)
        with service.sessions() as session:
            event = session.scalars(select(AuditEvent).where(AuditEvent.seq == claims["audit"]["seq"])).one()
        assert (event.subject_id, event.kind, event.hash) == (
            active, "request.activate", claims["audit"]["hash"],
        )  # fmt: skip
        assert claims["iat"] == int(event.created_at.timestamp())

    def test_nothing_personal(self, service: Service, active: str) -> None:
        text = json.dumps(claims_of(service, service.get(f"/requests/{active}/certificate").text))
        for personal in ("Elodie", "Brandt", hashlib.sha256(png()).hexdigest()):
            assert personal not in text
        assert service.settings.model not in json.loads(text)["policy"].values()

    def test_the_same_every_time(self, service: Service, active: str) -> None:
        first = service.get(f"/requests/{active}/certificate").text
        service.file("Somebody Else")
        assert service.get(f"/requests/{active}/certificate").text == first

    def test_the_same_after_a_rollback(self, service: Service, active: str) -> None:
        first = service.get(f"/requests/{active}/certificate").text
        with service.sessions.begin() as session:
            RegistryService(session, service.settings).rollback(1)
        assert service.get(f"/requests/{active}/certificate").text == first

    def test_of_a_linked_request(self, service: Service, active: str) -> None:
        second = service.file(pictures=[data_url(png("blue"))])["id"]
        claims = claims_of(service, service.get(f"/requests/{second}/certificate").text)
        assert (claims["sub"], claims["request"]["linked_to"]) == (second, active)
        assert claims["expert"]["id"] == "exp_a"
        assert claims["exclusion_manifest"]["pictures"] == 2


class TestNone:
    def test_withdrawn(self, service: Service, active: str) -> None:
        service.post(f"/requests/{active}/revoke")
        assert_problem(service.get(f"/requests/{active}/certificate"), 409, "not-active")

    def test_expert_taken_out_past_the_service(self, service: Service, active: str) -> None:
        with service.sessions.begin() as session:
            session.execute(delete(GenerationExpert))
        assert_problem(service.get(f"/requests/{active}/certificate"), 409, "expert-not-live")


def _seed() -> str:
    return base64.b64encode(os.urandom(32)).decode()


class TestRotation:
    def _rotated(self, settings: Settings) -> Settings:
        old = Signer(settings).public_keys()[0]["x"]
        return load_settings(
            **settings.model_dump(exclude={"signing_key", "signing_keys_retired"}),
            signing_key=_seed(),
            signing_keys_retired=(old, *settings.signing_keys_retired),
            _env_file=None,
        )

    def test_what_was_signed_before_can_still_be_checked(self, service: Service, active: str) -> None:
        settings, tokens = service.settings, []
        for _ in range(3):
            with service.sessions.begin() as session:
                token = CertificateService(session, settings).issue(service.principal(), active)
            tokens.append(token)
            settings = self._rotated(settings)
        keys = Signer(settings).public_keys()
        assert len({key["kid"] for key in keys}) == len(keys) == 4
        verifier = Verifier(keys)
        subjects = [verifier.claims(token, type=CERTIFICATE)["sub"] for token in tokens]
        assert subjects == [active] * 3
        assert len(set(tokens)) == 3

    def test_a_key_that_was_dropped_counts_no_more(self, service: Service, active: str) -> None:
        token = service.get(f"/requests/{active}/certificate").text
        fresh = self._rotated(service.settings).model_copy(update={"signing_keys_retired": ()})
        with pytest.raises(SignatureProblem, match="not among the public keys"):
            Signer(fresh).verifier().claims(token, type=CERTIFICATE)

    def test_rotation_does_not_lose_duplicates(self, service: Service, active: str) -> None:
        """Tokens that find a subject again hang on the secret key, not on the signing key."""
        from app.removal.evidence import EvidenceStore
        from app.removal.records import Subject

        subject = Subject("Elodie Brandt", (), "Personage")
        with service.sessions() as session:
            tokens = {
                EvidenceStore(session, settings).subject_token("ten_x", subject, [])
                for settings in (service.settings, self._rotated(service.settings))
            }
        assert len(tokens) == 1

    def test_published_keys_hold_nothing_private(self, own_settings: Settings) -> None:
        for key in Signer(self._rotated(own_settings)).public_keys():
            assert set(key) == {"kty", "crv", "x", "kid", "alg", "use"}


class TestPublicKeys:
    def test_pem(self, own_settings: Settings) -> None:
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        from app.kit.crypto import signing_key

        public = signing_key(own_settings.secret_key.get_secret_value()).public_key()
        pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        assert read_public_keys(pem) == Signer(own_settings).public_keys()

    @pytest.mark.parametrize(
        "text", ["", "x", "[]", "{}", '{"keys": [{"kty": "OKP"}]}', '{"keys": 1}', "-----BEGIN"]
    )
    def test_not_keys(self, text: str) -> None:
        with pytest.raises(SignatureProblem, match="PEM"):
            read_public_keys(text)

    def test_keys_of_other_kinds_are_left_out(self) -> None:
        assert read_public_keys('{"keys": [{"kty": "RSA", "crv": "-"}]}') == []
