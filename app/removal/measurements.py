"""What was measured after the fact, and the examples behind it: encrypted, every look in the audit trail."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, cast

from sqlalchemy.orm import Session

from app.audit.service import AuditService
from app.db.models import Remeasurement, RemovalRequest, VerificationExample
from app.kit.canonical import JsonValue
from app.kit.ids import new_id
from app.removal.lifecycle import Lifecycle
from app.removal.records import Score
from app.removal.repository import MeasurementRepository
from app.settings import Settings

ExampleKind = Literal["failure", "regression", "before_after"]
Example = dict[str, JsonValue]


@dataclass(frozen=True, slots=True)
class Remeasured:
    """One request's figures in one generation; `after` is the request that was published with it."""

    generation: int
    after: str | None
    at: datetime
    scores: tuple[Score, ...]


class MeasurementService:
    """One transaction's view of examples and later measurements. It never commits."""

    def __init__(self, session: Session, settings: Settings) -> None:
        self._rows = MeasurementRepository(session)
        self._audit = AuditService(session)
        self._lifecycle = Lifecycle(session)
        self._cipher = settings.evidence_cipher()

    # Examples --------------------------------------------------------------------------------------------

    def save_examples(
        self,
        request_id: str,
        kind: ExampleKind,
        examples: Sequence[Mapping[str, JsonValue]],
        *,
        attempt: int,
        token: int,
    ) -> None:
        """Keep examples, in place of earlier ones of this kind; none at all removes those.

        Raises:
            StaleLease: another attempt has taken over.
        """
        self._lifecycle.check_token(request_id, token)
        self._rows.forget_examples(request_id, kind)
        if examples:
            content = json.dumps(list(examples), ensure_ascii=False).encode()
            sealed = self._cipher.encrypt(content, examples_aad(request_id, kind))
            row = VerificationExample(
                id=new_id("vex"),
                request_id=request_id,
                kind=kind,
                attempt=attempt,
                n=len(examples),
                sealed=sealed,
            )
            self._rows.add_example(row)

    def examples(self, request: RemovalRequest, kind: ExampleKind, *, actor: str) -> list[Example]:
        """Return the decrypted examples of a kind; the access is audited.

        Raises:
            DecryptionError: changed data, or a key that is not configured.
        """
        row = self._rows.example(request.id, kind)
        if row is None:
            return []
        found = json.loads(self._cipher.decrypt(row.sealed, examples_aad(request.id, kind)))
        self._audit.append(
            "examples.read",
            actor=actor,
            subject_id=request.id,
            tenant_id=request.tenant_id,
            payload={"what": kind, "n": row.n},
        )
        return cast("list[Example]", found)

    # Measured again --------------------------------------------------------------------------------------

    def save_remeasured(self, generation: int, scores: Mapping[str, Sequence[Score]]) -> None:
        """Keep what was measured in a generation, by request; figures of the same generation are replaced."""
        for request_id, measured in scores.items():
            for score in measured:
                self._rows.save_remeasured(
                    Remeasurement(
                        id=new_id("rms"),
                        request_id=request_id,
                        generation=generation,
                        metric=score.metric,
                        value=score.value,
                        n=score.n,
                        low=score.low,
                        high=score.high,
                        threshold=score.threshold,
                        passed=score.passed,
                        reason=score.reason,
                    )
                )

    def remeasured(self, request_id: str, *, limit: int = 50) -> list[Remeasured]:
        """Return the request's figures of the newest `limit` generations it was measured in, oldest first."""
        found: dict[int, list[tuple[Remeasurement, str | None]]] = {}
        for row, after in self._rows.remeasured(request_id, limit):
            found.setdefault(row.generation, []).append((row, after))
        return [
            Remeasured(
                number, rows[0][1], max(r.created_at for r, _ in rows), tuple(_score(r) for r, _ in rows)
            )
            for number, rows in sorted(found.items())
        ]

    def last_measured(self, request_ids: Sequence[str]) -> dict[str, int]:
        """Return the newest generation each request was measured in; those never measured are left out."""
        return self._rows.last_measured(request_ids)


def _score(row: Remeasurement) -> Score:
    return Score(row.metric, row.value, row.n, row.low, row.high, row.threshold, row.passed, row.reason)


def examples_aad(request_id: str, kind: str) -> bytes:
    """Return what the ciphertext of examples is bound to."""
    return f"examples:{kind}:{request_id}".encode()
