"""Signatures that anybody can check: JWS with Ed25519 (RFC 7515, RFC 8037, RFC 9864)."""

from collections.abc import Mapping

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from joserfc import jws
from joserfc.jwk import OKPKey

from app.kit.canonical import JsonValue, canonical_json
from app.kit.crypto import signing_key, signing_key_id
from app.settings import Settings

ALGORITHM = "Ed25519"


class Signer:
    """Signs with the key derived from the service's secret, and publishes the public half."""

    def __init__(self, settings: Settings) -> None:
        private = signing_key(settings.secret_key.get_secret_value())
        self.key_id = signing_key_id(private)
        pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        self._key = OKPKey.import_key(pem)

    def sign(self, claims: Mapping[str, JsonValue], *, type: str) -> str:
        """Return `claims` as a compact JWS; `type` becomes its `typ` header."""
        header = {"alg": ALGORITHM, "kid": self.key_id, "typ": type}
        return jws.serialize_compact(header, canonical_json(claims), self._key, algorithms=[ALGORITHM])

    def public_keys(self) -> list[dict[str, str]]:
        """Return the public keys as JWKs."""
        public = self._key.as_dict(private=False)
        parts = {name: str(public[name]) for name in ("kty", "crv", "x")}
        return [parts | {"kid": self.key_id, "alg": ALGORITHM, "use": "sig"}]
