from __future__ import annotations

import threading

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DataError
from sqlalchemy.orm import Session

from app.audit.repository import AuditRepository
from app.audit.service import AuditService
from app.db.models import AuditEvent, RemovalRequest
from app.db.repository import lock_ledger
from app.db.session import SessionFactory


def kinds(sessions: SessionFactory) -> list[str]:
    with sessions.begin() as session:
        return [event.kind for event in AuditRepository(session).batch(0, 2**40, 100)]


def _held(session: Session) -> bool:
    found = session.execute(text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted"))
    return bool(found.scalar_one())


def test_the_ledger_is_free_until_the_commit(sessions: SessionFactory) -> None:
    """Somebody else files, and is done, while a transaction with an event goes on."""
    with sessions.begin() as slow:
        AuditService(slow).append("test.slow", actor="a")
        assert not _held(slow)
        with sessions.begin() as quick:
            AuditService(quick).append("test.quick", actor="b")
        assert kinds(sessions) == ["test.quick"]
    assert kinds(sessions) == ["test.quick", "test.slow"]


def test_whoever_reads_sees_what_it_appended(sessions: SessionFactory) -> None:
    with sessions.begin() as session:
        audit = AuditService(session)
        audit.append("test.one", actor="a", subject_id="req_1")
        assert AuditRepository(session).last_of("req_1", "test.one") is not None
        assert _held(session)
        audit.append("test.two", actor="a")
        assert audit.head()[0] == 2
        assert audit.verify().events == 2
    assert kinds(sessions) == ["test.one", "test.two"]


def test_any_statement_that_reads_events_sees_them_and_no_other_locks_the_ledger(
    sessions: SessionFactory,
) -> None:
    with sessions.begin() as session:
        AuditService(session).append("test.one", actor="a")
        session.scalars(select(RemovalRequest)).all()
        assert not _held(session)
        assert session.scalars(select(AuditEvent.kind)).all() == ["test.one"]
        assert _held(session)


def test_what_is_rolled_back_is_not_written_by_the_next(sessions: SessionFactory) -> None:
    with sessions() as session:
        AuditService(session).append("test.lost", actor="a")
        session.rollback()
        AuditService(session).append("test.kept", actor="a")
        session.commit()
        session.commit()
    assert kinds(sessions) == ["test.kept"]


def test_a_closed_session_writes_nothing(sessions: SessionFactory) -> None:
    session = sessions()
    AuditService(session).append("test.lost", actor="a")
    session.close()
    session.execute(text("SELECT 1"))
    session.commit()
    assert kinds(sessions) == []


def test_an_event_that_cannot_be_written_undoes_what_it_tells_of(sessions: SessionFactory) -> None:
    session = sessions()
    session.execute(text("INSERT INTO tenants (id, name) VALUES ('ten_lost', 'lost')"))
    AuditService(session).append("test.event", actor="x" * 1000)
    with pytest.raises(DataError, match="too long"):
        session.commit()
    session.close()
    with sessions.begin() as session:
        assert session.execute(text("SELECT count(*) FROM tenants WHERE id = 'ten_lost'")).scalar_one() == 0


def test_waits_for_who_holds_the_ledger(sessions: SessionFactory) -> None:
    done = threading.Event()

    def append() -> None:
        with sessions.begin() as session:
            AuditService(session).append("test.second", actor="b")
        done.set()

    with sessions.begin() as first:
        lock_ledger(first)
        AuditService(first).append("test.first", actor="a")
        thread = threading.Thread(target=append)
        thread.start()
        assert not done.wait(0.3)
    thread.join(10)
    assert kinds(sessions) == ["test.first", "test.second"]
