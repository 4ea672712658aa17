"""Encryption at rest (AES-256-GCM with key ids), keyed tokens, and signing keys derived from one secret."""

import base64
import hashlib
import hmac
import os
from collections.abc import Sequence
from functools import lru_cache

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_MAGIC = b"LE1"
_KEY_ID_BYTES = 8
_NONCE_BYTES = 12
KEY_BYTES = 32


class DecryptionError(Exception):
    """The ciphertext was changed, belongs to other data, or its key is not configured."""


class EvidenceCipher:
    """AES-256-GCM under a current key; older keys still decrypt.

    A ciphertext is `LE1 | key id (8 bytes) | nonce (12 bytes) | ciphertext and tag`. The additional
    authenticated data binds it to its place (for example the id of the row), so that swapping two rows'
    ciphertexts is noticed.

    Args:
        key: 32 bytes, used for encryption.
        previous: 32-byte keys that were current earlier, for decryption alone.
    """

    def __init__(self, key: bytes, previous: Sequence[bytes] = ()) -> None:
        for candidate in (key, *previous):
            if len(candidate) != KEY_BYTES:
                raise ValueError(f"an evidence key has {KEY_BYTES} bytes, not {len(candidate)}")
        self._ciphers = {_key_id(k): AESGCM(k) for k in (*previous, key)}
        self._current = _key_id(key)

    @property
    def key_id(self) -> str:
        """Hex id of the key that new data is encrypted under; reveals nothing about the key."""
        return self._current.hex()

    @property
    def key_ids(self) -> frozenset[str]:
        """Hex ids of the keys that can be decrypted under."""
        return frozenset(key_id.hex() for key_id in self._ciphers)

    def encrypt(self, plaintext: bytes, aad: bytes) -> bytes:
        """Return the ciphertext of `plaintext`, bound to `aad`."""
        nonce = os.urandom(_NONCE_BYTES)
        sealed = self._ciphers[self._current].encrypt(nonce, plaintext, aad)
        return _MAGIC + self._current + nonce + sealed

    def decrypt(self, ciphertext: bytes, aad: bytes) -> bytes:
        """Return the plaintext.

        Raises:
            DecryptionError: changed data, another `aad`, or a key that is not configured.
        """
        key_id, head = bytes.fromhex(key_id_of(ciphertext)), len(_MAGIC) + _KEY_ID_BYTES
        cipher = self._ciphers.get(key_id)
        if cipher is None:
            raise DecryptionError(
                f"encrypted under key {key_id.hex()}, which is not configured; "
                "add it to LETHE_EVIDENCE_KEYS_PREVIOUS"
            )
        try:
            return cipher.decrypt(
                ciphertext[head : head + _NONCE_BYTES], ciphertext[head + _NONCE_BYTES :], aad
            )
        except InvalidTag as error:
            raise DecryptionError("the ciphertext was changed or belongs to other data") from error


def key_id_of(ciphertext: bytes) -> str:
    """Return the hex id of the key of a ciphertext. Raises `DecryptionError` if it is none."""
    head = len(_MAGIC) + _KEY_ID_BYTES
    if not ciphertext.startswith(_MAGIC) or len(ciphertext) < head + _NONCE_BYTES:
        raise DecryptionError("not a Lethe ciphertext")
    return ciphertext[len(_MAGIC) : head].hex()


def _key_id(key: bytes) -> bytes:
    return hashlib.sha256(b"lethe evidence key id" + key).digest()[:_KEY_ID_BYTES]


def decode_key(text: str) -> bytes:
    """Return the 32 bytes of a base64 (standard or URL-safe) key.

    Raises:
        ValueError: not base64, or not 32 bytes.
    """
    try:
        key = base64.b64decode(text.replace("-", "+").replace("_", "/"), validate=True)
    except ValueError as error:
        raise ValueError("not base64") from error
    if len(key) != KEY_BYTES:
        raise ValueError(f"{len(key)} bytes instead of {KEY_BYTES}")
    return key


@lru_cache(maxsize=16)
def derive_key(secret: str, purpose: str) -> bytes:
    """Return 32 bytes derived from `secret` for one `purpose` (HKDF-SHA256, RFC 5869)."""
    return HKDF(algorithm=hashes.SHA256(), length=KEY_BYTES, salt=None, info=purpose.encode()).derive(
        secret.encode()
    )


def keyed_token(key: bytes, *parts: str) -> str:
    """Return an HMAC-SHA256 over `parts` in hex: equal inputs can be found again, not read back."""
    message = b"".join(len(p := part.encode()).to_bytes(8, "big") + p for part in parts)
    return hmac.new(key, message, hashlib.sha256).hexdigest()


def signing_key(secret: str) -> Ed25519PrivateKey:
    """Return the Ed25519 key that signs checkpoints and certificates, derived from `secret`."""
    return Ed25519PrivateKey.from_private_bytes(derive_key(secret, "lethe/ed25519/v1"))


def signing_key_from_seed(seed: bytes) -> Ed25519PrivateKey:
    """Return the Ed25519 key with these 32 random bytes as its private key (RFC 8032)."""
    return Ed25519PrivateKey.from_private_bytes(seed)


def signing_key_id(key: Ed25519PrivateKey) -> str:
    """Return the public key's id: the first 16 hex digits of its SHA-256."""
    return hashlib.sha256(key.public_key().public_bytes_raw()).hexdigest()[:16]
