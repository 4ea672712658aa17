"""SQL over everything that is encrypted in the database, whatever it is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import LargeBinary, func, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from app.db.models import Evidence, RemovalRequest, VerificationExample
from app.removal.evidence import picture_aad, subject_aad
from app.removal.measurements import examples_aad

_KEY_ID = slice(3, 11)
"""Where a ciphertext names its key; see `EvidenceCipher`."""


@dataclass(frozen=True, slots=True)
class SealedColumn:
    """A column of ciphertexts: its name in reports, its table, itself, and what each is bound to."""

    name: str
    model: type[Any]
    column: InstrumentedAttribute[Any]
    aad: Callable[[Any], bytes]


COLUMNS = (
    SealedColumn(
        "subjects", RemovalRequest, RemovalRequest.subject_sealed, lambda request: subject_aad(request.id)
    ),
    SealedColumn("pictures", Evidence, Evidence.sealed, lambda picture: picture_aad(picture.id)),
    SealedColumn(
        "examples",
        VerificationExample,
        VerificationExample.sealed,
        lambda example: examples_aad(example.request_id, example.kind),
    ),
)


class SealedRepository:
    """Rows by the key that they are encrypted under."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def under_other_keys(self, of: SealedColumn, key_id: str, after: str, limit: int) -> Sequence[Any]:
        """Return and lock the next rows in order of id that are not encrypted under this key."""
        statement = (
            select(of.model)
            .where(of.column.is_not(None), self._key_of(of) != bytes.fromhex(key_id), of.model.id > after)
            .order_by(of.model.id)
            .limit(limit)
            .with_for_update()
        )
        return self._session.scalars(statement).all()

    def counted(self, of: SealedColumn) -> dict[str, int]:
        """Return how many rows are encrypted under which key, by its hex id."""
        key = self._key_of(of)
        statement = select(key, func.count()).where(of.column.is_not(None)).group_by(key)
        return {bytes(found).hex(): n for found, n in self._session.execute(statement)}

    @staticmethod
    def _key_of(of: SealedColumn) -> Any:
        return func.substring(of.column, _KEY_ID.start + 1, _KEY_ID.stop - _KEY_ID.start, type_=LargeBinary)
