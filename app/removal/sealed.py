"""SQL over everything that is encrypted in the database, whatever it is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import LargeBinary, func, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from app.db.models import DataKey, Evidence, RemovalRequest, VerificationExample
from app.db.webhook_models import Webhook
from app.removal.datakeys import data_key_aad
from app.removal.evidence import picture_aad, subject_aad
from app.removal.measurements import examples_aad
from app.webhooks.service import secret_aad

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
    SealedColumn("data_keys", DataKey, DataKey.sealed, lambda key: data_key_aad(key.id)),
    SealedColumn("webhook_secrets", Webhook, Webhook.secret_sealed, lambda webhook: secret_aad(webhook.id)),
    SealedColumn(
        "webhook_secrets_before",
        Webhook,
        Webhook.previous_sealed,
        lambda webhook: secret_aad(webhook.id),
    ),
)
"""Every column of type `Sealed` that the evidence key encrypts; a test compares with the tables."""


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

    def located(self, of: SealedColumn) -> list[tuple[str, str]]:
        """Return (key's hex id, what it concerns), each pair once: a request if there is one, or the row."""
        concerned = getattr(of.model, "request_id", None)
        owner = of.model.id if concerned is None else func.coalesce(concerned, of.model.id)
        statement = select(owner, self._key_of(of)).where(of.column.is_not(None)).distinct()
        return sorted((bytes(key).hex(), found) for found, key in self._session.execute(statement))

    def counted(self, of: SealedColumn) -> dict[str, int]:
        """Return how many rows are encrypted under which key, by its hex id."""
        key = self._key_of(of)
        statement = select(key, func.count()).where(of.column.is_not(None)).group_by(key)
        return {bytes(found).hex(): n for found, n in self._session.execute(statement)}

    @staticmethod
    def _key_of(of: SealedColumn) -> Any:
        return func.substring(of.column, _KEY_ID.start + 1, _KEY_ID.stop - _KEY_ID.start, type_=LargeBinary)
