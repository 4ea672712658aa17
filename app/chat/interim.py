"""Reads the evidence of subjects that have no expert yet, and makes of it what the router needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from app.db.session import SessionFactory
from app.kit.crypto import DecryptionError
from app.kit.logging import get_logger
from app.lumoe.interim import InterimEntry, InterimSubject, interim_records
from app.lumoe.mllm import MLLM
from app.registry.service import InterimRow
from app.removal.evidence import SealedEvidence
from app.removal.service import RemovalService
from app.settings import Settings

_TOGETHER = 16
"""So many subjects' evidence is in memory at once, encrypted."""
_log = get_logger("interim")


class InterimUnreadableError(Exception):
    """The subject of an interim protection cannot be decrypted: it is not protected here."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """The entries of a generation, and the requests whose subject could not be read."""

    entries: tuple[InterimEntry, ...]
    unreadable: tuple[str, ...]

    def check(self) -> None:
        """Raise `InterimUnreadableError` unless everything could be read."""
        if self.unreadable:
            raise InterimUnreadableError(
                f"the subject of {', '.join(self.unreadable)} cannot be decrypted: configure the key it was "
                "encrypted with (LETHE_EVIDENCE_KEYS_PREVIOUS), or reject the request"
            )


class InterimLoader:
    """Builds gate records; evidence is read, and the tower run over its pictures, once per entry.

    Args:
        settings: keys.
        sessions: where the evidence is.
        mllm: whose vision tower sees the pictures.
        actor: who reads, for the audit trail.
    """

    def __init__(self, settings: Settings, sessions: SessionFactory, mllm: MLLM, actor: str) -> None:
        self._settings = settings
        self._sessions = sessions
        self._mllm = mllm
        self._actor = actor
        self._held: dict[str, InterimEntry] = {}

    def load(self, rows: list[InterimRow]) -> Loaded:
        """Return the entries of `rows`; those that are no longer among them are forgotten.

        A picture that cannot be read is left out, and so is whatever was purged: the rest still protects.
        """
        unreadable: list[str] = []
        fresh = [row for row in rows if row.id not in self._held]
        for some in (fresh[i : i + _TOGETHER] for i in range(0, len(fresh), _TOGETHER)):
            unreadable += self._read(some)
        self._held = {row.id: self._held[row.id] for row in rows if row.id in self._held}
        return Loaded(tuple(self._held.values()), tuple(unreadable))

    def _read(self, rows: Sequence[InterimRow]) -> list[str]:
        """Hold the entries of these from now on; return the requests whose subject could not be read."""
        subjects: dict[InterimRow, InterimSubject] = {}
        unreadable = []
        for row, sealed in zip(rows, self._taken(rows), strict=True):
            try:
                subjects[row] = _subject(sealed)
            except DecryptionError:
                _log.exception("subject not readable", request=row.request_id)
                unreadable.append(row.request_id)
        records = interim_records(self._mllm, subjects.values())
        for (row, subject), record in zip(subjects.items(), records, strict=True):
            if not subject.aliases and not len(record.prototypes):
                _log.warning("nothing left to protect by", request=row.request_id)
            self._held[row.id] = InterimEntry(row.expert_id, record)
        return unreadable

    def _taken(self, rows: Sequence[InterimRow]) -> list[SealedEvidence]:
        """Return the evidence of several, still encrypted, with one turn at the ledger for all of them."""
        with self._sessions.begin() as session:  # the access is on the record before anything is opened
            service = RemovalService(session, self._settings)
            return service.sealed_evidences([row.request_id for row in rows], actor=self._actor)


def _subject(sealed: SealedEvidence) -> InterimSubject:
    """Return whom it is about, with pictures still to be opened. Raises `DecryptionError`."""
    subject = sealed.subject()
    names = () if subject is None else (subject.name, *subject.aliases)
    aliases = tuple(dict.fromkeys(name for name in names if name))
    facts = tuple(subject.facts.values()) if subject is not None else ()
    return InterimSubject(aliases, sealed.klass, sealed.pictures(), facts)
