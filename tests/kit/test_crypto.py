"""Encryption at rest and derived keys."""

import os

import pytest

from app.kit.crypto import (
    DecryptionError,
    EvidenceCipher,
    decode_key,
    derive_key,
    keyed_token,
    signing_key,
    signing_key_id,
)

KEY, OTHER = os.urandom(32), os.urandom(32)


class TestEvidenceCipher:
    def test_round_trip(self) -> None:
        sealed = EvidenceCipher(KEY).encrypt(b"face", b"evidence:1")
        assert b"face" not in sealed
        assert EvidenceCipher(KEY).decrypt(sealed, b"evidence:1") == b"face"

    def test_never_the_same_twice(self) -> None:
        cipher = EvidenceCipher(KEY)
        assert cipher.encrypt(b"x", b"") != cipher.encrypt(b"x", b"")

    def test_bound_to_its_place(self) -> None:
        sealed = EvidenceCipher(KEY).encrypt(b"face", b"evidence:1")
        with pytest.raises(DecryptionError):
            EvidenceCipher(KEY).decrypt(sealed, b"evidence:2")

    def test_every_changed_byte_is_noticed(self) -> None:
        sealed = EvidenceCipher(KEY).encrypt(b"face", b"")
        for i in range(len(sealed)):
            changed = bytearray(sealed)
            changed[i] ^= 1
            with pytest.raises(DecryptionError):
                EvidenceCipher(KEY).decrypt(bytes(changed), b"")

    @pytest.mark.parametrize("data", [b"", b"LE1", b"x" * 100])
    def test_not_ours(self, data: bytes) -> None:
        with pytest.raises(DecryptionError):
            EvidenceCipher(KEY).decrypt(data, b"")

    def test_rotation(self) -> None:
        old = EvidenceCipher(KEY).encrypt(b"face", b"")
        rotated = EvidenceCipher(OTHER, [KEY])
        assert rotated.decrypt(old, b"") == b"face"
        assert rotated.key_id != EvidenceCipher(KEY).key_id
        with pytest.raises(DecryptionError, match="LETHE_EVIDENCE_KEYS_PREVIOUS"):
            EvidenceCipher(OTHER).decrypt(old, b"")

    def test_key_length(self) -> None:
        with pytest.raises(ValueError, match="32"):
            EvidenceCipher(b"short")


def test_decode_key() -> None:
    assert decode_key("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=") == bytes(32)
    for bad in ("", "AAAA", "not base64!"):
        with pytest.raises(ValueError, match=r"base64|bytes"):
            decode_key(bad)


def test_derived_keys_differ_by_purpose() -> None:
    assert derive_key("s", "a") == derive_key("s", "a")
    assert derive_key("s", "a") != derive_key("s", "b")
    assert derive_key("s", "a") != derive_key("t", "a")


def test_tokens_do_not_run_together() -> None:
    assert keyed_token(KEY, "ab", "c") != keyed_token(KEY, "a", "bc")
    assert keyed_token(KEY, "a") != keyed_token(OTHER, "a")


def test_signing_key_is_the_same_for_a_secret() -> None:
    assert signing_key_id(signing_key("s")) == signing_key_id(signing_key("s"))
    assert signing_key_id(signing_key("s")) != signing_key_id(signing_key("t"))
