"""The chain: appending at once, and every way to tamper with it."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import delete, func, select, text, update
from sqlalchemy.orm import Session

from app.audit.checkpoints import CheckpointService
from app.audit.repository import AuditRepository
from app.audit.service import GENESIS, AuditService
from app.db.models import AuditEvent, AuditSalt
from app.db.session import SessionFactory, create_engine_from, session_factory
from app.settings import Settings


def _append(sessions: SessionFactory, n: int, actor: str) -> None:
    for i in range(n):
        with sessions.begin() as session:
            AuditService(session).append("test.event", actor=actor, payload={"i": i, "share": 0.1 * i})


def _append_in_process(url: str, n: int, actor: str) -> None:
    engine = create_engine_from(Settings(database_url=url))
    _append(session_factory(engine), n, actor)
    engine.dispose()


class TestAppend:
    def test_links_to_the_one_before(self, db_session: Session) -> None:
        audit = AuditService(db_session)
        before = AuditRepository(db_session).tail()
        audit.append("a.b", actor="key_1", subject_id="req_1", payload={"x": [1, 2.5, None, True, "é"]})
        audit.append("a.c", actor="key_1")
        first, second = AuditRepository(db_session).batch(before.seq if before else 0, 2**40, 9)
        assert first.prev_hash == (before.hash if before else GENESIS)
        assert (second.prev_hash, second.seq) == (first.hash, first.seq + 1)
        assert audit.verify().intact
        assert audit.head() == (second.seq, second.hash)

    @pytest.mark.parametrize("payload", [{"x": float("nan")}, {"x": float("inf")}, {"x": 2**60}])
    def test_what_has_no_canonical_form(self, db_session: Session, payload: dict[str, float]) -> None:
        with pytest.raises(ValueError, match="canonical"):
            AuditService(db_session).append("a.b", actor="key_1", payload=payload)

    def test_numbers_survive_the_database(self, sessions: SessionFactory) -> None:
        values = [1.0, 1e300, 1e-300, -0.0, 0.1 + 0.2, 123456789.125, 2**53 - 1]
        with sessions.begin() as session:
            AuditService(session).append("a.b", actor="key_1", payload={"values": values})
        with sessions.begin() as session:
            assert AuditService(session).verify().intact

    def test_rolled_back_leaves_no_gap(self, sessions: SessionFactory) -> None:
        _append(sessions, 2, "a")
        session = sessions()
        AuditService(session).append("test.lost", actor="a")
        session.rollback()
        session.close()
        _append(sessions, 1, "a")
        with sessions.begin() as session:
            report = AuditService(session).verify()
            assert (report.intact, report.events) == (True, 3)

    def test_six_threads_fork_nothing(self, sessions: SessionFactory) -> None:
        with ThreadPoolExecutor(6) as pool:
            list(pool.map(lambda i: _append(sessions, 10, f"t{i}"), range(6)))
        with sessions.begin() as session:
            report = AuditService(session).verify()
            assert (report.intact, report.events) == (True, 60)

    @pytest.mark.parametrize("each", [25, pytest.param(200, marks=pytest.mark.long)])
    def test_six_processes_fork_nothing(
        self, own_settings: Settings, sessions: SessionFactory, each: int
    ) -> None:
        context = multiprocessing.get_context("fork")
        jobs = [
            context.Process(target=_append_in_process, args=(own_settings.database_url, each, f"p{i}"))
            for i in range(6)
        ]
        for job in jobs:
            job.start()
        for job in jobs:
            job.join(300)
            assert job.exitcode == 0
        with sessions.begin() as session:
            report = CheckpointService(session, own_settings).verify()
            assert (report.intact, report.events) == (True, 6 * each)
            by = select(AuditEvent.actor, func.count().label("n")).group_by(AuditEvent.actor)
            assert {row.actor: row.n for row in session.execute(by)} == {f"p{i}": each for i in range(6)}

    def test_the_database_itself_refuses_a_fork(self, sessions: SessionFactory) -> None:
        _append(sessions, 2, "a")
        with sessions() as session:
            statement = text(
                "INSERT INTO audit_events SELECT 3, 'aud_x', tenant_id, kind, actor, subject_id, payload, "
                "created_at, prev_hash, repeat('0', 64) FROM audit_events WHERE seq = 2"
            )
            with pytest.raises(Exception, match="uq_audit_events_prev_hash"):
                session.execute(statement)


def _edit(session: Session) -> None:
    session.execute(update(AuditEvent).where(AuditEvent.seq == 3).values(actor="somebody else"))


def _edit_payload(session: Session) -> None:
    session.execute(update(AuditEvent).where(AuditEvent.seq == 3).values(payload={"i": 99}))


def _edit_time(session: Session) -> None:
    session.execute(
        text("UPDATE audit_events SET created_at = created_at + interval '1 microsecond' WHERE seq = 3")
    )


def _remove(session: Session) -> None:
    session.execute(delete(AuditEvent).where(AuditEvent.seq == 3))


def _remove_first(session: Session) -> None:
    session.execute(delete(AuditEvent).where(AuditEvent.seq == 1))


def _swap(session: Session) -> None:
    for old, new in ((3, 100), (4, 3), (100, 4)):
        session.execute(update(AuditEvent).where(AuditEvent.seq == old).values(seq=new))


def _close_the_gap(session: Session) -> None:
    session.execute(delete(AuditEvent).where(AuditEvent.seq == 3))
    session.execute(update(AuditEvent).where(AuditEvent.seq == 4).values(seq=3))
    session.execute(update(AuditEvent).where(AuditEvent.seq == 5).values(seq=4))


class TestVerify:
    @pytest.mark.parametrize(
        ("tamper", "broken_at"),
        [
            (_edit, 3), (_edit_payload, 3), (_edit_time, 3), (_remove, 4), (_remove_first, 2), (_swap, 3),
            (_close_the_gap, 3),
        ],
    )  # fmt: skip
    def test_tampering_shows(
        self, db_session: Session, tamper: Callable[[Session], None], broken_at: int
    ) -> None:
        db_session.execute(delete(AuditEvent))
        audit = AuditService(db_session)
        for i in range(5):
            audit.append("test.event", actor="a", payload={"i": i})
        assert audit.verify().intact
        db_session.commit()
        tamper(db_session)
        db_session.expire_all()
        report = audit.verify()
        assert not report.intact
        assert report.broken_at == broken_at
        assert report.reason
        assert report.events == broken_at - 1 if tamper not in (_remove, _remove_first) else report.events < 5

    def test_empty(self, sessions: SessionFactory) -> None:
        with sessions.begin() as session:
            report = AuditService(session).verify()
            assert (report.intact, report.events, report.head_hash) == (True, 0, GENESIS)


class TestToken:
    def test_same_subject_same_token(self, db_session: Session) -> None:
        audit = AuditService(db_session)
        token = audit.token("req_1", "Elodie")
        assert token == audit.token("req_1", "Elodie")
        assert token != audit.token("req_2", "Elodie")
        assert "Elodie" not in token

    def test_erasing_the_salt_keeps_the_chain_valid(self, db_session: Session) -> None:
        audit = AuditService(db_session)
        token = audit.token("req_1", "Elodie")
        audit.append("a.b", actor="a", subject_id="req_1", payload={"reason_token": token})
        db_session.execute(delete(AuditSalt).where(AuditSalt.subject_id == "req_1"))
        assert audit.verify().intact
        assert audit.token("req_1", "Elodie") != token
        assert db_session.scalar(select(func.count()).select_from(AuditSalt)) == 1
