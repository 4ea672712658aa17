"""Data keys: a request's files are encrypted under a key of its own, kept encrypted in the database.

Files of experts never change, so a new evidence key cannot encrypt them again. It encrypts the data keys
again, which are rows like all others, and erasing a request deletes its data key: whatever is left of its
files, in a backup or elsewhere, opens for nobody.
"""

import os

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert

from app.db.models import DataKey
from app.db.repository import Repository
from app.db.session import SessionFactory
from app.kit.crypto import KEY_BYTES, DecryptionError, EvidenceCipher, key_id_of
from app.settings import Settings


class DataKeyRepository(Repository[DataKey]):
    """Data keys by their own id, and by the request whose files they encrypt."""

    model = DataKey

    def get(self, key_id: str) -> DataKey | None:
        """Return the key with this hex id."""
        return self.first(select(DataKey).where(DataKey.id == key_id))

    def of(self, request_id: str) -> DataKey | None:
        """Return the request's key."""
        return self.first(select(DataKey).where(DataKey.request_id == request_id))

    def offer(self, key_id: str, sealed: bytes, request_id: str | None) -> bool:
        """Insert a key unless it, or one of this request, is there; tell whether it was inserted."""
        row = {"id": key_id, "sealed": sealed, "request_id": request_id}
        done = self.session.execute(
            insert(DataKey).values(row).on_conflict_do_nothing().returning(DataKey.id)
        )
        return done.scalar_one_or_none() is not None


class DataKeys:
    """Opens the files of every request, and encrypts those of one.

    Args:
        sessions: where the data keys are; each use is a short transaction of its own.
        settings: the evidence keys that the data keys are encrypted under.
    """

    def __init__(self, sessions: SessionFactory, settings: Settings) -> None:
        self._sessions = sessions
        self._evidence = settings.evidence_cipher()

    def decrypt(self, ciphertext: bytes, aad: bytes) -> bytes:
        """Return the plaintext of a file, under a data key or an evidence key that is configured.

        Raises:
            DecryptionError: changed data, another `aad`, or a key that is neither.
            SQLAlchemyError: the database does not answer.
        """
        key_id = key_id_of(ciphertext)
        if key_id in self._evidence.key_ids:  # written before there were data keys
            return self._evidence.decrypt(ciphertext, aad)
        with self._sessions() as session:
            row = DataKeyRepository(session).get(key_id)
        if row is None:
            raise DecryptionError(
                f"encrypted under key {key_id}, which is neither a data key in the database nor an evidence "
                "key: restore the database that belongs to these files, or add the key to "
                "LETHE_EVIDENCE_KEYS_PREVIOUS"
            )
        return EvidenceCipher(self._opened(row)).decrypt(ciphertext, aad)

    def of(self, request_id: str) -> "RequestCipher":
        """Return what encrypts files of this request."""
        return RequestCipher(self, request_id)

    def obtain(self, request_id: str) -> EvidenceCipher:
        """Return the cipher under the request's data key, drawn now if it has none.

        Raises:
            DecryptionError: the data key is under an evidence key that is not configured.
            IntegrityError: there is no such request.
        """
        with self._sessions.begin() as session:
            keys = DataKeyRepository(session)
            row = keys.of(request_id)
            if row is None:
                drawn = os.urandom(KEY_BYTES)
                key_id = EvidenceCipher(drawn).key_id
                sealed = self._evidence.encrypt(drawn, data_key_aad(key_id))
                if keys.offer(key_id, sealed, request_id):
                    return EvidenceCipher(drawn)
                row = keys.of(request_id)  # another process was faster
            if row is None:
                raise DecryptionError(f"the data key of {request_id} was erased meanwhile")
            return EvidenceCipher(self._opened(row))

    def _opened(self, row: DataKey) -> bytes:
        return self._evidence.decrypt(row.sealed, data_key_aad(row.id))


class RequestCipher:
    """Encrypts the files of one request; its data key is drawn with the first of them."""

    def __init__(self, keys: DataKeys, request_id: str) -> None:
        self._keys = keys
        self._request_id = request_id
        self._own: EvidenceCipher | None = None

    def encrypt(self, plaintext: bytes, aad: bytes) -> bytes:
        """Return the ciphertext of `plaintext`, bound to `aad`. Raises as `DataKeys.obtain` does."""
        if self._own is None:
            self._own = self._keys.obtain(self._request_id)
        return self._own.encrypt(plaintext, aad)

    def decrypt(self, ciphertext: bytes, aad: bytes) -> bytes:
        """Return the plaintext. Raises as `DataKeys.decrypt` does."""
        return self._keys.decrypt(ciphertext, aad)


def data_key_aad(key_id: str) -> bytes:
    """Return what a data key's ciphertext is bound to."""
    return f"data-key:{key_id}".encode()
