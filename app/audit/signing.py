"""Signatures that anybody can check: JWS with Ed25519 (RFC 7515, RFC 8037, RFC 9864)."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import cast

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_public_key,
)
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import KeySet, OKPKey

from app.audit.chain import SignedHead
from app.kit.canonical import JsonValue, canonical_json
from app.kit.crypto import decode_key, signing_key, signing_key_from_seed, signing_key_id
from app.settings import Settings

ALGORITHM = "Ed25519"
CHECKPOINT = "lethe-checkpoint+jws"
CERTIFICATE = "lethe-certificate+jws"

Jwk = dict[str, str]


class SignatureProblem(ValueError):  # noqa: N818  says what happened
    """A signature, or a file of public keys, cannot be accepted; the message says why."""


class UnknownKey(SignatureProblem):
    """It is signed with a key that is not among those given."""


class Signer:
    """Signs with the current key, and publishes its public half and those of the keys before it."""

    def __init__(self, settings: Settings) -> None:
        if settings.signing_key is not None:
            private = signing_key_from_seed(decode_key(settings.signing_key.get_secret_value()))
        else:
            private = signing_key(settings.secret_key.get_secret_value())
        self.key_id = signing_key_id(private)
        pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        self._key = OKPKey.import_key(pem)
        self._retired = [decode_key(key) for key in settings.signing_keys_retired]

    def sign(self, claims: Mapping[str, JsonValue], *, type: str) -> str:
        """Return `claims` as a compact JWS; `type` becomes its `typ` header."""
        header = {"alg": ALGORITHM, "kid": self.key_id, "typ": type}
        return jws.serialize_compact(header, canonical_json(claims), self._key, algorithms=[ALGORITHM])

    def public_keys(self) -> list[Jwk]:
        """Return the public keys as JWKs, the current one first."""
        current = str(self._key.as_dict(private=False)["x"])
        keys = [_jwk(decode_key(current + "=")), *(_jwk(key) for key in self._retired)]
        return list({key["kid"]: key for key in keys}.values())

    def verifier(self) -> "Verifier":
        """Return what checks signatures against the published keys."""
        return Verifier(self.public_keys())


class Verifier:
    """Checks signatures against public keys alone.

    Args:
        keys: as JWKs, each with its `kid`.
    """

    def __init__(self, keys: Sequence[Jwk]) -> None:
        self._ids = {key["kid"] for key in keys}
        self._keys = KeySet.import_key_set({"keys": [dict(key) for key in keys]})

    def claims(self, token: str, *, type: str) -> dict[str, JsonValue]:
        """Return what was signed.

        Args:
            token: a compact JWS.
            type: what it must be for.

        Raises:
            UnknownKey: it is signed with a key that is not among them.
            SignatureProblem: it is no JWS, of another type, or was changed.
        """
        try:
            checked = jws.deserialize_compact(token.strip(), self._keys, algorithms=[ALGORITHM])
            claims = json.loads(checked.payload or b"")
        except (JoseError, ValueError, KeyError) as error:
            raise self._problem(token, error) from error
        if checked.headers().get("typ") != type or not isinstance(claims, dict):
            raise SignatureProblem(f"it is signed, but is no {type.removesuffix('+jws')}")
        return cast("dict[str, JsonValue]", claims)

    def _problem(self, token: str, error: Exception) -> SignatureProblem:
        try:
            kid = str(jws.extract_compact(token.strip().encode()).headers().get("kid"))
        except (JoseError, ValueError):
            return SignatureProblem("it is not a compact JWS")
        if kid not in self._ids:
            return UnknownKey(f"it is signed with key {kid[:80]}, which is not among the public keys given")
        return SignatureProblem(f"its signature does not match its content ({type(error).__name__})")


def signed_head(token: str, verifier: Verifier) -> SignedHead:
    """Return what a checkpoint says.

    Raises:
        SignatureProblem: it is not signed with one of the keys, or does not say what a checkpoint says.
    """
    claims = verifier.claims(token, type=CHECKPOINT)
    seq, words = claims.get("seq"), [claims.get(name) for name in ("hash", "root", "issued_at")]
    if not isinstance(seq, int) or not all(isinstance(word, str) for word in words):
        raise SignatureProblem("it is signed, but lacks what a checkpoint says")
    return SignedHead(seq, *(str(word) for word in words))


def read_public_keys(text: str) -> list[Jwk]:
    """Return the Ed25519 keys in a JWK set, a JWK, or a PEM file.

    Raises:
        SignatureProblem: it is none of these, or holds no Ed25519 key.
    """
    if text.lstrip().startswith("-----BEGIN"):
        try:
            key = load_pem_public_key(text.encode())
        except ValueError as error:
            raise SignatureProblem(f"not a public key in PEM form: {error}") from error
        if not isinstance(key, Ed25519PublicKey):
            raise SignatureProblem("the PEM file holds a key that is not Ed25519")
        return [_jwk(key.public_bytes(Encoding.Raw, PublicFormat.Raw))]
    try:
        document = json.loads(text)
        found = document.get("keys", [document])
        keys = [key for key in found if (key["kty"], key["crv"]) == ("OKP", "Ed25519")]
        return [{**_jwk(decode_key(key["x"] + "=")), "kid": str(key.get("kid") or _kid(key))} for key in keys]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SignatureProblem(
            "neither a JWK set (as /.well-known/jwks.json returns it), nor a JWK, nor a PEM file"
        ) from error


def _kid(key: Mapping[str, str]) -> str:
    return _jwk(decode_key(key["x"] + "="))["kid"]


def _jwk(public: bytes) -> Jwk:
    parts = OKPKey.import_key(Ed25519PublicKey.from_public_bytes(public)).as_dict(private=False)
    kid = hashlib.sha256(public).hexdigest()[:16]
    return {"kty": "OKP", "crv": "Ed25519", "x": str(parts["x"]), "kid": kid, "alg": ALGORITHM, "use": "sig"}
